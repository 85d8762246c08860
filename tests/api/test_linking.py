"""The linker of the pages' modules: many files in, one module out, and a clear word for whatever it does not read."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from app.api.linking import LinkError, link, stripped

Run = Callable[[str], list[str]]


@pytest.fixture
def run(node: Path) -> Run:
    """What a module prints in Node."""

    def run(module: str) -> list[str]:
        command = [str(node), "--input-type=module"]
        done = subprocess.run(command, input=module, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_every_way_to_import_and_export_works_as_in_the_modules_themselves(run: Run) -> None:
    files = {
        "main.js": """
import "./lib/effect.js";
import words, { a as renamed, f, Thing } from "./lib/things.js";
import * as all from "./lib/again.js";
import {
  first,
  second,
} from "./lib/again.js";
const history = "the entry's own name hides no global from the others";
console.log(words.hello, renamed, f(), new Thing().name, all.a, all.passed, first, second);
console.log((await import("./late/question.js")).pose());
""",
        "lib/effect.js": 'console.log("effect", typeof history);\n',
        "lib/things.js": """
import { helper } from "./helper.js";
export default { hello: "hallo" };
export const a = 1;
export function f() { return helper(2); }
export async function g() {}
export class Thing { name = "thing"; }
""",
        "lib/helper.js": 'console.log("helper runs once");\nexport const helper = (n) => n * 2;\n',
        "lib/again.js": """
import { helper } from "./helper.js";
const words = { first: 1, second: helper(1) };
const kept = "kept";
export { kept };
export { a, f as passed } from "./things.js";
export const { first, second } = words;
""",
        "late/question.js": 'import { f } from "../lib/things.js";\nexport const pose = () => `posed ${f()}`;\n',
    }
    assert run(link("main.js", files.get)) == [
        "effect undefined",
        "helper runs once",
        "hallo 1 4 thing 1 [Function: f] 1 2",
        "posed 4",
    ]


def test_a_library_exports_what_its_entry_exports(run: Run) -> None:
    files = {
        "client.js": 'import { b } from "./b.js";\nexport { b };\nexport class Client { name = b; }\n',
        "b.js": 'export const b = "b";\n',
    }
    module = link("client.js", files.get)
    assert run(f"{module}\nconsole.log(b, new Client().name);") == ["b b"]


def test_a_circle_through_a_later_import_ends(run: Run) -> None:
    files = {
        "main.js": 'import { a } from "./a.js";\nconsole.log(await a());\n',
        "a.js": 'export const name = "a";\nexport const a = async () => (await import("./b.js")).b;\n',
        "b.js": 'import { name } from "./a.js";\nexport const b = `b of ${name}`;\n',
    }
    assert run(link("main.js", files.get)) == ["b of a"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"main.js": 'import "./gone.js";\n'}, "no module gone.js"),
        ({"main.js": 'import { b } from "./b.js";\n', "b.js": 'import "./main.js";\n'}, "in a circle"),
        ({"main.js": 'import "./b.js";\n', "b.js": "export let n = 1;\n"}, "cannot read 'export let n = 1;'"),
        ({"main.js": 'import "./b.js";\n', "b.js": 'export * from "./c.js";\n', "c.js": ""}, "cannot read 'export *"),
        ({"main.js": 'import "./b.js";\n', "b.js": "const name = 1;\nimport(name);\n"}, "cannot read 'import(name);"),
        ({"main.js": "import { x } from 'bare';\n"}, "cannot read"),
    ],
)
def test_what_the_linker_cannot_read_is_refused_by_name(files: dict[str, str], words: str) -> None:
    with pytest.raises(LinkError, match=r".") as refusal:
        link("main.js", files.get)
    assert words in str(refusal.value)


def test_comments_and_indentation_go_and_text_stays() -> None:
    source = """
// A comment.
/** A longer
 *  one. */
const url = "https://queue.example"; // stays: it is behind code
  const text = `
    // no comment
      two  spaces
  `;
"""
    assert stripped(source) == (
        'const url = "https://queue.example"; // stays: it is behind code\n'
        "const text = `\n    // no comment\n      two  spaces\n  `;\n"
    )

"""The linkers of modules for pages and host sites: many files in, one module out, and a clear error for unsupported
syntax."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from app.api.library import library
from app.api.linking import link
from app.api.module_syntax import LinkError, stripped

Run = Callable[[str], list[str]]


@pytest.fixture
def run(node: Path) -> Run:
    """The output of a module in Node."""

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


def test_a_library_exports_what_its_entry_exports_and_has_in_it_what_that_needs(run: Run) -> None:
    files = {
        "client.js": """
import words, { b as renamed } from "./b.js";
import { c } from "./b.js";
import more from "./more.js";
export { renamed as b, c as last };
const SHOWN = `two  spaces
  and // no comment`;
export class Client {
  static #made = 0;
  #name = renamed;
  get #count() {
    return (Client.#made += 1);
  }
  async #later() {
    return `${this.#name} ${this.#count}`;
  }
  tell() {
    return this.#later();
  }
  shown = [words.hello, more.hello, SHOWN.length];
}
""",
        "b.js": """
export default { hello: "hallo" };
export const b = "b";
export { c } from "./c.js";
/** Nobody calls it. */
export function forgotten() {
  return `a ${"template"}`;
}
const early = (value) => `${value}
rest`;
export const unused = async (a) =>
  early(a);
""",
        "c.js": "export const { c, d: e } = { c: early(2), d: 3 };\nfunction early(n) {\n  return n * 2;\n}\n",
        "more.js": 'export default { hello: "servus" };\n',
    }
    with pytest.raises(LinkError, match="share a scope and both declare early"):
        library("client.js", files.get)
    files["c.js"] = files["c.js"].replace("early", "twice")
    module = library("client.js", files.get)
    assert module.endswith("export{b, c as last, Client};\n")
    assert "forgotten" not in module
    assert "unused" not in module
    assert "#name" not in module
    assert run(f"{module}\nconst made = new Client();\nconsole.log(b, c, await made.tell(), ...made.shown);") == [
        "b 4 b 1 hallo servus 31"
    ]


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
def test_syntax_that_the_linker_cannot_read_is_refused_by_name(files: dict[str, str], words: str) -> None:
    with pytest.raises(LinkError, match=r".") as refusal:
        link("main.js", files.get)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"main.js": 'import "./gone.js";\n'}, "no module gone.js"),
        ({"main.js": 'import "./b.js";\n', "b.js": 'import "./main.js";\n'}, "circle: main.js → b.js → main.js"),
        ({"main.js": 'import { c } from "./b.js";\n', "b.js": "export const b = 1;\n"}, "b.js does not export c"),
        ({"main.js": 'export const late = () => import("./b.js");\n', "b.js": ""}, "cannot read"),
        ({"main.js": "export const text = `a ${b ? `c` : d}`;\n"}, "a template in a template"),
    ],
)
def test_modules_that_cannot_be_linked_to_a_library_are_refused_by_name(files: dict[str, str], words: str) -> None:
    with pytest.raises(LinkError, match=r".") as refusal:
        library("main.js", files.get)
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

"""Every stored value that can grow has its bound in the guide's table, with the test that fills it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "static/docs/guides/design.md"
ALWAYS_EMPTY_AT_FIRST = {"deque", "OrderedDict", "defaultdict", "Counter", "SimpleQueue", "Queue"}
CONTAINERS = ALWAYS_EMPTY_AT_FIRST | {"dict", "list", "set"}
ASIDE = ("simulate", "sandbox", "commandline")
"""A site full of people, a wallet to try things with, commands that end."""
NOT_KEPT = {
    "domain/": "values: never changed once they are made",
    "engine/writer.py:ended": "of one batch",
    "store/writing.py:rooms renewed new_items first_versions fingerprints items deadlines": "of one transaction",
    "store/writing.py:learnt events operations answers": "of one transaction",
    "store/activity.py:_refunded found": "of one report",
    "live/step.py:_payloads _frames": "of one broadcast",
    "wallet/answers.py:body": "of one answer",
    "webhooks/deliverer.py:delivered attempts": "of one page",
}


def can_grow(value: ast.expr | None) -> bool:
    """Whether a value is an empty container or empty bytes."""
    match value:
        case ast.Constant(value=b""):
            return True
        case ast.Dict(keys=[]) | ast.List(elts=[]):
            return True
        case ast.Call(func=ast.Name(id="field"), keywords=keywords):
            return any(
                isinstance(given.value, ast.Name) and given.arg == "default_factory" and given.value.id in CONTAINERS
                for given in keywords
            )
        case ast.Call(func=ast.Name(id=name), args=args):
            return name in ALWAYS_EMPTY_AT_FIRST or (name in CONTAINERS and not args)
        case ast.IfExp(body=body, orelse=orelse):
            return can_grow(body) or can_grow(orelse)
        case _:
            return False


def containers_of(tree: ast.Module) -> Iterator[str]:
    """The attributes of its classes that are empty containers to begin with."""
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for node in kind.body:
            if isinstance(node, ast.AnnAssign) and can_grow(node.value):
                yield ast.unparse(node.target)
        methods = (node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
        for statement in (statement for method in methods for statement in ast.walk(method)):
            if isinstance(statement, ast.Assign | ast.AnnAssign) and can_grow(statement.value):
                target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
                if isinstance(target, ast.Attribute):
                    yield target.attr


def caches_of(tree: ast.Module) -> Iterator[str]:
    """The functions that cache every result, without a limit."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if any(isinstance(each, ast.Name) and each.id == "cache" for each in function.decorator_list):
            yield function.name


def found() -> set[tuple[str, str]]:
    paths = [path for path in (ROOT / "app").rglob("*.py") if not set(ASIDE) & set(path.parts)]
    return {
        (path.relative_to(ROOT / "app").as_posix(), name)
        for path in paths
        for tree in [ast.parse(path.read_text())]
        for name in (*containers_of(tree), *caches_of(tree))
    }


def rows() -> list[list[str]]:
    text = GUIDE.read_text().split("## What is held in memory, and its bound")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def described() -> set[tuple[str, str]]:
    names: set[tuple[str, str]] = set()
    for row in rows():
        module = ""
        for word in re.findall(r"`([^`]+)`", row[0]):
            if word.endswith(".py"):
                module = word
            else:
                names.add((module, word))
    return names


def is_not_kept(module: str, name: str) -> bool:
    for place in NOT_KEPT:
        where, _, names = place.partition(":")
        if module.startswith(where) and (not names or name in names.split()):
            return True
    return False


def test_every_container_that_is_kept_has_its_bound_in_the_guide() -> None:
    assert {each for each in found() if not is_not_kept(*each)} - described() == set()


def test_the_guide_names_only_existing_values() -> None:
    for module, name in described():
        assert re.search(
            rf"\bself\.{name}\b|^    {name}: |^def {name}\(", (ROOT / "app" / module).read_text(), re.MULTILINE
        ), name


def test_the_test_that_fills_each_value_exists() -> None:
    for row in rows():
        for test in re.findall(r"`([^`]+)`", row[-1]):
            assert (ROOT / "tests" / test).is_file(), test

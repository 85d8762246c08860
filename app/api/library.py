"""Joins a module that host sites load, and all that it imports, in one small file, without a build tool.

The joined modules share one scope, each after those that it imports, so their names at top level must differ. Functions
that are never called, comments and indentation are left out; private names are shortened. `import()` is refused.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count, product
from string import ascii_lowercase

import rjsmin

from app.api.module_syntax import (
    IMPORT,
    PASSED_ON,
    LinkError,
    Read,
    checked,
    exported,
    imported,
    imports_of,
    pairs,
    read_module,
    resolved,
)

_DECLARED = re.compile(
    r"^(?:export )?(?:(?:async )?function\*? ?|class |const |let )(?P<name>[\w$]+|\{[^}]*\})", re.MULTILINE
)
_PRIVATE = re.compile(r"(?P<before>\.|^ *(?:(?:static|async|get|set) )*)#(?P<name>\w+)", re.MULTILINE)
_FUNCTION = re.compile(
    r"^(?:(?:async )?function\*? ?(?P<name>\w+)|const (?P<arrow>\w+) = (?:async )?\([^)]*\) =>).*?(?=^[\w/$]|\Z)",
    re.MULTILINE | re.DOTALL,
)
_NESTED_TEMPLATE = re.compile(r"`[^`]*\$\{[^}`]*`")


def library(entry: str, read: Read) -> str:
    """The module at `entry` and all that it imports, as one module with the entry's exports. Raises LinkError."""
    exports: dict[str, dict[str, str]] = {}
    owners: dict[str, str] = {}
    texts = []
    for name, source in _in_order(entry, read, ()).items():
        text, exports[name] = _joined(name, source, exports)
        for own in declared_names(text):
            if owners.setdefault(own, name) != name:
                raise LinkError(f"{owners[own]} and {name} share a scope and both declare {own}")
        texts.append(text)
    listed = ", ".join(own if own == outside else f"{own} as {outside}" for outside, own in exports[entry].items())
    text = _without_unused("".join(texts), set(exports[entry].values()))
    return str(rjsmin.jsmin(_with_short_privates(text))) + f"\nexport{{{listed}}};\n"


def declared_names(source: str) -> list[str]:
    """The names that a module declares at top level."""
    found = (match["name"] for match in _DECLARED.finditer(source))
    return [own for name in found for _, own in (pairs(name) if name.startswith("{") else [(name, name)])]


def _in_order(name: str, read: Read, way: tuple[str, ...]) -> dict[str, str]:
    """The sources of the module and of all that it imports, each after its imports."""
    if name in way:
        raise LinkError(f"modules import in a circle: {' → '.join((*way, name))}")
    source = read_module(name, read)
    found: dict[str, str] = {}
    for path in sorted(imports_of(name, source)[0]):
        found |= {each: there for each, there in _in_order(path, read, (*way, name)).items() if each not in found}
    return {**found, name: source}


def _joined(name: str, source: str, exports: dict[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
    """A module's text for the common scope, and the names there of its exports. An import is left out, or becomes a
    constant if it gives the value another name."""
    if nested := _NESTED_TEMPLATE.search(source):
        raise LinkError(f"{name}: cannot make a template in a template smaller: {nested[0]!r}")
    text, own = exported(source)
    if "default" in own:
        own["default"] = f"$default{len(exports)}"
        text = text.replace("const $default = ", f"const {own['default']} = ", 1)

    def named(match: re.Match[str]) -> str:
        path = resolved(name, match["path"])
        taken = imported(match["clause"] or "")
        if missing := [there for there, _ in taken if there not in exports[path]]:
            raise LinkError(f"{name}: {path} does not export {', '.join(missing)}")
        names = {here: exports[path][there] for there, here in taken}
        own.update({outside: names[local] for outside, local in own.items() if local in names})
        return "".join(
            f"const {here} = {there};"
            for here, there in names.items()
            if here != there and not here.startswith(PASSED_ON)
        )

    return checked(name, IMPORT.sub(named, text)), own


def _without_unused(text: str, wanted: set[str]) -> str:
    """The text without functions that are named nowhere else in it, not even in a comment, and are not `wanted`."""

    def kept(match: re.Match[str]) -> str:
        name = match["name"] or match["arrow"]
        # An odd number of backticks: the match ends inside a template, before the function's end.
        is_used = name in wanted or len(re.findall(rf"\b{name}\b", text)) > 1 or match[0].count("`") % 2
        return match[0] if is_used else ""

    return _FUNCTION.sub(kept, text)


def _with_short_privates(text: str) -> str:
    """The text with the names of private fields and methods as short as may be, the most frequent shortest."""
    used = Counter(match["name"] for match in _PRIVATE.finditer(text) if match["before"] == ".")
    short = dict(zip((name for name, _ in used.most_common()), _short_names(), strict=False))
    return _PRIVATE.sub(lambda match: f"{match['before']}#{short.get(match['name'], match['name'])}", text)


def _short_names() -> Iterator[str]:
    return ("".join(letters) for length in count(1) for letters in product(ascii_lowercase, repeat=length))

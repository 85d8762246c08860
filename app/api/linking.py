"""Joins a page's ES modules in one, without a build tool, so that the page loads one file.

Every module becomes a function that returns its exports and runs once, when it is first used; `import` becomes a call.
Modules that import each other in a circle are refused; only the entry may have `await` at top level.
"""

import re
from functools import lru_cache

from app.api.module_syntax import (
    IMPORT,
    LAZY_IMPORT,
    LinkError,
    Read,
    checked,
    exported,
    imported,
    imports_of,
    read_module,
    resolved,
    stripped,
)

_PRELUDE = """\
const $loaded = {};
const $use = (name) => ($loaded[name] ??= $modules[name]());
const $later = async (name) => $use(name);
const $modules = {
"""


def link(entry: str, read: Read) -> str:
    """The module at `entry` and all that it imports, now or later, as one module. Raises LinkError."""
    modules: dict[str, str] = {}
    source = read_module(entry, read)
    _collect(entry, source, read, modules, (entry,))
    functions = "".join(f"{_quoted(name)}() {{\n{body}}},\n" for name, body in modules.items())
    prelude = f"{_PRELUDE}{functions}}};\n" if functions else ""
    # In a block, which keeps its names apart, and in which, unlike in a function, it may await.
    return f"{prelude}{{\n{checked(entry, stripped(_uses(entry, source)))}}}\n"


def _collect(name: str, source: str, read: Read, bodies: dict[str, str], way: tuple[str, ...]) -> None:
    now, later = imports_of(name, source)
    for path in sorted(now | later):
        if path in way and path in now:
            raise LinkError(f"modules import in a circle: {' → '.join((*way, path))}")
        if path in bodies or path in way:
            continue
        source_there = read_module(path, read)
        # Before its own imports, so that a circle through `import()` ends. The order does not matter: each runs on use.
        bodies[path] = _body(path, source_there)
        _collect(path, source_there, read, bodies, (*way, path) if path in now else (path,))


# Several pages share modules: saves 17 % of the CPU that makes all pages ready (`bench --without modules`).
@lru_cache(maxsize=512)
def _body(name: str, source: str) -> str:
    """A module as the body of a function that returns its exports."""
    text, exports = exported(source)
    returned = (outside if outside == local else f"{outside}: {local}" for outside, local in exports.items())
    return f"{checked(name, stripped(_uses(name, text)))}return {{ {', '.join(returned)} }};\n"


def _uses(name: str, source: str) -> str:
    """The source with its imports as calls."""

    def used(match: re.Match[str]) -> str:
        clause, call = match["clause"], f"$use({_quoted(resolved(name, match['path']))})"
        if clause is None:
            return f"{call};"
        if clause.startswith("* as "):
            return f"const {clause.removeprefix('* as ')} = {call};"
        taken = (outside if outside == local else f"{outside}: {local}" for outside, local in imported(clause))
        return f"const {{ {', '.join(taken)} }} = {call};"

    text = IMPORT.sub(used, source)
    return LAZY_IMPORT.sub(lambda match: f"$later({_quoted(resolved(name, match['path']))})", text)


def _quoted(name: str) -> str:
    return f'"{name}"'

"""The module syntax that static/ is written in, and what a linker needs to know of a module.

Statements begin a line, paths are relative and in double quotes; no exported `let`. A linker refuses any other import
or export.
"""

import posixpath
import re
from collections.abc import Callable
from functools import lru_cache

Read = Callable[[str], str | None]
"""Gives a module's source by its path below static/, or None."""

PASSED_ON = "$from_"
"""The prefix of the names under which a module imports the values that it only passes on."""

IMPORT = re.compile(r'^import (?:(?P<clause>[^;"]*?) from )?"(?P<path>\.\.?/[^"]+)";$', re.MULTILINE)
LAZY_IMPORT = re.compile(r'\bimport\("(?P<path>\.\.?/[^"]+)"\)')
_EXPORT_FROM = re.compile(r'^export \{(?P<names>[^}]*)\} from (?P<path>"\.\.?/[^"]+");$', re.MULTILINE)
_EXPORT_LIST = re.compile(r"^export \{(?P<names>[^}]*)\};$", re.MULTILINE)
_EXPORT_DECLARED = re.compile(
    r"^export (?P<kind>(?:async )?function\*? ?|class |const )(?P<name>[\w$]+|\{[^}]*\})", re.MULTILINE
)
_EXPORT_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
_LEFT_OVER = re.compile(r"^(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)


class LinkError(ValueError):
    """A module is missing, imports in a circle, or is written in a way that the linker does not read."""


def read_module(name: str, read: Read) -> str:
    """The source of a module. Raises LinkError if there is none."""
    source = read(name)
    if source is None:
        raise LinkError(f"there is no module {name}")
    return source


# Several pages share modules: saves 7 % of the CPU that makes all pages ready (`bench --without imports`).
@lru_cache(maxsize=512)
def imports_of(name: str, source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The paths that a module imports at once, and those that it imports later, by `import()`."""

    def found(pattern: re.Pattern[str]) -> frozenset[str]:
        return frozenset(resolved(name, match["path"]) for match in pattern.finditer(source))

    return found(IMPORT) | frozenset(resolved(name, match["path"][1:-1]) for match in _EXPORT_FROM.finditer(source)), (
        found(LAZY_IMPORT)
    )


def exported(source: str) -> tuple[str, dict[str, str]]:
    """The source without `export`, and the local name of each of its exports. The default export is `$default`; a value
    of another module that it only passes on becomes an import, named with PASSED_ON."""
    exports: dict[str, str] = {}

    def declared(match: re.Match[str]) -> str:
        names = match["name"]
        for _, local in pairs(names) if names.startswith("{") else [(names, names)]:
            exports[local] = local
        return f"{match['kind']}{names}"

    def listed(match: re.Match[str]) -> str:
        exports.update({outside: local for local, outside in pairs(match["names"], word=" as ")})
        return ""

    def passed_on(match: re.Match[str]) -> str:
        passed = pairs(match["names"], word=" as ")
        exports.update({outside: f"{PASSED_ON}{outside}" for _, outside in passed})
        taken = ", ".join(f"{local} as {PASSED_ON}{outside}" for local, outside in passed)
        return f"import {{ {taken} }} from {match['path']};"

    def default(match: re.Match[str]) -> str:
        exports["default"] = "$default"
        return "const $default = "

    text = _EXPORT_FROM.sub(passed_on, source)
    text = _EXPORT_LIST.sub(listed, text)
    text = _EXPORT_DECLARED.sub(declared, text)
    return _EXPORT_DEFAULT.sub(default, text), exports


def imported(clause: str) -> list[tuple[str, str]]:
    """The clause of an import as pairs: the name in the other module, the name here. Does not read `* as name`."""
    default, _, names = clause.partition("{")
    own = default.strip(" ,")
    return [("default", own)] * bool(own) + pairs(names, word=" as ")


def checked(name: str, text: str) -> str:
    """The text. Raises LinkError if it still has an import or an export, which no pattern has matched."""
    if left := _LEFT_OVER.search(text):
        raise LinkError(f"{name}: cannot read {left[0]!r}")
    return text


def stripped(source: str) -> str:
    """JavaScript without indentation, empty lines and the comments that have lines of their own; template literals
    stay as they are."""
    lines, in_comment, in_template = [], False, False
    for line in source.splitlines():
        text = line.strip()
        if in_template:
            lines.append(line)
        elif in_comment or text.startswith("/*"):
            in_comment = "*/" not in text
            continue
        elif not text or text.startswith("//"):
            continue
        else:
            lines.append(text)
        in_template ^= len(re.findall(r"(?<!\\)`", line)) % 2 == 1
    return "\n".join(lines) + "\n"


def pairs(listed: str, word: str = ": ") -> list[tuple[str, str]]:
    """`a, b as c` or `{ a, b: c }` as pairs: the name before the word and the name after it."""
    found = []
    for part in listed.strip("{} \n,").split(","):
        first, _, second = part.strip().partition(word)
        if first:
            found.append((first.strip(), (second or first).strip()))
    return found


def resolved(name: str, path: str) -> str:
    """A path that the module `name` imports, below static/."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))

"""Several ES modules as one: what a page or a host site loads in one request, assembled without a build tool.

Every module becomes a function that returns its exports and runs once, when it is first used; `import` becomes a call.
The linker reads the subset of module syntax that static/ is written in: statements that begin a line, relative paths in
double quotes, no exported `let`, no circles, `await` at top level only in the entry. It refuses whatever else it meets.
"""

import posixpath
import re
from collections.abc import Callable
from functools import lru_cache

_IMPORT = re.compile(r'^import (?:(?P<clause>[^;"]*?) from )?"(?P<path>\.\.?/[^"]+)";$', re.MULTILINE)
_EXPORT_FROM = re.compile(r'^export \{(?P<names>[^}]*)\} from "(?P<path>\.\.?/[^"]+)";$', re.MULTILINE)
_EXPORT_LIST = re.compile(r"^export \{(?P<names>[^}]*)\};$", re.MULTILINE)
_EXPORT_DECLARED = re.compile(
    r"^export (?P<kind>(?:async )?function\*? ?|class |const )(?P<name>[\w$]+|\{[^}]*\})", re.MULTILINE
)
_EXPORT_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
_LAZY_IMPORT = re.compile(r'\bimport\("(?P<path>\.\.?/[^"]+)"\)')
_LEFT_OVER = re.compile(r"^(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)

_PRELUDE = """\
const $loaded = {};
const $use = (name) => ($loaded[name] ??= $modules[name]());
const $later = async (name) => $use(name);
const $modules = {
"""


class LinkError(ValueError):
    """A module is missing, imports in a circle, or is written in a way that the linker does not read."""


def link(entry: str, read: Callable[[str], str | None]) -> str:
    """The module at `entry` and all that it imports, now or later, as one module that exports what the entry exports.

    `read` gives a module's source by its path below static/, or None. Raises LinkError.
    """
    modules: dict[str, str] = {}
    source = _read(entry, read)
    _collect(entry, source, read, modules, (entry,))
    if re.search("^export ", source, re.MULTILINE):
        modules[entry] = _body(entry, source)
        names = _exports(modules[entry])
        own = f"const {{ {', '.join(names)} }} = {_use('', f'./{entry}')};\nexport {{ {', '.join(names)} }};\n"
    else:
        # In a block: its names are nobody else's, and it may await.
        own = f"{{\n{_checked(entry, stripped(_uses(entry, source)))}}}\n"
    functions = "".join(f"{_quoted(name)}() {{\n{body}}},\n" for name, body in modules.items())
    return (f"{_PRELUDE}{functions}}};\n" if functions else "") + own


@lru_cache(maxsize=512)
def imports_of(name: str, source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The paths that a module imports at once, and those it imports later."""

    def found(*patterns: re.Pattern[str]) -> frozenset[str]:
        return frozenset(_resolved(name, match["path"]) for pattern in patterns for match in pattern.finditer(source))

    return found(_IMPORT, _EXPORT_FROM), found(_LAZY_IMPORT)


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


def _collect(
    name: str, source: str, read: Callable[[str], str | None], bodies: dict[str, str], way: tuple[str, ...]
) -> None:
    now, later = imports_of(name, source)
    for path in sorted(now | later):
        if path in way and path in now:
            raise LinkError(f"modules import in a circle: {' → '.join((*way, path))}")
        if path in bodies or path in way:
            continue
        imported = _read(path, read)
        # Before its own imports, so that a circle through a later import ends; order does not matter, each runs on use.
        bodies[path] = _body(path, imported)
        _collect(path, imported, read, bodies, (*way, path) if path in now else (path,))


def _read(name: str, read: Callable[[str], str | None]) -> str:
    source = read(name)
    if source is None:
        raise LinkError(f"there is no module {name}")
    return source


@lru_cache(maxsize=512)
def _body(name: str, source: str) -> str:
    """A module as the body of a function that returns its exports."""
    exports: dict[str, str] = {}

    def declared(match: re.Match[str]) -> str:
        names = match["name"]
        for local in _names(names) if names.startswith("{") else [(names, names)]:
            exports[local[1]] = local[1]
        return f"{match['kind']}{names}"

    def listed(match: re.Match[str]) -> str:
        exports.update({outside: local for local, outside in _names(match["names"], word=" as ")})
        return ""

    def passed_on(match: re.Match[str]) -> str:
        pairs = _names(match["names"], word=" as ")
        exports.update({outside: f"$from_{outside}" for _, outside in pairs})
        taken = ", ".join(f"{local}: $from_{outside}" for local, outside in pairs)
        return f"const {{ {taken} }} = {_use(name, match['path'])};"

    def default(match: re.Match[str]) -> str:
        exports["default"] = "$default"
        return "const $default = "

    text = _EXPORT_FROM.sub(passed_on, source)
    text = _EXPORT_LIST.sub(listed, text)
    text = _EXPORT_DECLARED.sub(declared, text)
    text = _EXPORT_DEFAULT.sub(default, text)
    text = _checked(name, stripped(_uses(name, text)))
    pairs = (outside if outside == local else f"{outside}: {local}" for outside, local in exports.items())
    return f"{text}return {{ {', '.join(pairs)} }};\n"


def _checked(name: str, text: str) -> str:
    if left := _LEFT_OVER.search(text):
        raise LinkError(f"{name}: cannot read {left[0]!r}")
    return text


def _exports(body: str) -> list[str]:
    """The names that a module made into a function returns."""
    returned = body.rstrip().rpartition("\nreturn {")[2]
    return [outside for outside, _ in _names(returned.removesuffix(";"))]


def _uses(name: str, source: str) -> str:
    """The source with its imports as calls."""

    def used(match: re.Match[str]) -> str:
        clause, call = match["clause"], _use(name, match["path"])
        if clause is None:
            return f"{call};"
        if clause.startswith("* as "):
            return f"const {clause.removeprefix('* as ')} = {call};"
        default, _, names = clause.partition("{")
        taken = [f"{outside}: {local}" if outside != local else local for outside, local in _names(names, word=" as ")]
        if local := default.strip(" ,"):
            taken.insert(0, f"default: {local}")
        return f"const {{ {', '.join(taken)} }} = {call};"

    text = _IMPORT.sub(used, source)
    return _LAZY_IMPORT.sub(lambda match: f"$later({_quoted(_resolved(name, match['path']))})", text)


def _names(listed: str, word: str = ": ") -> list[tuple[str, str]]:
    """`a, b as c` or `{ a, b: c }` as pairs: the name before the word and the name after it."""
    pairs = []
    for part in listed.strip("{} \n,").split(","):
        first, _, second = part.strip().partition(word)
        if first:
            pairs.append((first.strip(), (second or first).strip()))
    return pairs


def _use(name: str, path: str) -> str:
    return f"$use({_quoted(_resolved(name, path))})"


def _resolved(name: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _quoted(name: str) -> str:
    return f'"{name}"'

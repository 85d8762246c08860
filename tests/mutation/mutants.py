"""The mutants of a Python module: its syntax tree with one small change each.

Changed are comparisons, arithmetic, `and`/`or`, conditions, numbers, words, booleans, returned values, and statements
are removed. Left alone are prose (a string with a space in it), logging, annotations, decorators and imports.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
REMOVED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of the tree."""

    function: str
    """The qualified name of the outermost function that it is in; "" where it takes effect at import."""
    scope: str
    """The qualified name of what it is in, for a reader."""
    lines: tuple[int, int]
    before: str
    after: str

    @property
    def key(self) -> str:
        return f"{self.scope}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class _Place:
    function: str
    scope: str
    lines: tuple[int, int] = (0, 0)


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Change `tree`, yield what was changed, change it back; and so on. The tree is a mutant's until the next one."""
    yield from _in_fields(tree, _Place("", "module"))


def _in_fields(node: ast.AST, place: _Place) -> Iterator[Mutant]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        if isinstance(node, ast.ClassDef) and name != "body":
            continue  # how a record is stored and compared
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from _of(node, name, index, child, _place_of(node, name, child, place))


def _place_of(parent: ast.AST, name: str, child: ast.AST, place: _Place) -> _Place:
    function, scope, lines = place.function, place.scope, place.lines
    if isinstance(parent, (*FUNCTIONS, ast.ClassDef)) and name == "body":
        scope = parent.name if scope == "module" else f"{scope}.{parent.name}"
        # Class bodies and default values take effect at import; so does a function within none.
        if isinstance(parent, FUNCTIONS):
            function = function or scope
    if isinstance(child, ast.stmt):
        first = child.test if isinstance(child, ast.If | ast.While) else child
        lines = (child.lineno, first.end_lineno or child.lineno)
    elif isinstance(child, ast.expr | ast.ExceptHandler) and isinstance(parent, ast.match_case | ast.excepthandler):
        lines = (child.lineno, child.end_lineno or child.lineno)
    return _Place(function, scope, lines)


def _of(parent: ast.AST, name: str, index: int | None, node: ast.AST, place: _Place) -> Iterator[Mutant]:
    if _is_left_alone(parent, node):
        return
    for changed in _changes(parent, name, node):
        # An operator alone would not show the place.
        is_operator = isinstance(node, ast.operator | ast.boolop | ast.cmpop)
        before = _text(parent if is_operator else node)
        _put(parent, name, index, changed)
        after = _text(parent if is_operator else changed)
        yield Mutant(place.function, place.scope, place.lines, before, after)
        _put(parent, name, index, node)
    yield from _in_fields(node, place)


def _changes(parent: ast.AST, name: str, node: ast.AST) -> Iterator[ast.AST]:
    if (swapped := SWAPPED.get(type(node))) is not None:
        yield swapped()
    if (
        name in ("test", "guard", "ifs")
        and isinstance(node, ast.expr)
        and not isinstance(node, ast.Compare | ast.BoolOp)
    ):
        yield ast.copy_location(ast.UnaryOp(ast.Not(), node), node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub) and name != "test":
        yield node.operand
    if isinstance(node, ast.Constant) and (value := _other_value(node.value)) is not node.value:
        yield ast.copy_location(ast.Constant(value), node)
    if isinstance(node, ast.Return) and not (node.value is None or _is_none(node.value)):
        yield ast.copy_location(ast.Return(ast.copy_location(ast.Constant(None), node)), node)
    # Without the assignment of a local name most functions fail outright, which proves nothing.
    stores = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name)
    if (stores or isinstance(node, REMOVED)) and not isinstance(parent, ast.Module | ast.ClassDef):
        yield ast.copy_location(ast.Pass(), node)


def _other_value(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str) and " " not in value:
        return f"{value}X"
    return value


def _is_left_alone(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _text(node.value.func).startswith("log."):
        return True
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _text(node.value.func) == "TypeVar"


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:120]

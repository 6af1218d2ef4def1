"""Makes mutants of a module's source: one small change each, of the kinds that people make by mistake. Pure."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

import msgspec

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_SILENT = ("logger.", "assert_never(")
"""Beginnings of statements that may vanish unseen: nothing promises them."""


class Mutant(msgspec.Struct, frozen=True):
    """One change: the line, what stands there, what stands there instead, and the whole changed module."""

    line: int
    before: str
    after: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"line {self.line}: {self.before}  ->  {self.after}"


def mutants(source: str) -> Iterator[Mutant]:
    """Yield each mutant of a module."""
    original = ast.parse(source)
    places = [node for node in _code(original) if any(True for _ in _changes(node))]
    for number, place in enumerate(places):
        for index in range(len(list(_changes(place)))):
            tree = copy.deepcopy(original)
            node = [node for node in _code(tree) if any(True for _ in _changes(node))][number]
            before = _shown(node)
            list(_changes(node))[index]()
            yield Mutant(getattr(node, "lineno", 0), before, _shown(node), ast.fix_missing_locations(tree))


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs: no annotations, no docstrings, no decorators, nothing for type checkers alone, no assertions."""
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns", "decorator_list", "type_params", "keywords"} and not isinstance(
            tree, ast.Call
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_idle(child):
                continue
            yield child
            yield from _code(child)


def _is_idle(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
        case ast.FunctionDef(name="__repr__" | "__str__"):
            return True
        case ast.Expr():
            return ast.unparse(node).startswith(_SILENT)
    return False


def _changes(node: ast.AST) -> Iterator[Callable[[], object]]:
    """Yield what changes a node in place, one mutant each."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            yield lambda: setattr(node, "ops", [_COMPARISONS[type(operator)]()])
        case ast.BoolOp():
            yield lambda: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.BinOp(op=ast.Add() | ast.Sub()) | ast.AugAssign(op=ast.Add() | ast.Sub()):
            yield lambda: setattr(node, "op", ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
        case ast.Constant(value=bool()):
            yield lambda: setattr(node, "value", not node.value)
        case ast.Constant(value=int() | float() as value):
            yield lambda: setattr(node, "value", value + 1)
            yield lambda: setattr(node, "value", value - 1)
        case ast.UnaryOp(op=ast.Not()):
            yield lambda: _replace(node, ast.Call(ast.Name("bool", ast.Load()), [node.operand], []))
    yield from _dropped(node)


def _dropped(node: ast.AST) -> Iterator[Callable[[], object]]:
    """Yield what swaps branches, and what takes a statement away."""
    match node:
        case ast.If() | ast.IfExp() | ast.While():
            yield lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension(ifs=[condition]):
            yield lambda: setattr(node, "ifs", [ast.UnaryOp(ast.Not(), condition)])
        case ast.Expr() | ast.Break() | ast.Continue() | ast.Delete():
            yield lambda: _replace(node, ast.Pass())
        case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield lambda: _replace(node, ast.Pass())


def _replace(node: ast.AST, other: ast.AST) -> None:
    """Turn a node into another, wherever it hangs."""
    place = {name: getattr(node, name) for name in ("lineno", "col_offset")}
    kept = vars(other) | place
    vars(node).clear()
    node.__class__ = other.__class__
    vars(node).update(kept)


def _shown(node: ast.AST) -> str:
    shown: ast.AST = node
    if isinstance(node, ast.If | ast.While):
        shown = node.test
    return ast.unparse(ast.fix_missing_locations(shown)).splitlines()[0][:120]

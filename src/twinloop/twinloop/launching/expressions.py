# SPDX-License-Identifier: Apache-2.0
"""Evaluates the Python expressions of `$(eval ...)` without `eval`.

ROS 2's launch hands them to Python with the names of the module math in scope. Here the same
expressions are walked as a syntax tree that may hold literals, arithmetic, comparisons, boolean
logic, the functions and constants of math and a few harmless built-ins, and nothing else.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from twinloop.launching.errors import SubstitutionError

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_MATH = {name: value for name, value in vars(math).items() if not name.startswith("_")}
_BUILTINS: dict[str, Any] = {
    function.__name__: function
    for function in (abs, bool, float, int, len, max, min, round, str, sum)
}
_LARGEST_EXPONENT = 1000
_LONGEST_TEXT = 10_000


def evaluate(expression: str) -> Any:
    """Return the value of a Python expression.

    Raises:
        SubstitutionError: not an expression, something that is not allowed in one, or a failure
            while it was computed.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        raise SubstitutionError(f"'{expression}' is not a Python expression: {error.msg}") from None
    try:
        return _value(tree.body)
    except SubstitutionError as error:
        raise SubstitutionError(f"cannot evaluate '{expression}': {error}") from None
    except (ArithmeticError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise SubstitutionError(f"cannot evaluate '{expression}': {error}") from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as constant):
            return constant
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(type(op), _value(left), _value(right))
        case ast.BoolOp(op=op, values=values):
            return _boolean(op, values)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compare(left, ops, comparators)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body) if _value(test) else _value(orelse)
        case ast.Name() | ast.Attribute():
            value = _named(node)
            if callable(value):
                raise SubstitutionError(f"'{ast.unparse(node)}' is a function; call it")
            return value
        case ast.Call(func=ast.Name() | ast.Attribute() as name, args=args, keywords=[]):
            function = _named(name)
            if not callable(function):
                raise SubstitutionError(f"'{ast.unparse(name)}' is not a function")
            return _bounded(function(*(_value(arg) for arg in args)))
    raise SubstitutionError(f"'{ast.unparse(node)}' is not allowed in an expression")


def _named(node: ast.Name | ast.Attribute) -> Any:
    match node:
        case ast.Name(id=name) if name in _BUILTINS:
            return _BUILTINS[name]
        case ast.Name(id=name) if name in _MATH:
            return _MATH[name]
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in _MATH:
            return _MATH[name]
    raise SubstitutionError(f"the name '{ast.unparse(node)}' is not known")


def _binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    # Powers, repetitions and formatting are how a short expression could take for ever.
    if op is ast.Pow and isinstance(right, int | float) and abs(right) > _LARGEST_EXPONENT:
        raise SubstitutionError(f"the exponent {right} exceeds {_LARGEST_EXPONENT}")
    if op is ast.Mod and isinstance(left, str):
        raise SubstitutionError("text formatting with % is not allowed")
    if op is ast.Mult:
        for sequence, count in ((left, right), (right, left)):
            repeats = isinstance(sequence, str | list | tuple) and isinstance(count, int)
            if repeats and len(sequence) * count > _LONGEST_TEXT:
                raise SubstitutionError(f"the result is longer than {_LONGEST_TEXT}")
    return _bounded(_BINARY[op](left, right))


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 64 * _LARGEST_EXPONENT:
        raise SubstitutionError("the result has too many digits")
    return value


def _boolean(op: ast.boolop, values: list[ast.expr]) -> Any:
    result: Any = None
    for node in values:
        result = _value(node)
        if bool(result) == isinstance(op, ast.Or):
            break
    return result


def _compare(left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> bool:
    first = _value(left)
    for op, node in zip(ops, comparators, strict=True):
        second = _value(node)
        if not _COMPARE[type(op)](first, second):
            return False
        first = second
    return True

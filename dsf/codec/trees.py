"""Symbolic expressions as allow-listed trees; only this module of the codec imports sympy.

    node := integer | {"$int": …} | {"$rational": […]} | ["Symbol", name, {assumption: bool}]
          | ["pi"] | ["E"] | ["I"] | [head, node, …] | ["Matrix", rows, columns, node, …]

Decoding calls constructors by name from the tables below, always with `evaluate=False`: no string
is parsed, and no number in a file makes sympy compute. `_Reader` also refuses powers which later
arithmetic would expand to integers beyond 2^20 bits.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from sympy.core.facts import InconsistentAssumptions
from sympy.matrices.matrixbase import MatrixBase

from .errors import CodecError, Path, shown
from .limits import MAX_BITS, MAX_DEPTH, MAX_TREE_NODES
from .numbers import decode_integer, decode_rational, encode_integer, encode_rational

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CONSTANTS = {"pi": sympy.pi, "E": sympy.E, "I": sympy.I}
_HEADS = {
    head.__name__: head
    for head in (
        *(sympy.Add, sympy.Mul, sympy.Pow, sympy.exp, sympy.log, sympy.Equality),
        *(sympy.tanh, sympy.sinh, sympy.cosh, sympy.sin, sympy.cos, sympy.Abs),
    )
}
_ARITY = {name: 2 if name in ("Pow", "Equality") else 1 for name in _HEADS}
_ASSUMPTIONS = frozenset(sympy.Symbol("x", positive=True, integer=True).assumptions0)


def is_symbolic(value: Any) -> bool:
    return isinstance(value, (sympy.Basic, MatrixBase))


def encode_tree(expression: Any, path: Path) -> Any:
    """The tree of an expression; raises `CodecError` for anything outside the list."""
    return _Writer().node(expression, path)


def decode_tree(tree: Any, path: Path) -> Any:
    """The expression of a tree, unevaluated; raises `CodecError`."""
    return _Reader().node(tree, path)[0]


class _Counter:
    """Counts the nodes of one tree, shared subtrees as often as they occur."""

    def __init__(self) -> None:
        self._nodes = 0

    def enter(self, path: Path) -> None:
        self._nodes += 1
        if self._nodes > MAX_TREE_NODES:
            raise CodecError(path, f"a symbolic tree of more than {MAX_TREE_NODES} nodes")
        if len(path) > MAX_DEPTH:
            raise CodecError(path, f"nested deeper than {MAX_DEPTH}")


class _Writer(_Counter):
    def node(self, value: Any, path: Path) -> Any:
        self.enter(path)
        if isinstance(value, MatrixBase):
            entries = [self.node(e, (*path, i + 3)) for i, e in enumerate(value.flat())]
            return ["Matrix", *value.shape, *entries]
        if isinstance(value, sympy.Integer):
            return encode_integer(int(value), path)
        if isinstance(value, sympy.Rational):
            return encode_rational(Fraction(int(value.p), int(value.q)), path)
        if type(value) is sympy.Symbol:
            return ["Symbol", _name(value.name, path), dict(_minimal(value))]
        for name, constant in _CONSTANTS.items():
            if value is constant:
                return [name]
        name = type(value).__name__
        if _HEADS.get(name) is not type(value):
            allowed = ", ".join([*_CONSTANTS, "Symbol", "Integer", "Rational", *_HEADS, "Matrix"])
            raise CodecError(path, f"a sympy {name} cannot be kept; use {allowed}")
        return [name, *(self.node(arg, (*path, i + 1)) for i, arg in enumerate(value.args))]


@lru_cache(maxsize=1024)
def _minimal(symbol: sympy.Symbol) -> tuple[tuple[str, bool], ...]:
    """Assumptions that imply all of the symbol's, left out one by one in alphabetical order."""
    full = symbol.assumptions0
    kept = dict(full)
    for name in sorted(full):
        fewer = {key: value for key, value in kept.items() if key != name}
        if sympy.Symbol(symbol.name, **fewer).assumptions0 == full:
            kept = fewer
    return tuple(sorted(kept.items()))


def _name(name: Any, path: Path) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "a letter, then letters, digits and underscores, 64 at most"
        raise CodecError(path, f"the symbol name {shown(name)} must be {rule}")
    return name


class _Reader(_Counter):
    """Rebuilds a tree; each node comes with the bits its integers could reach if evaluated."""

    def node(self, tree: Any, path: Path) -> tuple[Any, int]:
        self.enter(path)
        match tree:
            case bool():
                raise CodecError(path, f"{tree} is not a node of a symbolic tree")
            case int():
                return sympy.Integer(tree), tree.bit_length()
            case {"$int": body} if len(tree) == 1:
                value = decode_integer(body, (*path, "$int"))
                return sympy.Integer(value), value.bit_length()
            case {"$rational": body} if len(tree) == 1:
                return self._rational(body, (*path, "$rational"))
            case ["Symbol", name, dict() as assumptions]:
                return self._symbol(name, assumptions, path), 1
            case [str() as name] if name in _CONSTANTS:
                return _CONSTANTS[name], 1
            case ["Matrix", rows, columns, *entries]:
                return self._matrix(rows, columns, entries, path)
            case [str() as head, *args] if head in _HEADS:
                return self._apply(head, args, path)
            case [str() as head, *_]:
                raise CodecError(path, f"{shown(head)} is not an allowed head with its arguments")
        raise CodecError(path, f"{shown(tree)} is not a node of a symbolic tree")

    def _rational(self, body: Any, path: Path) -> tuple[Any, int]:
        value = decode_rational(body, path)
        if value.denominator == 1:
            raise CodecError(path, "an integer in a symbolic tree must be written as an integer")
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        return sympy.Rational(value.numerator, value.denominator), bits

    def _symbol(self, name: Any, assumptions: dict[str, Any], path: Path) -> sympy.Symbol:
        for key, value in assumptions.items():
            if key not in _ASSUMPTIONS or not isinstance(value, bool):
                raise CodecError(path, f"{shown(key)}: {shown(value)} is not an assumption")
        try:
            return sympy.Symbol(_name(name, path), **assumptions)
        except InconsistentAssumptions:
            raise CodecError(path, f"the assumptions of {name} contradict one another") from None

    def _matrix(self, rows: Any, columns: Any, entries: list[Any], path: Path) -> tuple[Any, int]:
        sizes = [n for n in (rows, columns) if isinstance(n, int) and not isinstance(n, bool)]
        if len(sizes) != 2 or min(sizes) < 0 or rows * columns != len(entries):
            raise CodecError(path, f"a matrix of {len(entries)} entries cannot have this shape")
        nodes = [self.node(entry, (*path, i + 3)) for i, entry in enumerate(entries)]
        if not all(_is_scalar(entry) for entry, _ in nodes):
            raise CodecError(path, "the entries of a matrix must be scalar expressions")
        bits = max((bits for _, bits in nodes), default=1)
        return sympy.ImmutableDenseMatrix(rows, columns, [entry for entry, _ in nodes]), bits

    def _apply(self, head: str, args: list[Any], path: Path) -> tuple[Any, int]:
        exact = head not in ("Add", "Mul")
        if len(args) < _ARITY[head] or (exact and len(args) > _ARITY[head]):
            raise CodecError(path, f"{head} takes {_ARITY[head]} arguments, not {len(args)}")
        nodes = [self.node(arg, (*path, i + 1)) for i, arg in enumerate(args)]
        values = [value for value, _ in nodes]
        if head != "Equality" and not all(map(_is_scalar, values)):
            raise CodecError(path, f"the arguments of {head} must be scalar expressions")
        bits = _bits(head, nodes)
        if bits > MAX_BITS:
            raise CodecError(path, f"evaluating this {head} could take more than {MAX_BITS} bits")
        return _HEADS[head](*values, evaluate=False), bits


def _is_scalar(value: Any) -> bool:
    return isinstance(value, sympy.Expr) and not isinstance(value, MatrixBase)


def _bits(head: str, nodes: list[tuple[Any, int]]) -> int:
    """A bound on the integers that an evaluation of the node could write out.

    A power multiplies the bits of its base by the exponent; `exp(c*log(b))` is such a power.
    """
    if head == "Pow":
        (_, base), (exponent, size) = nodes
        return max(base, 1) * _magnitude(exponent, size) if exponent.is_number else base + size
    if head == "exp" and nodes[0][0].has(sympy.log):
        ((argument, size),) = nodes
        coefficients = argument.atoms(sympy.Rational)
        return size * math.prod(_magnitude(c, size) for c in coefficients)
    return sum(bits for _, bits in nodes)


def _magnitude(exponent: Any, size: int) -> int:
    """An integer, at least 1, that |exponent| does not exceed."""
    if isinstance(exponent, sympy.Rational):
        return max(1, -(-abs(int(exponent.p)) // int(exponent.q)))
    return 2 ** min(size, MAX_BITS.bit_length())

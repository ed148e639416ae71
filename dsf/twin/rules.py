"""The exact rule of every torch function that computes; branches are those of the sample point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy
import torch

from .tensors import Exact, Untraceable, expressions


def _softplus(x: Any) -> Any:
    return sympy.log(1 + sympy.exp(x))


def conjugated(x: Any) -> Any:
    """The conjugate: all symbols are real, and all rules are real functions or have no cut at i."""
    return x.xreplace({sympy.I: -sympy.I})


def real_part(x: Any) -> Any:
    """(x + x̄)/2."""
    return (x + conjugated(x)) / 2 if x.has(sympy.I) else x


ENTRYWISE: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "radd": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: y - x,
    "mul": lambda x, y: x * y,
    "rmul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "truediv": lambda x, y: x / y,
    "rdiv": lambda x, y: y / x,
    "rtruediv": lambda x, y: y / x,
    "pow": lambda x, y: x**y,
    "rpow": lambda x, y: y**x,
    "complex": lambda x, y: x + sympy.I * y,
    "addcmul": lambda x, y, z: x + y * z,
    "neg": lambda x: -x,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x**2,
    "sqrt": sympy.sqrt,
    "exp": sympy.exp,
    "expm1": lambda x: sympy.exp(x) - 1,
    "log": sympy.log,
    "log1p": lambda x: sympy.log(1 + x),
    "tanh": sympy.tanh,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "sigmoid": lambda x: 1 / (1 + sympy.exp(-x)),
    "softplus": _softplus,
    "logsigmoid": lambda x: -_softplus(-x),
    "log_sigmoid": lambda x: -_softplus(-x),
    "conj": lambda x: conjugated(x),
    "real": lambda x: real_part(x),
    "imag": lambda x: (x - conjugated(x)) / (2 * sympy.I),
}

# Functions with branches: the value at the sample point decides.
BRANCHED: dict[str, Callable[[Any, float], Any]] = {
    "elu": lambda x, at: x if at > 0 else sympy.exp(x) - 1,
    "relu": lambda x, at: x if at > 0 else sympy.Integer(0),
    "abs": lambda x, at: x if at > 0 else -x,
}


def apply(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], shape: torch.Size
) -> np.ndarray:
    """The expressions of a result of the given shape."""
    if name in ENTRYWISE and not kwargs:
        entries = [expressions(x) for x in args]
        found = np.frompyfunc(ENTRYWISE[name], len(entries), 1)(*entries)
        return np.asarray(found, dtype=object).reshape(tuple(shape))
    if name in BRANCHED and isinstance(args[0], Exact) and args[0].is_complex():
        found = np.frompyfunc(sympy.Abs, 1, 1)(expressions(args[0]))
        return np.asarray(found, dtype=object).reshape(tuple(shape))
    if name in BRANCHED and isinstance(args[0], Exact):
        at = args[0].detach().as_subclass(torch.Tensor).numpy()
        found = np.frompyfunc(BRANCHED[name], 2, 1)(expressions(args[0]), at)
        return np.asarray(found, dtype=object).reshape(tuple(shape))
    if name in GATHERING:
        return np.asarray(GATHERING[name](*args, **kwargs), dtype=object).reshape(tuple(shape))
    raise Untraceable(f"`{name}` has no exact rule")


def _sum(x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    entries = expressions(x)
    return entries.sum(axis=None if dim is None else _axes(dim), keepdims=keepdim)


def _axes(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, (list, tuple)) else dim


def _cumsum(x: Any, dim: int) -> Any:
    return np.cumsum(expressions(x), axis=dim)


def _matmul(x: Any, y: Any) -> Any:
    return np.matmul(expressions(x), expressions(y))


def _einsum(equation: str, *operands: Any) -> Any:
    given = operands[0] if isinstance(operands[0], (list, tuple)) else operands
    return np.einsum(equation, *map(expressions, given))


def _where(condition: Any, x: Any, y: Any) -> Any:
    mask = condition.numpy()
    shape = np.broadcast_shapes(mask.shape, np.shape(x), np.shape(y))
    chosen = [np.broadcast_to(a, shape) for a in (mask, expressions(x), expressions(y))]
    return np.where(*chosen)


def _maximum(x: Any, y: Any) -> Any:
    """The larger at the sample point, entry by entry."""
    first, second = (torch.as_tensor(z).detach().as_subclass(torch.Tensor) for z in (x, y))
    mask = (first >= second).numpy()
    chosen = [np.broadcast_to(a, mask.shape) for a in (expressions(x), expressions(y))]
    return np.where(mask, *chosen)


def _normalize(x: Any, p: float = 2.0, dim: int = 1, **_: Any) -> Any:
    if p != 2:
        raise Untraceable(f"`normalize` has an exact rule for p = 2; got {p}")
    entries = expressions(x)
    length = (entries**2).sum(axis=dim, keepdims=True)
    return entries / np.frompyfunc(sympy.sqrt, 1, 1)(length)


def _solve(matrix: Any, right: Any) -> Any:
    """By Cramer's rule: no pivot has to be known to differ from 0."""
    a, b = expressions(matrix), expressions(right)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, (*lead, *a.shape[-2:]))
    b = np.broadcast_to(b, (*lead, *b.shape[-2:]))
    solved = np.empty(b.shape, dtype=object)
    for place in np.ndindex(lead):
        one = sympy.Matrix(a[place])
        adjugate, determinant = one.adjugate(method="berkowitz"), one.det(method="berkowitz")
        solved[place] = np.array((adjugate * sympy.Matrix(b[place])) / determinant)
    return solved


GATHERING: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "cumsum": _cumsum,
    "matmul": _matmul,
    "rmatmul": lambda x, y: _matmul(y, x),
    "einsum": _einsum,
    "where": _where,
    "maximum": _maximum,
    "normalize": _normalize,
    "linalg_solve": _solve,
    "solve": _solve,
}

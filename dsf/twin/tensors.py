"""Tensors of exact expressions: torch code runs on them, and what it computes is written down in sympy.

An `Exact` is a float64 or complex128 tensor at a sample point that carries one sympy expression per
entry. Every torch function is applied to the numbers, which gives shapes, types and the branch taken
where a function has branches, and to the expressions:

- functions that only move entries (indexing, cat, expand, diag_embed …) are run on a tensor of places;
- entrywise functions, sums, products and solutions of linear systems have an exact rule in `rules`;
- any other raises `Untraceable`. Nothing is rounded: a float constant is the root of a small rational
  that it is the nearest float of, or else the dyadic number that it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

MOVES = frozenset(
    """getitem view reshape expand expand_as unsqueeze squeeze transpose movedim permute flatten unflatten
    T mT cat concat stack pad flip diag_embed diagonal repeat repeat_interleave contiguous clone detach
    narrow broadcast_tensors unbind split chunk roll tril triu swapaxes moveaxis select view_as""".split()
)
KEPT = frozenset(
    "to type double float type_as resolve_conj".split()
)  # the same entries, another type
NUMERIC = frozenset(
    """shape ndim dtype device layout requires_grad is_leaf dim size numel is_complex is_floating_point
    zeros_like ones_like full_like new_zeros new_ones new_full lt le gt ge eq ne element_size len
    is_cuda names itemsize""".split()
)


class Untraceable(TypeError):
    """A torch function without an exact rule was called on exact tensors."""


def exactly(number: complex | float | int) -> Any:
    """The exact number that a constant stands for.

    >>> exactly(0.5), exactly(3**-0.5), exactly(torch.pi), exactly(2)
    (1/2, sqrt(3)/3, pi, 2)
    """
    if isinstance(number, complex):
        return exactly(number.real) + sympy.I * exactly(number.imag)
    if math.isinf(number):  # a gate that is shut or open
        return sympy.oo if number > 0 else -sympy.oo
    if math.isnan(number):
        raise Untraceable("nan is no exact number")
    if isinstance(number, int) or number.is_integer():
        return sympy.Integer(int(number))
    if number == math.pi:
        return sympy.pi
    for power in (1, 2, 4):
        near = Fraction(abs(number) ** power).limit_denominator(720)
        if near and near.numerator <= 720 and float(near) ** (1 / power) == abs(number):
            root = sympy.Rational(near.numerator, near.denominator) ** sympy.Rational(1, power)
            return sympy.sign(number) * root
    return sympy.Rational(Fraction(number))


class Exact(Tensor):
    """A tensor at a sample point with one exact expression per entry, `expressions`."""

    expressions: np.ndarray

    @staticmethod
    def of(numbers: Tensor, expressions: np.ndarray) -> Exact:
        """`numbers` (float64 or complex128) with the expressions that they are values of."""
        if tuple(numbers.shape) != expressions.shape:
            raise ValueError(f"shapes {tuple(numbers.shape)} and {expressions.shape} differ")
        made = torch.Tensor._make_subclass(Exact, numbers.detach())
        made.expressions = expressions
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = _name(func)
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*_plain(args), **_plain(kwargs))
        if name in NUMERIC or not _is_number(found):
            return found
        if name in KEPT:
            return cls.of(found, args[0].expressions) if isinstance(args[0], Exact) else found
        if name in MOVES:
            return _moved(func, args, kwargs, found)
        from .rules import apply  # rules speak about Exact

        return cls.of(found, apply(name, args, kwargs, found.shape))


def mapped(function: Callable[[Any], Any], array: Any) -> np.ndarray:
    """An object array with `function` applied to every entry."""
    given = np.asarray(array)
    made = np.empty(given.shape, dtype=object)
    for place in np.ndindex(given.shape):
        made[place] = function(given[place])
    return made


def expressions(x: Any) -> np.ndarray:
    """The entries of a tensor or number as exact expressions."""
    if isinstance(x, Exact):
        return x.expressions
    array = x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)
    return mapped(lambda entry: exactly(entry.item()), array)


def _name(func: Any) -> str:
    name = func.__name__
    if name == "__get__":
        return func.__self__.__name__
    return name.strip("_")


def _plain(tree: Any) -> Any:
    """The same arguments with ordinary tensors."""
    if isinstance(tree, Exact):
        with torch._C.DisableTorchFunctionSubclass():
            return tree.as_subclass(Tensor)
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_plain, tree))
    return tree


def _is_number(found: Any) -> bool:
    if isinstance(found, (list, tuple)):
        return bool(found) and all(map(_is_number, found))
    return isinstance(found, Tensor) and (found.is_floating_point() or found.is_complex())


def _moved(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> Any:
    """A function that moves entries, run on their places in a pool; place 0 is the number 0."""
    pool: list[np.ndarray] = [np.array([sympy.Integer(0)], dtype=object)]
    used = 1

    def place(tree: Any) -> Any:
        nonlocal used
        if isinstance(tree, Tensor) and (tree.is_floating_point() or tree.is_complex()):
            entries = expressions(tree)
            pool.append(entries.ravel())
            places = torch.arange(used, used + entries.size).reshape(entries.shape)
            used += entries.size
            return places
        if isinstance(tree, (list, tuple)):
            return type(tree)(map(place, tree))
        return tree

    with torch._C.DisableTorchFunctionSubclass():
        places = func(*place(tuple(args)), **{key: place(x) for key, x in kwargs.items()})
    entries = np.concatenate(pool)

    def gather(where: Any, numbers: Any) -> Any:
        if isinstance(where, Tensor):
            chosen = entries[where.numpy().ravel()]
            return Exact.of(numbers, chosen.reshape(tuple(where.shape)))
        return type(where)(gather(w, n) for w, n in zip(where, numbers, strict=True))

    return gather(places, found)

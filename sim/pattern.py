"""A Generalized Neighborhood Attention pattern over a token layout of one or more axes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, SupportsIndex

from dsf.errors import InvalidInput

from .axis import Axis

Shape = tuple[int, ...]
PerAxis = SupportsIndex | Sequence[SupportsIndex]
"""One integer for all axes, or one per axis."""


@dataclass(frozen=True, init=False)
class Pattern:
    """Which keys every query sees: a box around it, the product of one interval per axis.

    `layout` is the number of tokens per axis; `window`, `stride`, `dilation` and `causal` have one
    entry per axis, or one value for all; `None` means 1, 1 and False. `extra_keys` tokens (text)
    stand behind the layout and are visible to every query. `heads` query heads share `kv_heads`
    key and value heads (all their own by default). Raises `InvalidInput` for what NATTEN refuses;
    each message names the axis, the value, the rule and the nearest valid value. More than three
    axes, which NATTEN has no kernel for, are allowed.

    >>> pattern = Pattern((30, 48, 80), window=(18, 24, 24), stride=(16, 8, 8))
    >>> pattern.tokens, pattern.visible_pairs, round(pattern.sparsity, 3)
    (115200, 1194393600, 0.91)
    """

    layout: Shape
    window: Shape
    stride: Shape
    dilation: Shape
    causal: tuple[bool, ...]
    heads: int
    kv_heads: int
    extra_keys: int

    def __init__(
        self,
        layout: PerAxis,
        window: PerAxis,
        stride: PerAxis | None = None,
        dilation: PerAxis | None = None,
        causal: bool | Sequence[bool] | None = None,
        heads: int = 1,
        kv_heads: int | None = None,
        extra_keys: int = 0,
    ) -> None:
        shape = as_shape("layout", layout)
        rank, put = len(shape), object.__setattr__
        put(self, "layout", shape)
        put(self, "window", as_shape("window", window, rank))
        put(self, "stride", as_shape("stride", 1 if stride is None else stride, rank))
        put(self, "dilation", as_shape("dilation", 1 if dilation is None else dilation, rank))
        put(self, "causal", _flags(causal, rank))
        put(self, "heads", _integer("heads", heads, 1))
        put(self, "kv_heads", _integer("kv_heads", heads if kv_heads is None else kv_heads, 1))
        put(self, "extra_keys", _integer("extra_keys", extra_keys, 0))
        if self.heads % self.kv_heads:
            allowed = [n for n in range(1, self.heads + 1) if self.heads % n == 0]
            raise InvalidInput(
                f"kv_heads {self.kv_heads} was given, but it must divide the {self.heads} heads; "
                f"it can be one of {allowed}"
            )
        _ = self.axes  # validates

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        shown = show(self.layout)
        rows = zip(self.layout, self.window, self.stride, self.dilation, self.causal, strict=True)
        return tuple(Axis(*row, f"axis {i} of layout {shown}") for i, row in enumerate(rows))

    @property
    def rank(self) -> int:
        return len(self.layout)

    @property
    def tokens(self) -> int:
        """How many queries there are; keys are these and the extra ones."""
        return prod(self.layout)

    @property
    def dense_pairs(self) -> int:
        """(query, key) pairs of dense attention over the same tokens."""
        return self.tokens * (self.tokens + self.extra_keys)

    @property
    def visible_pairs(self) -> int:
        """(query, key) pairs that the pattern lets through, exactly."""
        return prod(axis.pairs for axis in self.axes) + self.tokens * self.extra_keys

    @property
    def sparsity(self) -> float:
        """The share of dense attention's pairs that is left out."""
        return 1 - self.visible_pairs / self.dense_pairs

    @property
    def runs_dense(self) -> bool:
        """Whether NATTEN hands the pattern to dense (or plain causal) attention instead."""
        if self.rank == 1 and not self.extra_keys:
            return self.window == self.layout
        full = self.window == self.layout
        return full and not any(self.causal)


def as_shape(key: str, given: Any, rank: int | None = None) -> Shape:
    """A tuple of integers; one integer repeats on all axes."""
    if (
        type(given) is tuple
        and len(given) == (rank or len(given))
        and set(map(type, given)) == {int}
    ):
        return given
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        given = (given,) * (rank or 1)
    try:
        shape = tuple(map(_index, given))
    except TypeError:
        raise InvalidInput(
            f"{key} must be an integer or one integer per axis; {given!r} was given"
        ) from None
    if not shape or (rank is not None and len(shape) != rank):
        wanted = "at least one entry" if rank is None else f"{rank} entries, one per axis"
        raise InvalidInput(f"{key} must have {wanted}; {given!r} was given")
    return shape


def show(shape: Sequence[int]) -> str:
    """A shape as the command line writes it.

    >>> show((30, 48, 80))
    '30x48x80'
    """
    return "x".join(map(str, shape))


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _integer(key: str, value: Any, least: int) -> int:
    try:
        number = value if type(value) is int else _index(value)
    except TypeError:
        raise InvalidInput(f"{key} must be an integer; {value!r} was given") from None
    if number < least:
        raise InvalidInput(f"{key} must be at least {least}; {number} was given")
    return number


def _flags(given: Any, rank: int) -> tuple[bool, ...]:
    if given is None or given is False:
        return (False,) * rank
    flags = (given,) * rank if isinstance(given, bool) else given
    valid = isinstance(flags, Sequence) and all(isinstance(flag, bool) for flag in flags)
    if not valid or len(flags) != rank:
        raise InvalidInput(f"causal must be a bool, or {rank} bools; {given!r} was given")
    return tuple(flags)

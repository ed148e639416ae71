r"""All strides, tilings and windows at once, from tables of one axis each.

Counts multiply over axes, so a sweep over every stride of three axes needs only the counts of one
axis per stride, and outer products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from dsf.errors import InvalidInput

from .axis import Axis
from .axis_counts import count_axis
from .pattern import Pattern, PerAxis, Shape, as_shape
from .tiling import Tiling


@dataclass(frozen=True, eq=False)
class Sweep:
    """Speed-ups of every stride under one tiling: arrays with one axis per axis of the layout.

    `strides[a]` are the strides along axis a. `block_sparse` is exact.
    """

    pattern: Pattern
    tiling: Tiling
    strides: tuple[np.ndarray, ...]
    worst_tile: np.ndarray
    mean_tile: np.ndarray
    padding_aware: np.ndarray
    block_sparse: np.ndarray

    @property
    def products(self) -> np.ndarray:
        """The product of the strides: how many queries share a window."""
        return _outer(list(self.strides), np.multiply)


@dataclass(frozen=True)
class Candidate:
    """One configuration that a search found, with its bounds."""

    window: Shape
    stride: Shape
    tiling: Tiling
    flop: float
    worst_tile: float
    mean_tile: float
    padding_aware: float
    block_sparse: bool
    sparsity: float

    @property
    def stride_product(self) -> int:
        return prod(self.stride)


def sweep(
    pattern: Pattern, tiling: Tiling, strides: Sequence[Iterable[int]] | None = None
) -> Sweep:
    """Count every stride of a pattern (all from 1 to the window, unless given per axis).

    The pattern's own stride does not matter. Raises `InvalidInput` for strides that are not allowed.

    >>> found = sweep(Pattern((30, 48, 80), (18, 24, 24)), Tiling((4, 8, 8), (2, 8, 8)))
    >>> found.worst_tile.size, float(found.worst_tile[15, 7, 7].round(3))
    (10368, 11.111)
    """
    tiling.check(pattern.layout)
    chosen = strides or [range(1, window + 1) for window in pattern.window]
    if len(chosen) != pattern.rank:
        raise InvalidInput(f"strides must be given for {pattern.rank} axes, not {len(chosen)}")
    rows: list[np.ndarray] = []
    for axis, wanted, q, kv in zip(pattern.axes, chosen, tiling.q, tiling.kv, strict=True):
        fields = (axis.length, axis.window), (axis.dilation, axis.causal, axis.name)
        counted = (
            count_axis(Axis(*fields[0], s, *fields[1]), q, kv, tiling.dynamic) for s in wanted
        )
        rows.append(np.array([(c.most, c.visited, c.padded_visited, c.exact) for c in counted]).T)
    most, visited, padded = (_outer([row[i] for row in rows], np.multiply) for i in range(3))
    exact = _outer([row[3].astype(bool) for row in rows], np.logical_and)
    axes = [
        count_axis(axis, q, kv, tiling.dynamic)
        for axis, q, kv in zip(pattern.axes, tiling.q, tiling.kv, strict=True)
    ]
    q_size, kv_size = tiling.sizes
    extra = -(-pattern.extra_keys // kv_size)
    q_tiles, launched = prod(a.q_tiles for a in axes), prod(a.padded_q_tiles for a in axes)
    kv_tiles = prod(a.kv_tiles for a in axes) + extra
    dense = -(-pattern.tokens // q_size) * -(-(pattern.tokens + pattern.extra_keys) // kv_size)
    return Sweep(
        pattern,
        tiling,
        tuple(np.array(list(wanted)) for wanted in chosen),
        worst_tile=kv_tiles / (most + extra),
        mean_tile=kv_tiles * q_tiles / (visited + q_tiles * extra),
        padding_aware=dense / (padded + launched * extra),
        block_sparse=exact,
    )


def front(sweeps: Iterable[Sweep], by: str = "worst_tile") -> tuple[Candidate, ...]:
    """The strides worth choosing: none with a product as small is faster.

    Of every speed-up the smallest stride product is kept; a larger product must be strictly faster.
    Over several sweeps (tilings) the fastest counts. `by` names a bound of `Sweep`.

    Source: Hassani et al. 2025 (arXiv 2504.16922), section 4.2, the pruning of strides.

    >>> found = sweep(Pattern((30, 48, 80), (18, 24, 24)), Tiling((4, 8, 8), (2, 8, 8)))
    >>> [candidate.stride for candidate in front([found])][:3]
    [(1, 1, 1), (2, 1, 1), (1, 1, 8)]
    """
    best: dict[int, tuple[float, Sweep, int]] = {}
    for found in sweeps:
        speeds, products = _bound(found, by).ravel(), found.products.ravel()
        # Of each product the fastest; of equals the first, whose early axes have small strides.
        order = np.lexsort((np.arange(speeds.size), -speeds, products))
        first = np.unique(products[order], return_index=True)[1]
        for at in order[first]:
            key = int(products[at])
            if key not in best or speeds[at] > best[key][0]:
                best[key] = float(speeds[at]), found, int(at)
    kept, fastest = [], 0.0
    for key in sorted(best):
        speed, found, at = best[key]
        if speed > fastest:
            kept.append(_candidate(found, at))
            fastest = speed
    return tuple(kept)


def better(found: Sweep, stride: PerAxis, by: str = "worst_tile") -> Candidate | None:
    """The nearest stride that is as fast or faster with a product no larger; None if there is none.

    One of the two must be strictly better. Nearest: least sum of |differences|.

    >>> found = sweep(Pattern((30, 48, 80), (18, 24, 24)), Tiling((4, 8, 8), (2, 8, 8)))
    >>> better(found, (1, 1, 11)).stride
    (1, 1, 10)
    """
    given = as_shape("stride", stride, found.pattern.rank)
    _ = Pattern(found.pattern.layout, found.pattern.window, given)  # validates
    index = []
    for wanted, row in zip(given, found.strides, strict=True):
        if wanted not in row:
            raise InvalidInput(f"stride {wanted} is not among the strides of the sweep")
        index.append(int(np.flatnonzero(row == wanted)[0]))
    speeds, products = _bound(found, by), found.products
    speed, size = speeds[tuple(index)], products[tuple(index)]
    dominating = (speeds >= speed) & (products <= size) & ((speeds > speed) | (products < size))
    if not dominating.any():
        return None
    distance = _outer([abs(r - g) for r, g in zip(found.strides, given, strict=True)], np.add)
    distance = np.where(dominating, distance, distance.max() + 1)
    return _candidate(found, int(np.lexsort((-speeds.ravel(), distance.ravel()))[0]))


def windows_of_sparsity(
    layout: PerAxis, sparsity: float, tolerance: float = 0.01, step: PerAxis = 1
) -> Iterator[Shape]:
    """Windows that are multiples of `step` (or the whole axis) with a sparsity near the one given.

    >>> list(windows_of_sparsity((16, 16), 0.75, 0.0, step=4))
    [(4, 16), (8, 8), (16, 4)]
    """
    shape = as_shape("layout", layout)
    steps = as_shape("step", step, len(shape))
    if not 0 <= sparsity < 1:
        raise InvalidInput(f"sparsity must be in [0, 1); {sparsity} was given")
    if min(steps) < 1:
        raise InvalidInput(f"step must be at least 1; {steps} was given")
    choices = [
        sorted({w for w in (*range(s, n + 1, s), n) if w >= 2})
        for n, s in zip(shape, steps, strict=True)
    ]
    tokens = prod(shape)
    low, high = (1 - sparsity - tolerance) * tokens, (1 - sparsity + tolerance) * tokens
    for head in product(*choices[:-1]):
        for last in choices[-1]:
            if low <= prod(head) * last <= high:
                yield (*head, last)


def _bound(found: Sweep, by: str) -> np.ndarray:
    if by not in ("worst_tile", "mean_tile", "padding_aware"):
        raise InvalidInput(f"by {by!r} was given; it is worst_tile, mean_tile or padding_aware")
    return getattr(found, by)


def _candidate(found: Sweep, at: int) -> Candidate:
    index = np.unravel_index(at, found.worst_tile.shape)
    stride = tuple(int(row[i]) for row, i in zip(found.strides, index, strict=True))
    old = found.pattern
    pattern = Pattern(
        old.layout, old.window, stride, old.dilation, old.causal, extra_keys=old.extra_keys
    )
    return Candidate(
        pattern.window,
        stride,
        found.tiling,
        flop=pattern.dense_pairs / pattern.visible_pairs,
        worst_tile=float(found.worst_tile[index]),
        mean_tile=float(found.mean_tile[index]),
        padding_aware=float(found.padding_aware[index]),
        block_sparse=bool(found.block_sparse[index]),
        sparsity=pattern.sparsity,
    )


def _outer(rows: Sequence[np.ndarray], ufunc: np.ufunc) -> np.ndarray:
    total = np.asarray(rows[0])
    for row in rows[1:]:
        total = ufunc.outer(total, row)
    return total

"""Token permutation: the order in which a tile's tokens lie side by side."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from dsf.errors import InvalidInput

from .pattern import PerAxis, Shape, as_shape, show

PADDING = -1


@dataclass(frozen=True, eq=False)
class Permutation:
    """`order[slot]` is the token in a slot, or -1 for padding; `inverse[token]` is its slot.

    Slots count dilation groups, then tiles, then tokens of a tile: `groups`, `tiles` and `tile` are
    how many there are of each along every axis.
    """

    order: np.ndarray
    inverse: np.ndarray
    groups: Shape
    tiles: Shape
    tile: Shape

    def along(self, axis: int, values: np.ndarray) -> np.ndarray:
        """Values by dilation group and inner coordinate of an axis, (d, tiles · tile), for all slots."""
        rank = len(self.tile)
        shape = [1] * (3 * rank)
        shape[axis], shape[rank + axis], shape[2 * rank + axis] = (
            self.groups[axis],
            self.tiles[axis],
            self.tile[axis],
        )
        grid = (*self.groups, *self.tiles, *self.tile)
        return np.broadcast_to(values.reshape(shape), grid).reshape(-1)

    def inner(self, axis: int) -> np.ndarray:
        """The inner coordinate, behind the dilation group, of every slot along an axis."""
        padded = self.tiles[axis] * self.tile[axis]
        row = np.arange(padded, dtype=np.int32)
        return self.along(axis, np.tile(row, (self.groups[axis], 1)))

    @property
    def group(self) -> np.ndarray:
        """The number of the dilation group of every slot."""
        several = int(np.prod(self.groups))
        return np.repeat(np.arange(several, dtype=np.int32), len(self.order) // several)


def token_permutation(layout: PerAxis, tile: PerAxis, dilation: PerAxis = 1) -> Permutation:
    """Dilation groups first, then tiles, then tokens of a tile, all in row-major order.

    Every dilation group is padded to whole tiles of the longest group.

    >>> token_permutation((2, 4), (2, 2)).order.tolist()
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    shape = as_shape("layout", layout)
    rank = len(shape)
    size, step = as_shape("tile", tile, rank), as_shape("dilation", dilation, rank)
    if min(*shape, *size, *step) < 1:
        raise InvalidInput(
            f"layout {show(shape)}, tile {show(size)} and dilation {show(step)} must be positive"
        )
    tiles = tuple(ceil(ceil(n / d) / t) for n, d, t in zip(shape, step, size, strict=True))
    nothing = np.empty(0, dtype=np.int64)
    made = Permutation(nothing, nothing, step, tiles, size)
    order, inside, row = np.int64(0), np.True_, 1
    for axis in reversed(range(rank)):
        inner = np.arange(tiles[axis] * size[axis])
        token = inner * step[axis] + np.arange(step[axis])[:, None]
        order = order + made.along(axis, token * row)
        inside = inside & made.along(axis, token < shape[axis])
        row *= shape[axis]
    order = np.where(inside, order, PADDING)
    slots = np.flatnonzero(inside)
    inverse = np.empty(slots.size, dtype=np.int64)
    inverse[order[slots]] = slots
    return Permutation(order, inverse, step, tiles, size)

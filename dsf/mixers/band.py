"""Which pairs of query and key a mixer may weigh: a band around the diagonal, and its tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput


@dataclass(frozen=True)
class BlockCounts:
    """Tiles of Φ: `visited` hold a weight that may be nonzero, `full` hold no other, of `total`."""

    total: int
    visited: int
    full: int

    @property
    def partial(self) -> int:
        """Tiles that hold both kinds of weight."""
        return self.visited - self.full


@dataclass(frozen=True)
class Band:
    """Row i of Φ weighs the columns i - `before` … i + `after`; None reaches to the end.

    `after` may be negative (-1: strictly earlier tokens).

    >>> Band(2, 0).mask(4).int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 1, 1]], dtype=torch.int32)
    >>> Band(2, 0).pairs(4), Band(2, 0).blocks(4, (2, 2))
    (9, BlockCounts(total=4, visited=3, full=0))
    """

    before: int | None = None
    after: int | None = None

    def __post_init__(self) -> None:
        if self.before is not None and self.after is not None and self.before + self.after < 0:
            raise InvalidInput(
                f"a band needs `before` + `after` >= 0; got {self.before} and {self.after}"
            )

    @property
    def causal(self) -> bool:
        """True where no row reaches past the diagonal."""
        return self.after is not None and self.after <= 0

    def reversed(self) -> Band:
        """The band of the transpose."""
        return Band(self.after, self.before)

    def row(self, i: int, length: int) -> range:
        """The columns of row `i` of `length`."""
        first = 0 if self.before is None else max(0, i - self.before)
        last = length - 1 if self.after is None else min(length - 1, i + self.after)
        return range(first, max(first, last + 1))

    def pairs(self, length: int) -> int:
        """How many weights of `length` rows may be nonzero."""
        return sum(len(self.row(i, length)) for i in range(length))

    def mask(self, length: int) -> Tensor:
        """The band as booleans (T, T)."""
        ahead = torch.arange(length) - torch.arange(length)[:, None]
        seen = torch.ones(length, length, dtype=torch.bool)
        if self.before is not None:
            seen &= ahead >= -self.before
        return seen if self.after is None else seen & (ahead <= self.after)

    def blocks(self, length: int, tile: tuple[int, int]) -> BlockCounts:
        """Tiles of `tile` rows and columns, the last ones cut off, from the ends of the rows alone."""
        rows, columns = tile
        if rows < 1 or columns < 1:
            raise InvalidInput(f"`tile` must be two positive sizes; got {tile}")
        starts = range(0, length, columns)
        visited = full = 0
        for top in range(0, length, rows):
            reach = [self.row(i, length) for i in range(top, min(top + rows, length))]
            for left in starts:
                right = min(left + columns, length)
                visited += any(r.start < right and r.stop > left and len(r) > 0 for r in reach)
                full += all(r.start <= left and r.stop >= right for r in reach)
        return BlockCounts(-(-length // rows) * len(starts), visited, full)


CAUSAL = Band(None, 0)
EVERYTHING = Band(None, None)

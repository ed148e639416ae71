"""Which keys every query sees, as one interval per axis, and the tables of tile boxes that programs walk.

Causal and windowed attention, packed sequences and neighborhoods in one to three axes are all this: along an
axis both ends of the interval never fall, so tiles visit boxes of tiles (`dsf.sim.boxes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import prod

import numpy as np
import torch
from torch import Tensor

from dsf.sim import Pattern
from dsf.sim.boxes import key_boxes, query_boxes
from dsf.sim.pattern import Shape


@dataclass(frozen=True, eq=False)
class Line:
    """One axis: how many queries and keys, the step between tokens of a dilation group, and what queries see.

    `intervals` has start and end per query of each of the `step` groups.
    """

    queries: int
    keys: int
    step: int
    intervals: tuple[tuple[np.ndarray, np.ndarray], ...]

    def tiles(self, tokens: int, tile: int) -> int:
        """Tiles of a dilation group, those of the longest one."""
        longest = -(-tokens // self.step)
        return -(-longest // tile)

    def group(self, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Start, end and the number of keys of a dilation group."""
        return *self.intervals[number], -(-(self.keys - number) // self.step)

    def block(self, number: int, at: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of query tile `at` of a dilation group, the keys that any sees, and which sees which."""
        part = slice(at * size, (at + 1) * size)
        start, end = (torch.from_numpy(side[part]) for side in self.intervals[number])
        reach = (int(start[0]), int(end[-1])) if len(start) else (0, 0)
        keys = torch.arange(reach[0], max(reach))
        queries = torch.arange(part.start, part.start + len(start))
        seen = (keys >= start[:, None]) & (keys < end[:, None])
        return queries * self.step + number, keys * self.step + number, seen


@dataclass(frozen=True, eq=False)
class Walk:
    """The tables of a program: `low`, `high` (slots,) of queries, `boxes` (tiles, 4) of tiles; int32.

    Along each axis, the last axis first, rows go by dilation group and then by tile.
    """

    low: Tensor
    high: Tensor
    boxes: Tensor


@dataclass(frozen=True, eq=False)
class Geometry:
    """The axes of a pattern, the first one outermost."""

    lines: tuple[Line, ...]

    @property
    def rank(self) -> int:
        return len(self.lines)

    @property
    def queries(self) -> Shape:
        return tuple(line.queries for line in self.lines)

    @property
    def keys(self) -> Shape:
        return tuple(line.keys for line in self.lines)

    @property
    def steps(self) -> Shape:
        return tuple(line.step for line in self.lines)

    def tiles(self, tile: Shape, of_keys: bool = False) -> int:
        """How many programs there are for tiles of queries (or keys), those of padding alone included."""
        lengths = self.keys if of_keys else self.queries
        rows = zip(self.lines, lengths, tile, strict=True)
        return prod(line.step * line.tiles(length, size) for line, length, size in rows)

    def walk(self, q: Shape, kv: Shape, of_keys: bool, device: torch.device) -> Walk:
        """The tables for these tiles: boxes of KV tiles for query tiles, or the other way round."""
        key = (q, kv, of_keys, str(device))
        if key not in self._walks:
            self._walks[key] = self._tables(q, kv, of_keys, device)
        return self._walks[key]

    @cached_property
    def _walks(self) -> dict[tuple, Walk]:
        return {}

    def _tables(self, q: Shape, kv: Shape, of_keys: bool, device: torch.device) -> Walk:
        low, high, boxes = [], [], []
        for line, qs, ks in zip(reversed(self.lines), q[::-1], kv[::-1], strict=True):
            padded = line.tiles(line.queries, qs) * qs
            rows = line.tiles(line.keys, ks) if of_keys else line.tiles(line.queries, qs)
            for number in range(line.step):
                start, end, keys = line.group(number)
                found = (
                    key_boxes(start, end, qs, ks, keys)
                    if of_keys
                    else query_boxes(start, end, qs, ks)
                )
                boxes.append(np.pad(found, ((0, rows - len(found)), (0, 0))))
                # Slots of padding see nothing.
                low.append(np.pad(start, (0, padded - len(start))))
                high.append(np.pad(end, (0, padded - len(end))))
        # Axes that the pattern does not have are one tile long, and need no mask.
        boxes.append(np.tile(np.array([[0, 1, 0, 1]]), (3 - self.rank, 1)))
        tables = (np.concatenate(each).astype(np.int32) for each in (low, high, boxes))
        return Walk(*(torch.from_numpy(each).to(device) for each in tables))

    def blocks(self, tile: Shape) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Queries of a tile, the keys that any of them sees, and which sees which (queries, keys)."""
        for groups in product(*(range(line.step) for line in self.lines)):
            several = zip(self.lines, tile, strict=True)
            counts = (range(line.tiles(line.queries, size)) for line, size in several)
            for place in product(*counts):
                rows = columns = torch.zeros(1, dtype=torch.int64)
                seen = torch.ones(1, 1, dtype=torch.bool)
                for line, size, group, at in zip(self.lines, tile, groups, place, strict=True):
                    queries, keys, own = line.block(group, at, size)
                    rows = (rows[:, None] * line.queries + queries).flatten()
                    columns = (columns[:, None] * line.keys + keys).flatten()
                    seen = seen[:, None, :, None] & own[None, :, None, :]
                    seen = seen.flatten(0, 1).flatten(1)
                yield rows, columns, seen


def of_pattern(pattern: Pattern) -> Geometry:
    """A neighborhood: queries and keys are the same tokens."""
    lines = []
    for axis in pattern.axes:
        sizes = [size for size, many in axis.groups for _ in range(many)]
        rows = tuple(axis.intervals(np.arange(size), size) for size in sizes)
        lines.append(Line(axis.length, axis.length, axis.dilation, rows))
    return Geometry(tuple(lines))


def of_band(
    queries: tuple[int, ...], keys: tuple[int, ...], causal: bool, window: int | None
) -> Geometry:
    """Attention along one axis, over sequences of queries and of keys that begin and end at these places.

    Queries are the last of their sequence's keys: query p sees key j with j <= p where it is causal, and
    |p - j| < window.
    """
    low, high = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for (begin, stop), (first, after) in zip(pairwise(queries), pairwise(keys), strict=True):
        place = np.arange(after - (stop - begin), after)
        last = np.full_like(place, after)
        start = np.full_like(place, first) if window is None else place - window + 1
        end = place + 1 if causal else last if window is None else place + window
        low.append(np.maximum(start, first))
        high.append(np.clip(end, low[-1], last))
    intervals = np.concatenate(low), np.concatenate(high)
    return Geometry((Line(queries[-1], keys[-1], 1, (intervals,)),))

"""Block bitmaps, CSR and FlexAttention's BlockMask of a pattern, with the token permutation they need."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from dsf.errors import InvalidInput

from .axis import Axis
from .pattern import Pattern
from .permutation import PADDING, Permutation, token_permutation
from .tiling import Tiling


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which KV tiles every query tile visits: booleans (query tiles, KV tiles) in permuted order.

    Query tiles of padding alone visit nothing. `q` and `kv` say which token lies in which slot; KV
    tiles of extra keys stand at the end, and their slots behind those of `kv`.
    """

    visited: np.ndarray
    full: np.ndarray
    q: Permutation
    kv: Permutation

    @property
    def kv_size(self) -> int:
        """Keys in a tile."""
        return prod(self.kv.tile)


@dataclass(frozen=True, eq=False)
class CSR:
    """Compressed rows: the KV tiles of query tile i are `indices[indptr[i]:indptr[i + 1]]`.

    `full[n]` says whether the tile at `indices[n]` needs no mask.
    """

    indptr: np.ndarray
    indices: np.ndarray
    full: np.ndarray


def blocks(pattern: Pattern, tiling: Tiling) -> Blocks:
    """The bitmap of a pattern under static KV tiling.

    >>> found = blocks(Pattern(12, window=4, stride=4), Tiling(4, 4))
    >>> found.visited.astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    tiling.check(pattern.layout)
    if tiling.dynamic:
        raise InvalidInput("a bitmap needs KV tiles on a fixed grid; kv_tiling 'dynamic' was given")
    rows = list(zip(pattern.axes, tiling.q, tiling.kv, strict=True))
    axes = [_axis_blocks(*row) for row in rows]
    extra = -(-pattern.extra_keys // tiling.sizes[1])
    visited, full = (_combined([pair[i] for pair in axes]) for i in range(2))
    launched = np.repeat(np.any(visited, axis=1, keepdims=True), extra, 1)
    q = token_permutation(pattern.layout, tiling.q, pattern.dilation)
    same = tiling.q == tiling.kv
    kv = q if same else token_permutation(pattern.layout, tiling.kv, pattern.dilation)
    visited, full = (np.concatenate([tiles, launched], 1) for tiles in (visited, full))
    return Blocks(visited, full, q, kv)


def csr(found: Blocks) -> CSR:
    """The bitmap as compressed rows, as FlashInfer and block-sparse kernels take it."""
    row, column = np.nonzero(found.visited)
    indptr = np.concatenate([[0], np.cumsum(found.visited.sum(1))])
    return CSR(indptr.astype(np.int32), column.astype(np.int32), found.full[row, column])


def block_mask(pattern: Pattern, tiling: Tiling, device: str = "cpu") -> tuple[Any, Blocks]:
    """A `torch.nn.attention.flex_attention.BlockMask` over permuted tokens, without visiting a pair.

    Queries stand in the order `blocks.q.order`, keys in that of `blocks.kv.order` followed by the
    extra keys, both padded: queries at slots of padding see nothing, keys there are seen by none.
    Take outputs back with `outputs[..., blocks.q.inverse, :]`.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    found = blocks(pattern, tiling)
    full = found.full & _without_padding(pattern, tiling, found)
    partial = found.visited & ~full
    named: dict[str, Any] = {}
    for side, partial_rows, full_rows in (("kv", partial, full), ("q", partial.T, full.T)):
        for kind, rows in ((side, partial_rows), (f"full_{side}", full_rows)):
            both = (torch.from_numpy(x)[None, None].to(device) for x in _listed(rows))
            named[f"{kind}_num_blocks"], named[f"{kind}_indices"] = both
    mask: Any = BlockMask(
        seq_lengths=(len(found.q.order), found.visited.shape[1] * tiling.sizes[1]),
        BLOCK_SIZE=tiling.sizes,
        mask_mod=_mask_mod(pattern, found, device),
        **named,
    )
    return mask, found


def _axis_blocks(axis: Axis, q: int, kv: int) -> tuple[np.ndarray, np.ndarray]:
    """Visited and full (groups, query tiles, groups, KV tiles) of one axis."""
    longest = axis.groups[0][0]
    shape = (axis.dilation, -(-longest // q), axis.dilation, -(-longest // kv))
    visited, full = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    group = 0
    for size, many in axis.groups:
        first = np.arange(0, size, q)
        last = np.minimum(first + q, size) - 1
        start, end = axis.intervals(first, size)
        last_start, last_end = axis.intervals(last, size)
        low = np.arange(0, size, kv)
        high = np.minimum(low + kv, size)
        seen = (start[:, None] < high) & (last_end[:, None] > low)
        whole = (last_start[:, None] <= low) & (end[:, None] >= high)
        for one in range(group, group + many):
            visited[one, : len(first), one, : len(low)] = seen
            full[one, : len(first), one, : len(low)] = whole
        group += many
    return visited, full


def _combined(axes: list[np.ndarray]) -> np.ndarray:
    """The product over axes, (query tiles, KV tiles), groups before tiles."""
    rank, total = len(axes), axes[0]
    for axis in axes[1:]:
        total = np.logical_and.outer(total, axis)
    order = [4 * a + i for i in range(4) for a in range(rank)]
    queries = int(np.prod([total.shape[place] for place in order[: 2 * rank]]))
    return total.transpose(order).reshape(queries, -1)


def _without_padding(pattern: Pattern, tiling: Tiling, found: Blocks) -> np.ndarray:
    """Tiles every slot of which holds a token: others must be masked, or padding would be seen."""
    q_size, kv_size = tiling.sizes
    q = (found.q.order >= 0).reshape(-1, q_size).all(1)
    kv = (found.kv.order >= 0).reshape(-1, kv_size).all(1)
    extra = np.arange(1, found.visited.shape[1] - kv.size + 1) * kv_size <= pattern.extra_keys
    return np.logical_and.outer(q, np.concatenate([kv, extra]))


def _listed(bitmap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many blocks each row has, and their columns first: int32 (rows,), (rows, columns)."""
    bitmap = np.ascontiguousarray(bitmap)
    counts = bitmap.sum(1, dtype=np.int32)
    rows, columns = np.divmod(np.flatnonzero(bitmap).astype(np.int32), np.int32(bitmap.shape[1]))
    before = np.cumsum(counts, dtype=np.int32) - counts
    indices = np.zeros(bitmap.shape, dtype=np.int32)
    indices[rows, np.arange(rows.size, dtype=np.int32) - before[rows]] = columns
    return counts, indices


def _mask_mod(pattern: Pattern, found: Blocks, device: str) -> Any:
    """The mask of single pairs of slots, from tables of what every query sees.

    A chain of lambdas of tables, one per axis, that FlexAttention can trace and compile.
    """
    import torch

    slots = len(found.kv.order)
    behind = found.visited.shape[1] * found.kv_size - slots

    def table(x: np.ndarray, padding: int | None = None) -> Any:
        if padding is not None:
            x = np.concatenate([x, np.full(behind, padding, dtype=x.dtype)])
        return torch.from_numpy(x.astype(np.int32, copy=not x.flags.writeable)).to(device)

    q_group = table(np.where(found.q.order >= 0, found.q.group, PADDING))
    kv_group = table(np.where(found.kv.order >= 0, found.kv.group, PADDING - 1), PADDING - 1)
    visible = _same(q_group, kv_group)
    for place, axis in enumerate(pattern.axes):
        start, end = _windows(axis, found.q.tiles[place] * found.q.tile[place])
        visible = _between(
            visible,
            table(found.q.along(place, start)),
            table(found.q.along(place, end)),
            table(found.kv.inner(place), PADDING),
        )
    if pattern.extra_keys:
        visible = _or_extra(visible, q_group, slots, slots + pattern.extra_keys)
    return lambda batch, head, q, k: visible(q, k)


def _same(q_group: Any, kv_group: Any) -> Any:
    return lambda q, k: q_group[q] == kv_group[k]


def _between(before: Any, start: Any, end: Any, key: Any) -> Any:
    return lambda q, k: before(q, k) & (key[k] >= start[q]) & (key[k] < end[q])


def _or_extra(before: Any, q_group: Any, first: int, last: int) -> Any:
    return lambda q, k: before(q, k) | ((q_group[q] >= 0) & (k >= first) & (k < last))


def _windows(axis: Axis, padded: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every query by dilation group, (d, padded); padding is never asked for."""
    rows = [
        axis.intervals(np.arange(padded), size) for size, many in axis.groups for _ in range(many)
    ]
    start, end = (np.stack(side).astype(np.int32) for side in zip(*rows, strict=True))
    return start, end

"""What a chunk does as a whole: outputs and next memory from its values and its first memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import Structure

from .fold import fold
from .workspace import Workspace


@dataclass(frozen=True, eq=False)
class ChunkMaps:
    r"""O = gram U + reads S₀ and S₁ = total S₀ + writesᵀ U, for each of M chunks.

    With y read streams and w write streams: `gram` (M, y C, w C), `reads` (M, y C, K), `writes` (M, w C, K).
    """

    gram: Tensor
    reads: Tensor
    writes: Tensor
    total: Structure

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.gram, self.reads, self.writes, *self.total.leaves)

    def rebuild(self, tensors: tuple[Tensor, ...]) -> ChunkMaps:
        """The same kind of maps with other tensors."""
        gram, reads, writes, *rest = tensors
        return ChunkMaps(gram, reads, writes, self.total.rebuild(tuple(rest)))


def chunk_maps(
    transition: Structure,
    reads: list[Tensor],
    writes: list[Tensor],
    space: Workspace | None = None,
) -> ChunkMaps:
    """The maps of chunks from transitions (M, C) and streams of vectors (M, C, K).

    With a workspace the streams are used up and nothing can be differentiated.
    """
    reads, writes, transition = _in_one_type(reads, writes, transition)
    folded = fold(transition, reads, writes, [True] * len(reads), space)
    none = writes[0].new_zeros(len(writes[0]), 0, writes[0].shape[-1])
    return ChunkMaps(
        _table(folded.grams, writes),
        _stack(folded.reads or [none]),
        _stack(folded.writes),
        folded.total,
    )


def _in_one_type(
    reads: list[Tensor], writes: list[Tensor], transition: Structure
) -> tuple[list[Tensor], list[Tensor], Structure]:
    dtype = writes[0].dtype
    for x in (*reads, *writes, *transition.leaves):
        dtype = torch.promote_types(dtype, x.dtype)
    return (
        [x.to(dtype) for x in reads],
        [x.to(dtype) for x in writes],
        transition.map(lambda leaf, _: leaf.to(dtype)),
    )


def _stack(streams: list[Tensor]) -> Tensor:
    return streams[0] if len(streams) == 1 else torch.cat(streams, 1)


def _table(grams: list[list[Tensor]], columns: list[Tensor]) -> Tensor:
    """The Gram matrices side by side; (M, 0, w C) where nothing reads."""
    count, chunk = columns[0].shape[:2]
    none = columns[0].new_zeros(count, 0, len(columns) * chunk)
    return _stack([row[0] if len(row) == 1 else torch.cat(row, 2) for row in grams] or [none])

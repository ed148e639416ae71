"""What a chunk does as a whole: outputs and next memory from its values and its first memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import DPLR, Structure

from .fold import fold
from .workspace import Workspace


@dataclass(frozen=True, eq=False)
class ChunkMaps:
    r"""O = gram U + reads S₀ and S₁ = total S₀ + writesᵀ U + ontoᵀ back S₀, for each of M chunks.

    With y read streams, w write streams and rank r: `gram` (M, y C, w C), `reads` (M, y C, K),
    `writes` (M, w C, K), `onto` and `back` (M, r C, K) where the transition is DPLR.
    """

    gram: Tensor
    reads: Tensor
    writes: Tensor
    total: Structure
    onto: Tensor | None = None
    back: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        low_rank = () if self.onto is None or self.back is None else (self.onto, self.back)
        return (self.gram, self.reads, self.writes, *low_rank, *self.total.leaves)

    def rebuild(self, tensors: tuple[Tensor, ...]) -> ChunkMaps:
        """The same kind of maps with other tensors."""
        gram, reads, writes, *rest = tensors
        onto, back = (None, None) if self.onto is None else (rest.pop(0), rest.pop(0))
        return ChunkMaps(gram, reads, writes, self.total.rebuild(tuple(rest)), onto, back)


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
    if isinstance(transition, DPLR):
        return _with_low_rank(transition, reads, writes, space)
    folded = fold(transition, reads, writes, [True] * len(reads), space)
    none = writes[0].new_zeros(len(writes[0]), 0, writes[0].shape[-1])
    return ChunkMaps(
        _table(folded.grams, writes),
        _stack(folded.reads or [none]),
        _stack(folded.writes),
        folded.total,
    )


def _with_low_rank(
    transition: DPLR, reads: list[Tensor], writes: list[Tensor], space: Workspace | None
) -> ChunkMaps:
    r"""Fold with P as further writes and Q as further reads before the update, and solve for w_i = Q_iᵀ h_{i-1}.

    w = E S₀ + N U + M w with M, N strictly lower triangular (compact WY), so w = X_E S₀ + X_N U with
    (I - M) [X_E, X_N] = [E, N].
    """
    left, right = (list(x.unbind(-1)) for x in (transition.left, transition.right))
    y, w, rank = len(reads), len(writes), transition.rank
    after = [True] * y + [False] * rank
    folded = fold(transition.gate, reads + right, writes + left, after, space)
    rows = folded.grams[y:]
    system = _interleaved([[-gram for gram in row[w:]] for row in rows])
    given = torch.cat([_stack(folded.reads[y:]), _table([row[:w] for row in rows], writes)], -1)
    solved = torch.linalg.solve_triangular(
        system, _by_step(given, rank), upper=False, unitriangular=True
    )
    solved = _by_stream(solved, rank)
    keys = writes[0].shape[-1]
    back, of_values = solved[..., :keys].contiguous(), solved[..., keys:].contiguous()
    through = _table([row[w:] for row in folded.grams[:y]], left)
    gram = _table([row[:w] for row in folded.grams[:y]], writes)
    none = writes[0].new_zeros(len(writes[0]), 0, keys)
    onto = _stack(folded.writes[w:])
    return ChunkMaps(
        torch.baddbmm(gram, through, of_values),
        torch.baddbmm(_stack(folded.reads[:y] or [none]), through, back),
        torch.baddbmm(_stack(folded.writes[:w]), of_values.mT, onto),
        folded.total,
        onto,
        back,
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


def _interleaved(grams: list[list[Tensor]]) -> Tensor:
    """(C r, C r) with the streams of one step side by side, so that the whole is lower triangular."""
    if len(grams) == 1:
        return grams[0][0]
    table = torch.stack([torch.stack(row, -1) for row in grams], 2)  # (M, C, r, C, r)
    return table.flatten(3, 4).flatten(1, 2)


def _by_step(x: Tensor, rank: int) -> Tensor:
    return x if rank == 1 else x.unflatten(1, (rank, -1)).transpose(1, 2).flatten(1, 2)


def _by_stream(x: Tensor, rank: int) -> Tensor:
    return x if rank == 1 else x.unflatten(1, (-1, rank)).transpose(1, 2).flatten(1, 2)

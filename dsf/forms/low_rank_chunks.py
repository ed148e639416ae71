"""What `dsf.forms.low_rank` computes with: the tensors of a core in chunks, folded, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.structure import DPLR, Diagonal, Identity

from .chunk_layout import ChunkLayout, InChunks
from .core import Core
from .fold_rows import Vectors, fold_rows
from .shared_decay import _back
from .unit_triangular import inverses
from .workspace import Workspace


class LowRankChunks:
    """M chunks: `folded` reads and Q, writes and P, and `seen`, the values (M, m, V) with room for w behind them.

    `of_reads` (n rows) and `of_low_rank` are the rows of the table that belong to the reads and to the Q.
    """

    def __init__(self, core: Core, chunk: int, space: Workspace, keeps: bool) -> None:
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        assert isinstance(core.transition, DPLR)
        kind = core.tokens.dtype
        for x in core.tensors:
            kind = torch.promote_types(kind, x.dtype)
        like = core.tokens.new_empty((), dtype=kind)
        self.transition, self.rank, self.space = core.transition, core.transition.rank, space
        self.layout = ChunkLayout(core.length, chunk, space)
        given = Vectors(
            (core.read.weights, core.transition.right.mT),
            (core.write.weights, core.transition.left.mT),
            self.layout,
            like,
        )
        gate = core.transition.gate
        self.decay = None if isinstance(gate, Identity) else self.layout.gates(gate).to(kind)
        if self.decay is not None and not isinstance(gate, Identity):
            gate = type(gate)(value=self.decay)
        self.folded = fold_rows(gate, given, space, keeps)
        self.outputs = self.folded.reads[0].shape[1]
        self.values = self.folded.writes[0].shape[1]
        self.of_reads = self.folded.table[:, : self.outputs]
        self.of_low_rank = self.folded.table[:, self.outputs :]
        self.seen = self.layout.stacked([core.tokens], "seen", like, self.rank)

    def inverses(self) -> Tensor:
        """(I - M)⁻¹; with the streams of one step side by side it is lower triangular."""
        system, rank = self.of_low_rank[:, :, self.values :], self.rank
        if rank == 1:
            return inverses(system, 1, self.space)

        def turned(x: Tensor, name: str, shape: tuple[int, int]) -> Tensor:
            x = x.unflatten(2, shape).unflatten(1, shape).permute(0, 2, 1, 4, 3)
            return self.space(name, x.shape, x).copy_(x).flatten(3, 4).flatten(1, 2)

        found = inverses(turned(system, "by step", (rank, -1)), rank, self.space)
        return turned(found, "by stream", (-1, rank))

    def gradients(
        self,
        core: Core,
        of_gate: Tensor | None,
        of_reads: list[Tensor],
        of_writes: list[Tensor],
        of_values: Tensor,
    ) -> list[Tensor | InChunks | None]:
        """Those that are wanted of `core.tensors`, from gradients in chunks."""
        rank = self.rank
        found = [
            *self._of_gate(of_gate),
            self._of_columns(of_writes[-rank:], self.transition.left),
            self._of_columns(of_reads[-rank:], self.transition.right),
            _back(self.layout, of_writes[:-rank], core.write.tensors[0]),
            _back(self.layout, of_reads[:-rank], core.read.tensors[0]),
            _back(self.layout, of_values.split(self.layout.chunk, 1), core.tokens),
        ]
        wanted = [x.requires_grad for x in core.tensors]
        return [x if w else None for x, w in zip(found, wanted, strict=True)]

    def _of_gate(self, own: Tensor | None) -> list[Tensor | InChunks]:
        """The gradient of the gate's leaf from that of the gate in linear space."""
        gate = self.transition.gate
        if own is None or self.decay is None or isinstance(gate, Identity):
            return []
        if gate.log is not None:
            own = own * self.decay.conj()
        (leaf,) = gate.leaves
        if isinstance(gate, Diagonal):
            shared = leaf.shape[-1] == 1 != own.shape[-1]
            return [_back(self.layout, [own.sum(-1, keepdim=True) if shared else own], leaf)]
        x = _back(self.layout, [own[..., None]], leaf[..., None])
        return [x[..., 0] if isinstance(x, Tensor) else InChunks(x.view[..., 0], x.length)]

    def _of_columns(self, own: list[Tensor], leaf: Tensor) -> Tensor | InChunks:
        """The gradient of P or Q, (B, T, H, K, r)."""
        x = _back(self.layout, own, leaf.mT)
        return x.mT if isinstance(x, Tensor) else InChunks(x.view.mT, x.length)

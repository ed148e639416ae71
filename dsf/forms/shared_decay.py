"""The way back through chunks whose keys share one decay, with every product written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.structure import Identity, Scalar

from .chunk_layout import ChunkLayout, InChunks
from .core import Core
from .fold_decays import between_steps, between_vjp
from .workspace import Workspace


def shared_decay_vjp(
    core: Core, chunk: int, start: Tensor, cotangents: tuple[Tensor, Tensor], space: Workspace
) -> list[Tensor | InChunks | None]:
    r"""Gradients of the memory and of `core.tensors`, from the memory at each chunk's start (M, K, V).

    With S the start of a chunk, R the gradient of its end, P = (Q Kᴴ) ⊙ Γ and D = (dO Uᴴ) ⊙ Γ, where Γ, r
    and w are the decays between steps, to the start and to the end (`dsf.forms.fold_decays`):

        dU = Pᴴ dO + (w K) R,  dQ = D K + r (dO Sᴴ),  dK = Dᴴ Q + w (U Rᴴ),  R ← a R + (r Q)ᴴ dO,

    and the gradient of Γ, r and w goes back through the products that they are.
    """
    assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
    of_outputs, of_last = cotangents
    kind, sequences = start.dtype, of_last.shape[0] * of_last.shape[1]
    layout = ChunkLayout(core.length, chunk, space)

    def streams(x: Tensor, name: str) -> list[Tensor]:
        return [y.to(kind) for y in layout.streams(x, name)]

    reads, writes = streams(core.read.weights, "reads"), streams(core.write.weights, "writes")
    values, above = streams(core.tokens, "values"), streams(of_outputs, "above")
    decays = _Decays(core, layout, kind, space)
    count, keys, width = len(start), start.shape[1], start.shape[2]

    def fresh(name: str, *own: int) -> Tensor:
        return space(name, (count, *own), start)

    states = space("later", (count + sequences, keys, width), start)
    states[count:] = of_last.flatten(0, 1)
    scaled = fresh("scaled", chunk, keys)
    for i, (q, d) in enumerate(zip(reads, above, strict=True)):
        decays.to_start(q, onto=scaled)
        if i:
            states[:count].baddbmm_(scaled.mH, d)
        else:
            torch.bmm(scaled.mH, d, out=states[:count])
    if not reads:
        states[:count] = 0
    decays.carry_back(states, sequences)
    later = states[sequences:]
    decays.of_total(start, later)

    of_writes, of_values = [], []
    for j, (k, u) in enumerate(zip(writes, values, strict=True)):
        decays.to_end(k, onto=scaled)
        of_values.append(torch.bmm(scaled.conj(), later, out=fresh(f"of value {j}", chunk, width)))
        onward = torch.bmm(u, later.mH, out=fresh(f"of write {j}", chunk, keys)).conj()
        of_writes.append(decays.from_end(onward, k))
    of_reads, raw, of_gram = [], fresh("raw", chunk, chunk), fresh("of gram", chunk, chunk)
    for i, (q, d) in enumerate(zip(reads, above, strict=True)):
        back = torch.bmm(d, start.mH, out=fresh(f"of read {i}", chunk, keys))
        of_reads.append(decays.from_start(back, q))
        for j, (k, u) in enumerate(zip(writes, values, strict=True)):
            torch.bmm(q, k.mT, out=raw)
            torch.bmm(d, u.mH, out=of_gram)
            gram = decays.masked(raw, of_gram)
            of_values[j].baddbmm_(gram.mH, d)
            of_reads[i].baddbmm_(of_gram, k.conj())
            of_writes[j].baddbmm_(of_gram.mT, q.conj())
    found = [
        *decays.gradients(core, layout),
        _back(layout, of_writes, core.write.weights),
        _back(layout, of_reads, core.read.weights),
        _back(layout, of_values, core.tokens),
    ]
    first = states[:sequences].clone().view_as(core.memory)
    wanted = [x.requires_grad for x in core.tensors]
    return [first, *(x if w else None for x, w in zip(found, wanted, strict=True))]


class _Decays:
    """Γ, r and w of the chunks, with their gradients; nothing at all where the transition is the identity."""

    def __init__(
        self, core: Core, layout: ChunkLayout, kind: torch.dtype, space: Workspace
    ) -> None:
        self.space, self.decay = space, None
        gate = core.transition
        if isinstance(gate, Identity):
            return
        assert isinstance(gate, Scalar)
        decay = gate.decay
        self.decay = layout(decay, decay.new_ones((1, 1, 1)), "decay").to(kind)
        self.between = between_steps(self.decay, space)
        self.reach = self.between[:, :, 0] * self.decay[:, :1]
        self.onward = self.between[:, -1]
        self.of_between = space("of between", self.between.shape, self.between).zero_()
        self.of_reach = torch.zeros_like(self.reach)

    def to_start(self, reads: Tensor, onto: Tensor) -> None:
        """r Q."""
        if self.decay is None:
            onto.copy_(reads)
        else:
            torch.mul(reads, self.reach[..., None], out=onto)

    def to_end(self, writes: Tensor, onto: Tensor) -> None:
        """w K."""
        if self.decay is None:
            onto.copy_(writes)
        else:
            torch.mul(writes, self.onward[..., None], out=onto)

    def from_start(self, x: Tensor, reads: Tensor) -> Tensor:
        """The gradient x of r Q as one of Q, in its place."""
        if self.decay is not None:
            self.of_reach += self._dots(reads, x)
            x.mul_(self.reach[..., None].conj())
        return x

    def from_end(self, x: Tensor, writes: Tensor) -> Tensor:
        """The gradient x of w K as one of K, in its place."""
        if self.decay is not None:
            self.of_between[:, -1] += self._dots(writes, x)
            x = x.mul_(self.onward[..., None].conj())
        return x.resolve_conj()

    def masked(self, raw: Tensor, of_gram: Tensor) -> Tensor:
        """P from Q Kᴴ, in its place; the gradient of P becomes that of Q Kᴴ, in its place too."""
        if self.decay is None:
            of_gram.tril_()
            return raw.tril_()
        self.of_between.addcmul_(of_gram, raw.conj())
        of_gram.mul_(self.between.conj())
        return raw.mul_(self.between)

    def carry_back(self, states: Tensor, sequences: int) -> None:
        """R of each chunk's start onto that of the chunk before."""
        chunks = states.split(sequences)
        if self.decay is None:
            for n in range(len(chunks) - 2, -1, -1):
                chunks[n].add_(chunks[n + 1])
            return
        totals = self.reach[:, -1, None, None].conj().split(sequences)
        for n in range(len(chunks) - 2, -1, -1):
            chunks[n].addcmul_(totals[n], chunks[n + 1])

    def of_total(self, start: Tensor, later: Tensor) -> None:
        """The gradient of the whole chunk's decay, Σ S* R."""
        if self.decay is not None:
            self.of_reach[:, -1] += self._dots(start, later).sum(-1)

    def gradients(self, core: Core, layout: ChunkLayout) -> list[Tensor]:
        """The gradient of the leaf of the transition."""
        if self.decay is None:
            return []
        (leaf,) = core.transition.leaves
        decay, between = self.decay.conj(), self.between.conj()
        self.of_between[:, :, 0].addcmul_(self.of_reach, decay[:, :1])
        of_decay = between_vjp(decay, between, self.of_between, self.space)
        of_decay[:, 0] += (self.of_reach * between[:, :, 0]).sum(-1)
        if isinstance(core.transition, Scalar) and core.transition.log is not None:
            of_decay *= decay
        found = _back(layout, [of_decay[..., None]], leaf[..., None])
        return [found[..., 0] if isinstance(found, Tensor) else found.fresh()[..., 0]]

    def _dots(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_k x*_k y_k."""
        both = self.space("dots", y.shape, y)
        return torch.mul(x.conj(), y, out=both).sum(-1)


def _back(layout: ChunkLayout, found: Sequence[Tensor], like: Tensor) -> Tensor | InChunks:
    """Gradients (M, C, ·) of each stream, in the shape and type of the leaf `like`."""
    if not found:  # nothing reads in time
        return torch.zeros_like(like)
    batch, heads = like.shape[0], like.shape[2]
    several = len(found) if like.ndim == 5 else None
    rows = found[0] if len(found) == 1 else torch.cat(list(found), 1)
    x = layout.back(rows, (batch, heads), several)
    if x.view.is_complex() and not like.is_complex():
        x = InChunks(x.view.real, x.length)
    return x.fresh().sum(1, keepdim=True) if like.shape[1] == 1 != x.length else x

"""Systems from systems: in turn, backwards, and summed up as one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.state import State
from dsf.structure import (
    Dense,
    Diagonal,
    Elementwise,
    Identity,
    Scalar,
    Structure,
    alike,
    compose,
)
from dsf.structure.base import matmul
from dsf.system import System


def concatenate(systems: Sequence[System]) -> System:
    """One system that runs the given ones in turn: the state of each starts the next.

    All need the same timing, normaliser and kind of coupling; transitions of different kinds become
    members of their join. A system whose leaves all have T = 1 counts as one step; give a
    time-invariant one its length first, with `System.expand`.

    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 3, 1, 2)
    >>> concatenate([retnet(q, q), retnet(q, q)]).length
    6
    """
    if not systems:
        raise InvalidInput("`concatenate` takes at least one system")
    if any(system.timing == "end" for system in systems):
        raise InvalidInput("`concatenate` needs systems that read in time, not at the end")
    first = systems[0]
    for name in ("timing", "normaliser", "real_part"):
        values = [getattr(system, name) for system in systems]
        if any(value != values[0] for value in values):
            raise InvalidInput(f"`concatenate` needs systems of equal `{name}`; got {values}")
    whole = [system.expand() for system in systems]
    return System(
        _join_structures([s.transition for s in whole], [s.lead for s in whole]),
        _join_couplings([s.write for s in whole]),
        _join_couplings([s.read for s in whole]),
        feedthrough=_join_feedthrough(whole),
        offset=_join_optional([s.offset for s in whole], "offset"),
        timing=first.timing,
        normaliser=first.normaliser,
        log_write=_join_optional([s.log_write for s in whole], "log_write"),
        real_part=first.real_part,
    )


def adjoint(system: System) -> System:
    r"""The system that maps cotangents to cotangents, on time-reversed sequences.

    For y = Φ u it computes du = Φᴴ dy: run it on `dy.flip(1)` from the cotangent of the final
    memory; its outputs flipped back are du, its final memory the cotangent of the initial memory.
    With μ_i the cotangent of h_{i-1}, μ_i = Λ_iᴴ (μ_{i+1} + C_iᴴ dy_i), du_i = B_iᴴ (μ_{i+1} + C_iᴴ dy_i).

    Raises `InvalidInput` for a normaliser (move it into the read-out first, `dsf.gauges`), for
    several writes or read-outs per step, and for packed systems.

    >>> import dsf
    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 3, 1, 1)
    >>> backward = adjoint(retnet(q, q, decay=torch.tensor([0.5])))
    >>> dsf.run(backward, torch.ones(1, 3, 1, 1))[0].flip(1).flatten()
    tensor([1.7500, 1.5000, 1.0000])
    """
    _check_adjoint(system)
    reverse = system.map(lambda x: (x.conj() if x.is_complex() else x).flip(1))
    transition = reverse.transition.transpose()
    read = reverse.write.transpose()
    write = reverse.read.transpose()
    direct = None if reverse.feedthrough is None else reverse.feedthrough.transpose()
    if system.timing == "after":
        through = _through(reverse.write, reverse.read)
        if system.real_part:
            through = through.map(lambda leaf, _: leaf.real)
        direct = through if direct is None else _sum_direct(direct, through, system)
        write = _carried(transition, write)
    return replace(
        reverse,
        transition=transition,
        write=write,
        read=read,
        feedthrough=direct,
        offset=None,
        timing="before",
    )


def _check_adjoint(system: System) -> None:
    several = [getattr(c, "several", None) for c in (system.write, system.read)]
    for problem, remedy in (
        (
            system.normaliser is not None,
            "a normaliser: use `dsf.gauges.normaliser_into_read` first",
        ),
        (
            several != [None, None],
            "several writes or read-outs per step: give each a step of its own",
        ),
        (system.timing == "end", "timing 'end': transpose the last read-out by hand"),
        (system.boundaries is not None, "packed sequences: use `dsf.packing.unpack` first"),
    ):
        if problem:
            raise InvalidInput(f"`adjoint` does not take {remedy}")


def _through(write: Coupling, read: Coupling) -> Structure:
    """(C B)ᵀ of one step as a map on tokens."""
    if isinstance(write, DenseCoupling):
        product = matmul(read.weights, write.weights).transpose(-1, -2)
        if product.shape[-1] != product.shape[-2]:
            raise InvalidInput("`adjoint` of dense couplings needs as many outputs as inputs")
        return Dense(product)
    if isinstance(write, OuterCoupling) and isinstance(read, OuterCoupling):
        return Scalar((write.weights * read.weights).sum(-1))
    b, c = (
        x.weights[..., None] if isinstance(x, OuterCoupling) else x.weights for x in (write, read)
    )
    return Diagonal((b * c).sum(-2))


def _sum_direct(first: Structure, second: Structure, system: System) -> Structure:
    size = first.key_size or second.key_size or system.value_size
    if isinstance(first, Scalar | Identity) and isinstance(second, Scalar):
        one = second.decay.new_ones(()) if isinstance(first, Identity) else first.decay
        return Scalar(one + second.decay)
    if size is None:
        raise InvalidInput(
            "`adjoint` cannot add a feedthrough of unknown size; give it as Diagonal"
        )
    return Dense(first.dense(size) + second.dense(size))


def _carried(transition: Structure, write: Coupling) -> Coupling:
    """Λ b as a coupling: what a write becomes when the transition follows it."""
    if isinstance(write, OuterCoupling) and not isinstance(transition, Elementwise):
        return OuterCoupling(transition.apply(write.weights[..., None])[..., 0])
    weights = write.weights[..., None] if isinstance(write, OuterCoupling) else write.weights
    moved = transition.apply(weights)
    return DenseCoupling(moved) if isinstance(write, DenseCoupling) else ChannelCoupling(moved)


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of time as one affine map of states: h ↦ Λ h + local, an element of a monoid."""

    transition: Structure
    state: State

    def then(self, later: Piece) -> Piece:
        """This piece followed by `later`: (Λ₂Λ₁, Λ₂ h₁ + h₂)."""
        return Piece(compose(later.transition, self.transition), later.apply(self.state))

    def apply(self, state: State) -> State:
        """The state after this piece, started from `state`."""
        local = self.state
        if local.stabiliser is None:
            one = torch.ones((), dtype=local.memory.dtype.to_real(), device=local.memory.device)
            return self._merge(state, self.transition, one, None)
        assert state.stabiliser is not None
        log_decay = self.transition.leaves[0] if self.transition.leaves else torch.zeros(())
        moved = log_decay + state.stabiliser
        m = torch.maximum(moved, local.stabiliser)
        reference = torch.where(m == -torch.inf, torch.zeros_like(m), m)
        gain = torch.exp(local.stabiliser - reference)
        return self._merge(state, Scalar.from_log(moved - reference), gain, m)

    def _merge(self, state: State, transition: Structure, gain: Tensor, m: Tensor | None) -> State:
        def merged(old: Tensor, new: Tensor, *, vector: bool = False) -> Tensor:
            moved = transition.apply(old[..., None])[..., 0] if vector else transition.apply(old)
            return moved + gain.reshape(*gain.shape, *(1,) * (new.ndim - gain.ndim)) * new

        local = self.state
        memory = merged(state.memory, local.memory, vector=state.memory.ndim == 3)
        normaliser = None
        if local.normaliser is not None and state.normaliser is not None:
            normaliser = merged(state.normaliser, local.normaliser, vector=True)
        return replace(local, memory=memory, normaliser=normaliser, stabiliser=m)


def summarise(system: System, tokens: Tensor) -> Piece:
    """The whole run as one `Piece`: transition product and the state reached from nothing.

    Merging pieces of adjacent stretches gives the piece of both, so stretches can be computed
    apart: on several ranks, or ahead of knowing the initial state.
    """
    from dsf.forms import run

    _, state = run(system, tokens)
    return Piece(transition_product(system, tokens.shape[1]), state)


def transition_product(system: System, length: int) -> Structure:
    """Λ_T … Λ_1 with leading axes (B, H); structures that are not closed give a Dense one."""
    from dsf.forms.core import over_time

    batch, _, heads = system.lead

    def full(leaf: Tensor, _: int) -> Tensor:
        return over_time(leaf.expand(batch, leaf.shape[1], heads, *leaf.shape[3:]), length)

    transition = system.transition.map(full)
    if transition.leaves and type(transition).__name__ == "DPLR":
        transition = Dense(transition.dense(system.key_size))
    if length == 0:
        return Identity()
    return _fold_time(transition.whole(), length)


def _fold_time(transition: Structure, length: int) -> Structure:
    """Compose along time by halves."""
    if not transition.leaves:
        return transition
    while length > 1:
        even = transition.map(lambda leaf, _, n=length: leaf[:, 0 : n - n % 2 : 2])
        odd = transition.map(lambda leaf, _, n=length: leaf[:, 1:n:2])
        pairs = compose(odd, even)
        if length % 2:
            last = transition.map(lambda leaf, _: leaf[:, -1:])
            pairs = pairs.rebuild(
                tuple(torch.cat([x, y], 1) for x, y in zip(pairs.leaves, last.leaves, strict=True))
            )
        transition, length = pairs, (length + 1) // 2
    return transition.map(lambda leaf, _: leaf[:, 0])


# -- joining along time ---------------------------------------------------------------------------


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    batch = max(x.shape[0] for x in tensors)
    heads = max(x.shape[2] for x in tensors)
    return torch.cat([x.expand(batch, x.shape[1], heads, *x.shape[3:]) for x in tensors], 1)


def _join_structures(parts: Sequence[Structure], leads: Sequence[torch.Size]) -> Structure:
    same = alike(parts)

    def stretched(structure: Structure, lead: torch.Size) -> Structure:
        return structure.map(lambda leaf, _: leaf.expand(leaf.shape[0], lead[1], *leaf.shape[2:]))

    whole = [stretched(s, lead) for s, lead in zip(same, leads, strict=True)]
    leaves = zip(*(s.leaves for s in whole), strict=True)
    return whole[0].rebuild(tuple(_joined(group) for group in leaves))


def _join_couplings(parts: Sequence[Coupling]) -> Coupling:
    if len({type(c) for c in parts}) > 1:
        parts = [c.whole() for c in parts]
    kinds = {(type(c), *(x.shape[3:] for x in c.tensors)) for c in parts}
    if len(kinds) > 1:
        raise InvalidInput("`concatenate` needs couplings of one kind and size")
    groups = zip(*(c.tensors for c in parts), strict=True)
    return parts[0].rebuild(tuple(_joined(group) for group in groups))


def _join_feedthrough(systems: Sequence[System]) -> Structure | None:
    parts = [s.feedthrough for s in systems]
    if all(part is None for part in parts):
        return None
    like = systems[0].write.tensors[0]
    filled = [Scalar(like.new_zeros((1, 1, 1))) if part is None else part for part in parts]
    return _join_structures(filled, [s.lead for s in systems])


def _join_optional(parts: Sequence[Tensor | None], name: str) -> Tensor | None:
    given = [part for part in parts if part is not None]
    if not given:
        return None
    if len(given) != len(parts):
        raise InvalidInput(f"`concatenate` needs `{name}` in all systems or in none")
    return _joined(given)

"""Error bounds of a run: `dsf.numerics` applied to a system, a form and a precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, DenseCoupling, ScaledCoupling
from dsf.numerics import EPSILON, Roundings, smallest, unit_roundoff
from dsf.state import State
from dsf.structure import DPLR, Discretised, Gate, Identity, Scalar, Structure
from dsf.system import System

from .base import Form
from .core import Core, accumulator
from .lowering import Lowered, largest_exponent, lower
from .plain import loop
from .selection import named, sizes_of
from .spread import around, energy, pull


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of a run, float64, each to be broadcast against what it bounds.

    `outputs`; `memory` and `normaliser` of the final state; and, where cotangents were given,
    `gradients` of the leaves of Λ, of B, C, the tokens, the initial memory, in this order.
    """

    outputs: Tensor
    memory: Tensor
    normaliser: Tensor | None
    gradients: tuple[Tensor, ...] = ()


def error_bound(
    system: System,
    tokens: Tensor,
    state: State | None = None,
    *,
    form: Form | str,
    cotangents: tuple[Tensor, Tensor] | None = None,
) -> Bounds:
    r"""How far a run of `form` in the precision of these tensors can be from the exact result.

    The exact result is that of the given tensors, taken as exact. `cotangents` (dy, dh) ask for
    bounds of the gradients of Σ dy y + Σ dh h_T; they are for systems without normaliser.
    """
    chosen = named(form)
    precision = accumulator(_precision(system, tokens, state))
    u = unit_roundoff(precision)
    lowered = lower(_double(system), _wide(tokens), None if state is None else state.map(_wide))
    roundings = chosen.roundings(system, sizes_of(system, tokens))
    paths = _Paths(lowered, roundings)
    outputs, memory = paths.difference(u)
    if roundings.spread:
        outputs = outputs + u * roundings.spread * energy(lowered.core)
    floor = smallest(precision) * 64.0
    outputs, memory = outputs + floor, memory + floor
    outputs, normaliser = _finish(lowered, outputs, memory, u), None
    if system.normaliser is not None:
        memory, normaliser = memory[..., :-1], memory[..., -1]
    rounded = unit_roundoff(tokens.dtype) * (
        _size_of_result(lowered, outputs) + smallest(tokens.dtype)
    )
    outputs = outputs + floor + 2 * rounded
    gradients = () if cotangents is None else _gradients(paths, cotangents, u, floor)
    memory = memory[..., 0] if system.is_vector else memory
    return Bounds(outputs, memory, normaliser, gradients)


class _Paths:
    """The recurrence on absolute values (or norms), with inflated factors."""

    def __init__(self, lowered: Lowered, roundings: Roundings) -> None:
        self.given, self.core, self.roundings = lowered.core, _whole(lowered.core), roundings
        self.entrywise = isinstance(self.core.transition, Gate | Identity)
        self.write_error = _gauge_error(lowered)
        self.gate_error = _gate_error(lowered)
        leaves = [x.detach() for x in (*self.core.tensors, self.core.memory)]
        self.leaves = [self._size(i, x) for i, x in enumerate(leaves)]

    def _size(self, index: int, leaf: Tensor) -> Tensor:
        """Absolute values, or norms of the vectors and matrices that a leaf is made of."""
        core, count = self.core, len(self.core.tensors)
        transition = index < count - 3
        if self.entrywise:
            gate = core.transition
            return gate.decay.abs() if transition and isinstance(gate, Gate) else leaf.abs()
        if transition:
            exact = core.transition
            if index == 0 and isinstance(exact, DPLR) and isinstance(exact.gate, Gate):
                leaf = exact.gate.decay  # where the leaf may be its logarithm
            if leaf.ndim == 3:
                return leaf.abs()
            return torch.linalg.vector_norm(leaf.flatten(3), dim=-1)
        couplings = {count - 3: core.write, count - 2: core.read}
        matrix = index == count or isinstance(couplings.get(index), DenseCoupling | ChannelCoupling)
        return torch.linalg.vector_norm(leaf, dim=(-2, -1) if matrix else -1, keepdim=True)

    def run(
        self, leaves: list[Tensor], epsilon: float, doubled: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Outputs and memory of the inflated recurrence."""
        core = self.inflated(leaves, epsilon * doubled)
        outputs, final = loop(core)
        exact, spread = self.core.transition, self.roundings.spread
        if spread and isinstance(exact, DPLR) and core.length:
            assert isinstance(core.transition, Scalar)
            norm = core.transition.decay
            outputs = outputs + around(exact, leaves[:-4], norm, core, spread, epsilon * doubled)
        return outputs, final * (1 + self.roundings.path * epsilon * doubled)

    def inflated(self, leaves: list[Tensor], epsilon: float) -> Core:
        """The core of these sizes, each factor inflated."""
        step, path = (x * epsilon for x in (self.roundings.step, self.roundings.path))
        *gates, write, read, tokens, memory = leaves
        gate_error = epsilon * self.gate_error
        transition = self._transition(gates, step, gate_error)
        gained = epsilon * self.write_error
        gained = gained.reshape(*gained.shape, *(1,) * (write.ndim - gained.ndim))
        return Core(
            transition,
            type(self.core.write)(write * (1 + gained)),
            type(self.core.read)(read * (1 + path)),
            tokens,
            memory,
        )

    def _transition(self, gates: list[Tensor], step: float, gate_error: Tensor) -> Structure:
        exact = self.core.transition
        if isinstance(exact, Identity):
            heads = self.core.memory.shape[1]
            return Scalar((1 + step) * gate_error.new_ones((1, 1, heads)))
        if isinstance(exact, Gate):
            extra = gate_error
            if extra.ndim == 3:
                extra = extra.reshape(*extra.shape, *(1,) * exact.own_axes)
            return type(exact)(value=gates[0] * (1 + step + extra))
        norm, growth = exact.norm().detach(), exact.growth().detach()
        if any(g.requires_grad for g in gates):
            reach = _reach(exact, gates)  # what a change of a leaf can change at most
            norm, growth = (x + reach - reach.detach() for x in (norm, growth))
        return Scalar(norm + step * growth)

    def of_factors(self, place: int, bound: Tensor, size: Tensor, u: float) -> list[Tensor]:
        """The bound for leaf `place`, or for the factors that it is a product of in the core as given.

        `size` is what the gradient of the product is at most; sums over what a factor is shared by round too.
        """
        given, count = self.given, len(self.core.tensors)
        if place == 0 and isinstance(given.transition, Discretised):
            sizes = [x.abs() for x in given.transition.leaves]
            products = (sizes[1], sizes[0])
        elif place == count - 3 and isinstance(given.write, ScaledCoupling):
            keys, gains = (x.abs() for x in given.write.tensors)
            if not self.entrywise:  # one size for all keys and values
                keys, gains = (
                    torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (keys, gains)
                )
            sizes = [keys[..., :, None], gains[..., None, :]]
            products = (sizes[1], sizes[0])
        else:
            return [bound]
        found = []
        for own, other in zip(sizes, products, strict=True):
            shared = [
                i for i, (a, b) in enumerate(zip(own.shape, size.shape, strict=True)) if a < b
            ]
            terms = math.prod(size.shape[i] for i in shared)
            if not self.entrywise:
                terms = max(x.shape[-1] for x in given.write.tensors)
            whole = bound * other + u * (4 + terms) * size * other
            found.append(whole.sum(shared, keepdim=True) if shared else whole)
        if place:
            found = [found[0][..., 0], found[1][..., 0, :]]
        return found

    def difference(self, u: float) -> tuple[Tensor, Tensor]:
        """(u/ε)(F_ε - F_0) for outputs and memory."""
        inflated, plain = self.run(self.leaves, EPSILON), self.run(self.leaves, 0.0)
        return tuple((a - b) * (u / EPSILON) for a, b in zip(inflated, plain, strict=True))  # type: ignore[return-value]


def _reach(exact: Structure, gates: list[Tensor]) -> Tensor:
    """How far Λ moves with its leaves: Σ of products of norms."""
    if isinstance(exact, DPLR):
        low_rank = gates[-1] * gates[-2]
        if not exact.gate.leaves:
            return low_rank
        gate = gates[0].amax(-1) if gates[0].ndim == 4 else gates[0]
        return low_rank + gate
    return gates[0]


def _gauge_error(lowered: Lowered) -> Tensor:
    """Extra roundings of gates that are exponentials of differences of m (B, T, H), else 0."""
    m = lowered.stabilisers
    if m is None:
        return lowered.core.memory.abs().new_zeros((1, 1, 1))
    size = torch.where(torch.isfinite(m), m, torch.zeros_like(m)).abs()
    before = torch.cat([torch.zeros_like(size[:, :1]), size[:, :-1]], 1)[:, : m.shape[1]]
    return 8 * (1 + size + before)


def _whole(core: Core) -> Core:
    """The core with transitions and couplings that are held in factors multiplied out."""
    return replace(
        core,
        transition=core.transition.whole(),
        write=core.write.whole(),
        read=core.read.whole(),
    )


def _gate_error(lowered: Lowered) -> Tensor:
    """Extra roundings of the gates: of a product of step and rate under an exponential, or of a gauge."""
    gate = lowered.core.transition
    if not isinstance(gate, Discretised):
        return _gauge_error(lowered)
    size = gate.log.abs()
    return torch.where(torch.isfinite(size), size, torch.zeros_like(size))


def _finish(lowered: Lowered, outputs: Tensor, memory: Tensor, u: float) -> Tensor:
    """Carry the core's bounds through read timing, division, D and the offset."""
    system = lowered.system
    read = system.read.map(lambda x: x.abs())
    if system.timing == "end":
        outputs = _extract_bound(read, memory[:, None], lowered)
    elif system.timing == "before" and outputs.shape[1]:
        start = lowered.core.memory.abs()[:, None] * u * 4 * system.key_size
        first = _extract_bound(read.map(lambda x: x[:, :1]), start, lowered)
        later = outputs[:, :-1].expand(*outputs[:, :-1].shape[:-1], first.shape[-1])
        outputs = torch.cat([first, later], 1)
    if system.normaliser is not None:
        outputs = _quotient(lowered, outputs, u)
    if system.feedthrough is not None:
        width = lowered.tokens.shape[-1]
        size = system.feedthrough.map(lambda x, _: x.abs()).dense(width)
        direct = torch.einsum(
            "...vw,...w->...v", size.to(lowered.tokens.abs().dtype), lowered.tokens.abs()
        )
        outputs = outputs + 4 * u * direct * width
    if system.offset is not None:
        outputs = outputs + 2 * u * system.offset.abs()
    return outputs


def _extract_bound(read: Coupling, memory: Tensor, lowered: Lowered) -> Tensor:
    if (
        memory.shape[-2] == 1
        and read.weights.shape[-1] != 1
        and not isinstance(lowered.core.transition, Gate | Identity)
    ):
        memory = memory.expand(*memory.shape[:-2], read.weights.shape[-1], memory.shape[-1])
    batch, heads = lowered.core.memory.shape[:2]
    return read.map(lambda x: x.expand(batch, x.shape[1], heads, *x.shape[3:])).extract(memory)


def _quotient(lowered: Lowered, outputs: Tensor, u: float) -> Tensor:
    """The bound of a numerator over η, in relative terms, since η may be near the largest number."""
    exact = lowered.read_out(*loop(lowered.core))
    numerator, eta = exact[..., :-1], lowered.denominator(exact[..., -1:]).abs()
    relative = outputs[..., -1:] / eta + _floor_error(lowered, eta, u)
    spread = outputs if outputs.shape[-1] == 1 else outputs[..., :-1]
    quotient = (numerator / eta).abs()
    bound = (spread / eta + quotient * relative) / (1 - relative).clamp_min(0) + 2 * u * quotient
    if lowered.stabilisers is None:
        return bound
    return bound + numerator.abs() * torch.exp(torch.tensor(-largest_exponent(_type_of(u))))


def _type_of(u: float) -> torch.dtype:
    return torch.float64 if u == unit_roundoff(torch.float64) else torch.float32


def _floor_error(lowered: Lowered, eta: Tensor, u: float) -> Tensor:
    """The relative error of floor · e^{-m}."""
    m, normaliser = lowered.stabilisers, lowered.system.normaliser
    if m is None or normaliser is None or normaliser.floor is None or not m.shape[1]:
        return torch.zeros_like(eta)
    size = torch.where(torch.isfinite(m), m, torch.zeros_like(m)).abs().amax(1, keepdim=True)
    return u * 4 * (1 + size.reshape(*size.shape, *(1,) * (eta.ndim - 3))).expand_as(eta)


def _size_of_result(lowered: Lowered, bound: Tensor) -> Tensor:
    """|y| + its bound: what the last rounding to the tokens' type is relative to."""
    exact, _ = lowered.finish(*loop(lowered.core))
    return exact.abs() + bound


def _gradients(
    paths: _Paths, cotangents: tuple[Tensor, Tensor], u: float, floor: float
) -> tuple[Tensor, ...]:
    """(u/ε)(∇F_ε - ∇F_0) per leaf; twice the roundings, since a gradient path is walked twice."""
    sizes = [_cotangent_size(paths, x) for x in cotangents]
    found = []
    for epsilon in (EPSILON, 0.0):
        leaves = [x.clone().requires_grad_() for x in paths.leaves]
        outputs, memory = paths.run(leaves, epsilon, doubled=4.0)
        total = (outputs * sizes[0]).sum() + (memory * sizes[1]).sum()
        total = total * (1 + epsilon * 4 * paths.roundings.path)
        found.append(torch.autograd.grad(total, leaves, allow_unused=True))
    spread = _spread(paths, sizes[0], u)
    bounds = []
    for i, (inflated, plain) in enumerate(zip(*found, strict=True)):
        if inflated is None or plain is None:
            none = torch.full_like(paths.leaves[i], floor)
            bounds += paths.of_factors(i, none, torch.zeros_like(none), u)
            continue
        bound = (inflated - plain) * (u / EPSILON) + floor + spread[i]
        gate = paths.core.transition
        if i == 0 and isinstance(gate, Gate) and gate.log is not None:
            plain = plain * paths.leaves[0]
            bound = bound * paths.leaves[0] + u * 4 * plain
        elif i == 0 and isinstance(gate, DPLR) and gate.gate.leaves:
            bound = bound * paths.leaves[0].clamp_min(1)  # d/d log a = a d/da
        bounds += paths.of_factors(i, bound, plain, u)
    return tuple(bounds)


def _spread(paths: _Paths, cotangent: Tensor, u: float) -> list[Tensor | float]:
    """What Fourier transforms err by in the gradient of each leaf, where the form makes any."""
    if not paths.roundings.spread:
        return [0.0] * len(paths.leaves)
    leaves = [x.clone().requires_grad_() for x in paths.leaves]
    total = u * paths.roundings.spread * pull(paths.inflated(leaves, 0.0), cotangent)
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [0.0 if x is None else x for x in found]


def _cotangent_size(paths: _Paths, cotangent: Tensor) -> Tensor:
    size = cotangent.abs().to(torch.float64)
    if paths.entrywise:
        return size
    if cotangent.ndim == 4 and cotangent.shape == paths.core.memory.shape:
        return torch.linalg.vector_norm(size, dim=(-2, -1), keepdim=True)
    return torch.linalg.vector_norm(size, dim=-1, keepdim=True)


def _precision(system: System, tokens: Tensor, state: State | None) -> torch.dtype:
    dtype = torch.promote_types(system.dtype, tokens.dtype).to_real()
    if system.log_write is not None:
        dtype = torch.promote_types(dtype, system.log_write.dtype)
    return dtype if state is None else torch.promote_types(dtype, state.memory.dtype.to_real())


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)


def _double(system: System) -> System:
    return replace(system.map(_wide))

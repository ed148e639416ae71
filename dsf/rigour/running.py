r"""The running error estimate: the root-mean-square twin of the running error bound.

`dsf.error_bound` adds up the worst case of every rounding, and is a proof. Here each rounding is an
independent error of standard deviation u/√3 relative to the number that is rounded, and variances
are carried instead of bounds:

    V_i = Λ_i V_{i-1} Λ_iᴴ + s (u²/3) (|Λ_i h_{i-1}|² + |h_i|²)/2,
    Var y_i = C_i V_i C_iᴴ + p (u²/3) (Σ_k |c_k h_k|² + |y_i|²)/2,

with s and p the form's own counts of roundings (and, for an FFT, its count relative to the whole
sequence). The one rounding of e^{log λ} of a gate that is constant in time is the same error at every
step, so it is carried along as a sensitivity ∂h/∂λ. Three standard deviations are a sharp alarm and
no proof: roundings of one sign (stagnation, as of a bfloat16 state) break the independence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, DenseCoupling, OuterCoupling
from dsf.forms import bounds
from dsf.forms.base import Form
from dsf.forms.core import Core, accumulator, over_time
from dsf.forms.lowering import Lowered, lower
from dsf.forms.plain import loop
from dsf.forms.selection import named, sizes_of
from dsf.forms.spread import energy
from dsf.numerics import Roundings, unit_roundoff
from dsf.state import State
from dsf.structure import Discretised, Gate, Identity, Structure
from dsf.system import System


@dataclass(frozen=True, eq=False)
class Deviations:
    """Standard deviations of the rounding errors of a run, float64: outputs as a run's, memory as a state's."""

    outputs: Tensor
    memory: Tensor


def error_deviation(
    system: System, tokens: Tensor, state: State | None = None, *, form: Form | str
) -> Deviations:
    r"""How large the rounding errors of `form` typically are, in the precision of these tensors.

    Work of one recurrent run in float64, times K where transitions mix keys. For a normaliser the
    final memory's deviation is that of the numerator.

    >>> import dsf
    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 1000, 1, 1)
    >>> system = retnet(q, q, decay=torch.tensor([0.999]))
    >>> sigma = error_deviation(system, q, form="recurrent").outputs
    >>> bound = dsf.error_bound(system, q, form="recurrent").outputs
    >>> bool((3 * sigma < bound / 5)[:, 500:].all())
    True
    """
    chosen = named(form)
    u = unit_roundoff(accumulator(_precision(system, tokens, state)))
    wide = _Wide(system, tokens, state)
    roundings = chosen.roundings(system, sizes_of(system, tokens))
    outputs, variances, memory = _carried(wide, roundings, u)
    if roundings.spread:  # an FFT rounds relative to the whole sequence
        variances = variances + u**2 / 3 * roundings.spread * energy(wide.core) ** 2
    outputs, variances = _divided(wide, outputs, variances, u)
    exact, _ = wide.lowered.finish(*loop(wide.core))
    if system.feedthrough is not None:
        direct = system.feedthrough.map(lambda x, _: x.abs().to(torch.float64) ** 2)
        squares = wide.lowered.tokens.abs().to(torch.float64) ** 2
        passed = torch.einsum("...vw,...w->...v", direct.dense(squares.shape[-1]), squares)
        variances = variances + 2 * u**2 / 3 * passed
    size = exact.abs().to(torch.float64) ** 2
    stored = unit_roundoff(tokens.dtype) ** 2 / 3 * size
    values = memory.shape[-1] - (system.normaliser is not None)
    memory = memory[..., :values].sqrt()
    return Deviations((variances + stored).sqrt(), memory[..., 0] if system.is_vector else memory)


class _Wide:
    """The lowered system in float64, and its transition with linear gates."""

    def __init__(self, system: System, tokens: Tensor, state: State | None) -> None:
        self.system = system.map(_double)
        given = None if state is None else state.map(_double)
        self.lowered: Lowered = lower(self.system, _double(tokens), given)
        self.core: Core = self.lowered.core
        self.linear = self.core.transition.linear()
        self.gates = isinstance(self.core.transition, Gate | Identity)
        self.gate_error = _gauge_error(self.lowered)


def _carried(wide: _Wide, roundings: Roundings, u: float) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs before any division with their variances, (B, T, H, …), and the final memory's."""
    core, system = wide.core, wide.system
    unit = u**2 / 3
    memory = core.memory
    spread = torch.zeros_like(memory.abs())
    covariance = None if wide.gates else _diagonal(spread)
    increments = over_time(core.write.inject(core.tokens), core.length).unbind(1)
    leaves = [over_time(leaf, core.length).unbind(1) for leaf in wide.linear.leaves]
    reads = _at_reads(system, core.length)
    repeated = _repeated(core)
    slope = torch.zeros_like(memory)
    found: list[tuple[Tensor, Tensor]] = []
    for t, increment in enumerate(increments):
        transition = wide.linear.rebuild(tuple(leaf[t] for leaf in leaves))
        if system.timing == "before":
            found.append(_read(reads[t], memory, spread, covariance, roundings.path * unit, slope))
        moved = transition.apply(memory)
        if repeated:  # two roundings of the exponential, one of its argument
            slope = transition.apply(slope) + 3 * unit**0.5 * moved
        terms = moved.abs() ** 2 if wide.gates else _squares(transition, memory)
        memory = moved + increment
        extra = wide.gate_error[:, t] if wide.gate_error.shape[1] > 1 else wide.gate_error[:, 0]
        extra = extra if extra.ndim == 4 else extra[..., None, None]
        rounded = roundings.step + extra**2
        noise = unit * rounded * (terms + memory.abs() ** 2 + increment.abs() ** 2) / 2
        if covariance is None:
            spread = transition.map(lambda x, _: x.abs() ** 2).apply(spread) + noise
        else:
            covariance = _conjugated(transition, covariance) + _diagonal(noise)
            spread = _variances(covariance)
        if system.timing == "after":
            found.append(_read(reads[t], memory, spread, covariance, roundings.path * unit, slope))
    if system.timing == "end":
        found = [_read(c, memory, spread, covariance, roundings.path * unit, slope) for c in reads]
    spread = spread + slope.abs() ** 2
    if not found:
        empty = core.empty_outputs()
        return empty, empty.abs(), spread
    return torch.stack([y for y, _ in found], 1), torch.stack([v for _, v in found], 1), spread


def _repeated(core: Core) -> bool:
    """Whether one rounded exponential is used at every step."""
    gate = core.transition
    return isinstance(gate, Gate) and gate.log is not None and gate.log.shape[1] == 1


Read = OuterCoupling | ChannelCoupling | DenseCoupling


def _at_reads(system: System, length: int) -> list[Read]:
    read = system.read.whole()
    steps = read.weights.shape[1] if system.timing == "end" else length
    weights = over_time(read.weights, steps)
    return [type(read)(w[:, None]) for w in weights.unbind(1)]  # type: ignore[misc]


def _read(
    read: Read,
    memory: Tensor,
    spread: Tensor,
    covariance: Tensor | None,
    unit: float,
    slope: Tensor,
) -> tuple[Tensor, Tensor]:
    """y = C h and its variance, for one step."""
    sizes = memory.shape[:2]
    c = read.map(lambda x: x.expand(sizes[0], 1, sizes[1], *x.shape[3:]))
    squares = c.map(lambda x: x.abs() ** 2)
    y = c.extract(memory[:, None])[:, 0]
    terms = squares.extract(memory.abs()[:, None] ** 2)[:, 0]
    if covariance is None:
        variance = squares.extract(spread[:, None])[:, 0]
    else:
        variance = _quadratic(c, covariance)
    shared = c.extract(slope[:, None])[:, 0].abs() ** 2  # where one error moves all keys
    apart = squares.extract(slope.abs()[:, None] ** 2)[:, 0]
    return y, variance + unit * (terms + y.abs() ** 2) / 2 + torch.maximum(shared, apart)


def _quadratic(read: Read, covariance: Tensor) -> Tensor:
    """c W cᴴ per channel, for W (V, B, H, K, K)."""
    w = read.weights[:, 0].to(covariance.dtype)
    if isinstance(read, ChannelCoupling):
        return torch.einsum("bhkv,vbhkl,bhlv->bhv", w, covariance, w.conj()).real
    if isinstance(read, DenseCoupling):
        return torch.einsum("bhrk,bhkl,bhrl->bhr", w, covariance[0], w.conj()).real
    if w.ndim == 3:
        return torch.einsum("bhk,vbhkl,bhl->bhv", w, covariance, w.conj()).real
    return torch.einsum("bhrk,vbhkl,bhrl->bhrv", w, covariance, w.conj()).real


def _conjugated(transition: Structure, covariance: Tensor) -> Tensor:
    """Λ W Λᴴ: apply to the columns, then to the columns of the adjoint."""
    half = transition.apply(covariance.to(torch.promote_types(covariance.dtype, _kind(transition))))
    return transition.apply(half.mH).mH


def _kind(transition: Structure) -> torch.dtype:
    return torch.complex128 if transition.is_complex else torch.float64


def _squares(transition: Structure, memory: Tensor) -> Tensor:
    """Σ_l |Λ_kl|² |h_l|²: the squares of what is added up."""
    return transition.dense(memory.shape[-2]).abs() ** 2 @ memory.abs() ** 2


def _diagonal(spread: Tensor) -> Tensor:
    """(B, H, K, V) as diagonal matrices (V, B, H, K, K)."""
    return torch.diag_embed(spread.movedim(-1, 0))


def _variances(covariance: Tensor) -> Tensor:
    return torch.diagonal(covariance, dim1=-2, dim2=-1).real.movedim(0, -1)


def _divided(wide: _Wide, outputs: Tensor, variances: Tensor, u: float) -> tuple[Tensor, Tensor]:
    """Through the division by η: relative variances of numerator and denominator add up."""
    system = wide.system
    if system.normaliser is None:
        return outputs, variances
    eta = wide.lowered.denominator(outputs[..., -1:])
    quotient = outputs[..., :-1] / eta
    relative = variances[..., -1:] / eta.abs() ** 2 + u**2 / 3
    spread = variances[..., :-1] / eta.abs() ** 2 + quotient.abs() ** 2 * relative
    return quotient, spread


def _gauge_error(lowered: Lowered) -> Tensor:
    """Extra roundings of gates that are exponentials of differences of m (B, T, H) or of products, else 0."""
    m = lowered.stabilisers
    if isinstance(lowered.core.transition, Discretised):
        return bounds._gate_error(lowered)
    if m is None:
        return torch.zeros((1, 1, 1), dtype=torch.float64)
    size = torch.where(torch.isfinite(m), m, torch.zeros_like(m)).abs()
    return 2 * (1 + size)


def _precision(system: System, tokens: Tensor, state: State | None) -> torch.dtype:
    dtype = torch.promote_types(system.dtype, tokens.dtype).to_real()
    if system.log_write is not None:
        dtype = torch.promote_types(dtype, system.log_write.dtype)
    return dtype if state is None else torch.promote_types(dtype, state.memory.dtype.to_real())


def _double(x: Tensor) -> Tensor:
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)

r"""Changes of gauge: other states, the same map from tokens to outputs.

h̃_i = G_i h_i turns (Λ_i, B_i, C_i) into (G_i Λ_i G_{i-1}⁻¹, G_i B_i, C_i G_i⁻¹). Eigenvalues of a single Λ_i
change with the gauge; Φ, Hankel ranks and Hankel singular values do not. A normaliser can stand at
the read-out (as `System` has it), in the read-out vectors (C_i/η_i), or in the state
(Λ̃_i = η_{i-1}/η_i Λ_i): there |Λ̃| > 1 is a fact of the gauge and says nothing of stability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.forms.lowering import Lowered, lower
from dsf.forms.recurrent import Recurrent
from dsf.state import State
from dsf.structure import Diagonal, Scalar, compose
from dsf.system import Normaliser, System


def change_gauge(system: System, scale: Tensor) -> System:
    r"""The system of h̃_i = G_i h_i for diagonal G: `scale` is G_0 … G_T, (B, T+1, H) or (B, T+1, H, K).

    An initial state h₀ becomes G_0 h₀ (`scale_state`). Raises `InvalidInput` for a zero in `scale`,
    for a time-invariant system without definite length, and where a log write gate is present.
    """
    length = system.length if system.length is not None else system.lead[1]
    if scale.ndim not in (3, 4) or scale.shape[1] != length + 1:
        raise InvalidInput(
            f"`scale` must be (B, T+1, H) or (B, T+1, H, K) with T+1 = {length + 1}; got {tuple(scale.shape)}"
        )
    if bool((scale == 0).any()):
        raise InvalidInput("`scale` has a zero: a gauge must be invertible")
    if system.log_write is not None or system.boundaries is not None or system.timing == "end":
        raise InvalidInput(
            "`change_gauge` takes plain systems: no log write gate, packing or timing 'end'"
        )
    before, after = scale[:, :-1], scale[:, 1:]
    kind = Scalar if scale.ndim == 3 else Diagonal
    transition = compose(kind(after), compose(system.transition, kind(1 / before)))
    at_read = after if system.timing == "after" else before
    return replace(
        system,
        transition=transition,
        write=_scaled(system.write, after),
        read=_scaled(system.read, 1 / at_read, reads=True),
    )


def scale_state(state: State, scale: Tensor) -> State:
    """G h for one time: `scale` (B, H) or (B, H, K)."""
    keys = scale if scale.ndim == 3 else scale[..., None]
    memory = state.memory * (keys if state.memory.ndim == 3 else keys[..., None])
    return replace(
        state,
        memory=memory,
        normaliser=None if state.normaliser is None else state.normaliser * keys,
    )


def _scaled(coupling: Coupling, scale: Tensor, reads: bool = False) -> Coupling:
    keys = scale[..., None] if scale.ndim == 3 else scale
    if isinstance(coupling, OuterCoupling):
        return coupling.map(lambda x: x * (keys if x.ndim == 4 else keys[..., None, :]))
    coupling = coupling.whole()
    if isinstance(coupling, DenseCoupling) and reads:
        return coupling.map(lambda x: x * keys[..., None, :])
    assert isinstance(coupling, DenseCoupling | ChannelCoupling)
    return coupling.map(lambda x: x * keys[..., :, None])


@dataclass(frozen=True, eq=False)
class StateGauge:
    """A system whose normaliser has been moved into the state, with the η that was moved.

    `system` has no normaliser left and C h is the output. `scale` (B, T+1, H) is G = 1/η with the
    gauge of the initial state first; `original` is the normaliser that stood at the read-out.
    """

    system: System
    scale: Tensor
    original: Normaliser

    def at_read_out(self) -> System:
        """Back to the gauge of the read-out: h and n in the state, η divided out at the end."""
        eta = 1 / self.scale
        back = change_gauge(self.system, eta)
        at_read = eta[:, 1:] if back.timing == "after" else eta[:, :-1]
        read = back.read.map(lambda x: x * at_read[..., None])
        return replace(back, read=read, normaliser=self.original)


def denominators(system: System, state: State | None = None) -> Tensor:
    """η at every read-out (B, T, H), or (B, T, H, R), floor included, from an initial state."""
    if system.normaliser is None:
        raise InvalidInput("the system has no `normaliser`, so there are no denominators")
    lowered = _lowered(system, state)
    outputs, memory = Recurrent().evaluate(lowered.core)
    eta = lowered.denominator(lowered.read_out(outputs, memory)[..., -1:])
    return eta[..., 0]


def normaliser_into_read(system: System, state: State | None = None) -> System:
    """A system without normaliser that has C_i/η_i as read-out: the same outputs, linear in the tokens."""
    eta = denominators(system, state)
    plain = explicit_stabiliser(system, state)

    def divide(x: Tensor) -> Tensor:
        return x / (eta[..., None] if x.ndim == 4 or eta.ndim == 4 else eta[..., None, None])

    return replace(plain, read=plain.read.map(divide), normaliser=None)


def explicit_stabiliser(system: System, state: State | None = None) -> System:
    r"""The log write gate written out: Λ = e^{log f + m_{i-1} - m_i}, B = e^{ĩ - m_i} b, no `log_write`.

    Numerator and normaliser stand in the gauge e^{-m}; a floor would have to move with m, so the
    result has the normaliser without it. For use where the denominators are known.
    """
    if system.log_write is None:
        return system
    core = _lowered(system, state).core
    return replace(
        system,
        transition=core.transition,
        write=core.write,
        log_write=None,
        normaliser=Normaliser(),
    )


def _lowered(system: System, state: State | None) -> Lowered:
    length = system.length if system.length is not None else system.lead[1]
    shape = (1, length, 1, 1) if system.writes is None else (1, length, 1, system.writes, 1)
    values = None if state is None else replace(state, memory=state.memory[..., :1])
    dtype = system.dtype if not system.is_complex else system.dtype.to_real()
    return lower(system, torch.zeros(shape, dtype=dtype, device=system.device), values)


def normaliser_into_state(system: System, state: State | None = None) -> StateGauge:
    r"""The normaliser in the state: Λ̃_i = (η_{i-1}/η_i) Λ_i, B̃_i = B_i/η_i, C̃_i = C_i.

    An initial memory h₀ becomes G_0 h₀ (`scale_state`), with G_0 = 1 unless the read-out comes before
    the update. Raises `InvalidInput` where η vanishes or where
    several read-outs per step would each need a gauge of their own.
    """
    if isinstance(system.read, OuterCoupling) and system.read.several is not None:
        raise InvalidInput(
            "several read-outs per step have an η each; no single gauge of the state holds them"
        )
    if system.normaliser is None or system.timing == "end" or system.log_write is not None:
        raise InvalidInput(
            "`normaliser_into_state` needs a system with a normaliser that reads in time, without a log "
            "write gate (`explicit_stabiliser` writes that gate out)"
        )
    eta = denominators(system, state)
    one = torch.ones_like(eta[:, :1])
    order = [one, 1 / eta] if system.timing == "after" else [1 / eta, one]
    scale = torch.cat(order, 1)
    moved = change_gauge(replace(system, normaliser=None), scale)
    at_read = scale[:, 1:] if system.timing == "after" else scale[:, :-1]
    read = moved.read.map(lambda x: x * at_read[..., None])
    return StateGauge(replace(moved, read=read), scale, system.normaliser)

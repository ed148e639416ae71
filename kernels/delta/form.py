"""The delta family as a form of a system, for `dsf.run`: it says what it admits, and never falls back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Sizes
from dsf.forms.core import Core
from dsf.kernels.form import DEEPEST, KernelForm, depth, logs
from dsf.numerics import Roundings
from dsf.structure import DPLR, Diagonal, Identity, Scalar
from dsf.system import System

from .operator import dplr_rule
from .rows import MOST

_CHUNK, _LEVELS = 32, 5  # rows, and how often a chunk is halved


@dataclass(frozen=True)
class Delta(KernelForm):
    r"""The Triton kernels of the delta family (`dsf.kernels.dplr_rule`) on CUDA tensors, in float32.

    h_i = (D_i + P_i Q_iᵀ) h_{i-1} + Σ_r b_r u_rᵀ, D in [0, 1], of rank r with R writes, r + R at most 16. Every
    transition in a chunk of 32 rows passes sums over keys, over rows and over the levels of the inverse.
    """

    name: ClassVar[str] = "triton-delta"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not isinstance(system.transition, DPLR) or system.is_complex:
            reason = "the transition is not diagonal plus low rank, and real."
            return self.refuse(reason, "Use chunkwise, scan or recurrent.")
        if not isinstance(system.write, OuterCoupling):
            return self.refuse("it needs outer couplings.", "Use recurrent.")
        if not isinstance(system.read, OuterCoupling) or system.read.several is not None:
            return self.refuse("it needs one outer read a step.", "Use chunkwise.")
        rows = system.transition.rank + (system.writes or 1)
        if rows > MOST:
            reason = f"rank and writes of a step are {rows} rows; a chunk holds {MOST} of a step."
            return self.refuse(reason, "Use chunkwise.")
        if (refusal := self.cannot_run(system, "chunkwise")) is not None:
            return refusal
        return self._of_gate(system.transition.gate)

    def _of_gate(self, gate: Identity | Scalar | Diagonal) -> Literal[True] | Refusal:
        if isinstance(gate, Identity):
            return True
        value = gate.decay
        if bool(((value < 0) | (value > 1)).any()):
            return self.refuse("a gate lies outside of [0, 1].", "Use chunkwise.")
        return True if (refusal := self.loses_gradient(gate)) is None else refusal

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        q, k, v, a, b, g = quantities(core)
        outputs, final = dplr_rule(q, k, v, a, b, g, core.memory)
        several = core.read.several if isinstance(core.read, OuterCoupling) else None
        return (outputs if several is None else outputs[..., None, :][..., :several, :]), final

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        gate = system.transition.gate if isinstance(system.transition, DPLR) else Identity()
        inner = 4 * _CHUNK * (system.key_size + 2 * _LEVELS + 4)
        path = 4 * (system.key_size + _CHUNK) + 16 + 4 * min(_CHUNK * depth(gate), DEEPEST)
        return Roundings(step=4 + inner, path=path)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values = system.key_size, sizes.values
        rank = system.transition.rank if isinstance(system.transition, DPLR) else 0
        rows = rank + (system.writes or 1)
        per_row = _CHUNK * (4 * keys + 2 * values + 2 * _LEVELS * _CHUNK) + 3 * keys * values
        return sizes.length * sizes.sequences * rows * per_row / 1000 + 2_000_000


def quantities(core: Core) -> tuple[Tensor, ...]:
    """q, k, v, a, b and g of `dplr_rule`, constant leaves expanded along time."""
    transition = core.transition
    assert isinstance(transition, DPLR)
    assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
    lead = (core.tokens.shape[0], core.length, core.memory.shape[1])

    def wide(x: Tensor) -> Tensor:
        return x.expand(*lead, *x.shape[3:])

    q = core.read.weights
    if core.read.several is not None:  # none at all: only the final state is asked for
        q = q.new_zeros(*q.shape[:3], core.key_size)
    v = core.tokens if core.tokens.ndim == 5 else core.tokens[..., None, :]
    a, b = wide(transition.left).mT, wide(transition.right).mT
    gate = transition.gate
    g = wide(q.new_zeros(1, 1, 1)) if isinstance(gate, Identity) else wide(logs(gate))
    if g.ndim == 4:
        g = g.expand(*g.shape[:3], core.key_size)
    return wide(q), wide(core.write.stacked()), v, a, b, g

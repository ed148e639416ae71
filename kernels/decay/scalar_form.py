"""Kernels as forms of a system, for `dsf.run`: they say what they admit, and never fall back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Form, Sizes
from dsf.forms.core import Core
from dsf.kernels.library import triton_missing
from dsf.numerics import Roundings
from dsf.structure import Identity, Scalar
from dsf.system import System

from .scalar_operator import scalar_decay

_CHUNK = 64
_DEEPEST = 104.0  # e^-104 is no float32 any more, so no exponent beyond it is rounded


@dataclass(frozen=True)
class ScalarDecay(Form):
    r"""The Triton kernel of scalar decay (`dsf.kernels.scalar_decay`) on CUDA tensors, in float32.

    h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = h_iᵀ q_i. A decay e^{c_i - c_j} over a part of a chunk is right to the
    rounding of its exponent, so the roundings of a path grow with the largest |g| of the chunk, up to 104.
    """

    name: ClassVar[str] = "triton-scalar-decay"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not isinstance(system.transition, Identity | Scalar) or system.is_complex:
            return self._refuse(
                "the transition is not a real scalar.", "Use chunkwise, scan or recurrent."
            )
        single = "it needs outer couplings with one write and one read a step."
        if not isinstance(system.write, OuterCoupling) or system.writes is not None:
            return self._refuse(single, "Use chunkwise.")
        if not isinstance(system.read, OuterCoupling) or system.read.several is not None:
            return self._refuse(single, "Use chunkwise.")
        if not system.write.weights.is_cuda:
            return self._refuse("the tensors are not on a GPU.", "Move them, or use chunkwise.")
        if (missing := triton_missing()) is not None:
            return self._refuse(missing.reason, missing.remedy)
        if isinstance(system.transition, Scalar) and system.transition.value is not None:
            if bool((system.transition.value < 0).any()):
                return self._refuse("a decay is negative and has no logarithm.", "Use chunkwise.")
        return True

    def _refuse(self, reason: str, remedy: str) -> Refusal:
        return Refusal(self.name, reason, remedy)

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        length = core.length
        lead = (core.tokens.shape[0], length, core.memory.shape[1])
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        q, k, v = (
            x.expand(lead[0], length, *x.shape[2:])
            for x in (core.read.weights, core.write.weights, core.tokens)
        )
        return scalar_decay(q, k, v, _logs(core.transition, lead, v), core.memory)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        depth = 0.0
        if isinstance(system.transition, Scalar):
            logs = _logs(system.transition, None, system.transition.leaves[0])
            finite = torch.where(torch.isfinite(logs), logs, 0.0)
            depth = float(finite.abs().max()) if finite.numel() else 0.0
        inner = 4 * min(_CHUNK * depth, _DEEPEST)
        return Roundings(step=4, path=4 * (system.key_size + _CHUNK) + 16 + inner)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values = system.key_size, sizes.values
        per_step = _CHUNK * (keys + values) + 2 * keys * values
        return sizes.length * sizes.sequences * per_step / 1000 + 1_000_000


def _logs(
    transition: Identity | Scalar | object, lead: tuple[int, int, int] | None, like: Tensor
) -> Tensor:
    """Log-decays (B, T, H); the gradient of a decay given as a value passes through its logarithm."""
    if isinstance(transition, Scalar):
        logs = transition.value.log() if transition.value is not None else transition.leaves[0]
        return logs if lead is None else logs.expand(lead)
    assert lead is not None
    return like.new_zeros(lead)

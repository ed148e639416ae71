"""The kernel of scalar decay as a form of a system, for `dsf.run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Sizes
from dsf.forms.core import Core
from dsf.kernels.form import KernelForm, is_single
from dsf.numerics import Roundings
from dsf.structure import Identity, Scalar
from dsf.structure.base import Structure
from dsf.system import System

from .scalar_operator import scalar_decay

_CHUNK = 64
_DEEPEST = 104.0  # e^-104 is no float32 any more, so no exponent beyond it is rounded


@dataclass(frozen=True)
class ScalarDecay(KernelForm):
    r"""The Triton kernel of scalar decay (`dsf.kernels.scalar_decay`) on CUDA tensors, in float32.

    h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = h_iᵀ q_i. A decay e^{c_i - c_j} over a part of a chunk is right to the
    rounding of its exponent, so the roundings of a path grow with the largest |g| of the chunk, up to 104.
    """

    name: ClassVar[str] = "triton-scalar-decay"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not isinstance(system.transition, Identity | Scalar) or system.is_complex:
            return self.refuse(
                "the transition is not a real scalar.", "Use chunkwise, scan or recurrent."
            )
        if not is_single(system.write) or not is_single(system.read):
            single = "it needs outer couplings with one write and one read a step."
            return self.refuse(single, "Use chunkwise.")
        if (refusal := self.cannot_run(system, "chunkwise")) is not None:
            return refusal
        if isinstance(system.transition, Scalar) and system.transition.value is not None:
            return self._has_logarithms(system.transition.value)
        return True

    def _has_logarithms(self, decay: Tensor) -> Literal[True] | Refusal:
        if bool((decay < 0).any()):
            return self.refuse("a decay is negative and has no logarithm.", "Use chunkwise.")
        if decay.requires_grad and bool((decay == 0).any()):
            reason = "the gradient of a decay that is zero does not pass through its logarithm."
            return self.refuse(reason, "Use chunkwise, or give logarithms: Scalar.from_log.")
        return True

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        lead = (core.tokens.shape[0], core.length, core.memory.shape[1])
        none = core.read.several == 0  # every query reads the last state, and there are no outputs
        reads = core.write.weights if none else core.read.weights
        q, k, v = (
            _once(x).expand(*lead[:2], -1, -1) for x in (reads, core.write.weights, core.tokens)
        )
        outputs, final = scalar_decay(q, k, v, _logs(core.transition, lead, v), core.memory)
        return (outputs[..., None, :][..., :0, :] if none else outputs), final

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        depth = 0.0
        if isinstance(system.transition, Scalar):
            logs = _logs(system.transition, None, system.transition.leaves[0])
            finite = torch.where(torch.isfinite(logs), logs, 0.0)
            depth = float(finite.abs().max()) if finite.numel() else 0.0
        if system.log_write is not None:  # the stabiliser moves decays to any size
            depth = _DEEPEST
        inner = 4 * min(_CHUNK * depth, _DEEPEST)
        return Roundings(step=4, path=4 * (system.key_size + _CHUNK) + 16 + inner)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values = system.key_size, sizes.values
        per_step = _CHUNK * (keys + values) + 2 * keys * values
        return sizes.length * sizes.sequences * per_step / 1000 + 1_000_000


def _once(x: Tensor) -> Tensor:
    """One head of what all heads share, so that the kernel reads it in its place: no head is copied."""
    return x[:, :, :1] if x.stride(2) == 0 else x


def _logs(transition: Structure, lead: tuple[int, int, int] | None, like: Tensor) -> Tensor:
    """Log-decays (B, T, H); the gradient of a decay given as a value passes through its logarithm."""
    if isinstance(transition, Scalar):
        logs = transition.value.log() if transition.value is not None else transition.leaves[0]
        return logs if lead is None else logs.expand(lead)
    assert lead is not None
    return like.new_zeros(lead)

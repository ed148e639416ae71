"""What kernels of decays share as forms of `dsf.run`: what they admit, and how a system becomes their tensors."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Form
from dsf.forms.core import Core
from dsf.kernels.library import triton_missing
from dsf.structure import Diagonal, Identity, Scalar
from dsf.system import System

CHUNK = 64  # the most steps of a tile
DEEPEST = 104.0  # e^-104 is no float32 any more, so no exponent beyond it is rounded

Decay = Identity | Scalar | Diagonal


class DecayForm(Form):
    """A kernel h_i = Λ_i h_{i-1} + k_i v_iᵀ, y_i = h_iᵀ q_i on CUDA tensors, where Λ is one of `admitted`."""

    admitted: ClassVar[tuple[type[Decay], ...]]
    kind: ClassVar[str]

    @abstractmethod
    def kernel(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs and final memory for log-decays g (B, T, H) or (B, T, H, K)."""

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not isinstance(system.transition, self.admitted) or system.is_complex:
            reason = f"the transition is not {self.kind}."
            return self._refuse(reason, "Use chunkwise, scan or recurrent.")
        single = "it needs outer couplings with one write and one read a step."
        if not isinstance(system.write, OuterCoupling) or system.writes is not None:
            return self._refuse(single, "Use chunkwise.")
        if not isinstance(system.read, OuterCoupling) or system.read.several is not None:
            return self._refuse(single, "Use chunkwise.")
        if not system.write.weights.is_cuda:
            return self._refuse("the tensors are not on a GPU.", "Move them, or use chunkwise.")
        if (missing := triton_missing()) is not None:
            return self._refuse(missing.reason, missing.remedy)
        return self._logarithm(system.transition)

    def _logarithm(self, transition: object) -> Literal[True] | Refusal:
        """Whether decays given as values have a logarithm, and a gradient through it."""
        value = getattr(transition, "value", None)
        if value is None:
            return True
        if bool((value < 0).any()):
            return self._refuse("a decay is negative and has no logarithm.", "Use chunkwise.")
        if value.requires_grad and bool((value == 0).any()):
            reason = "a decay of zero loses its gradient in the logarithm."
            return self._refuse(reason, "Use chunkwise, or give the logarithm, -inf.")
        return True

    def _refuse(self, reason: str, remedy: str) -> Refusal:
        return Refusal(self.name, reason, remedy)

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        assert isinstance(core.transition, Decay)
        batch, heads = core.memory.shape[:2]
        q, k, v = (
            x.expand(batch, core.length, *x.shape[2:])
            for x in (core.read.weights, core.write.weights, core.tokens)
        )
        keys = (core.key_size,) if isinstance(core.transition, Diagonal) else ()
        lead = (batch, core.length, heads, *keys)
        g = v.new_zeros(lead)
        if not isinstance(core.transition, Identity):
            g = logs(core.transition).expand(lead)
        return self.kernel(q, k, v, g, core.memory)


def logs(gate: Scalar | Diagonal) -> Tensor:
    """Log-decays; the gradient of a decay given as a value passes through its logarithm."""
    return gate.leaves[0] if gate.value is None else gate.value.log()


def depth(transition: object) -> float:
    """The largest |log| of a decay, exact zeros apart, up to where float32 ends."""
    if not isinstance(transition, Scalar | Diagonal):
        return 0.0
    sizes = logs(transition).detach().abs()
    finite = torch.where(torch.isfinite(sizes), sizes, 0.0)
    return min(DEEPEST, float(finite.max())) if finite.numel() else 0.0

"""What kernels of decays share as forms of `dsf.run`: what they admit, and how a system becomes their tensors."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.core import Core
from dsf.kernels.form import DEEPEST, KernelForm, depth, is_single, logs
from dsf.structure import Diagonal, Identity, Scalar
from dsf.structure.base import Structure
from dsf.system import System

CHUNK = 64  # the most steps of a tile

Decay = Identity | Scalar | Diagonal


class DecayForm(KernelForm):
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
            return self.refuse(reason, "Use chunkwise, scan or recurrent.")
        if not is_single(system.write) or not is_single(system.read):
            single = "it needs outer couplings with one write and one read a step."
            return self.refuse(single, "Use chunkwise.")
        if (refusal := self.cannot_run(system, "chunkwise")) is not None:
            return refusal
        return self._logarithm(system.transition)

    def _logarithm(self, transition: Structure) -> Literal[True] | Refusal:
        """Whether decays given as values have a logarithm, and a gradient through it."""
        value = getattr(transition, "value", None)
        if value is None:
            return True
        if bool((value < 0).any()):
            return self.refuse("a decay is negative and has no logarithm.", "Use chunkwise.")
        return True if (refusal := self.loses_gradient(transition)) is None else refusal

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        assert isinstance(core.transition, Decay)
        batch, heads = core.memory.shape[:2]
        none = core.read.several == 0  # every query reads the last state, and there are no outputs
        reads = core.write.weights if none else core.read.weights
        q, k, v = (
            _once(x).expand(batch, core.length, -1, -1)
            for x in (reads, core.write.weights, core.tokens)
        )
        keys = (core.key_size,) if isinstance(core.transition, Diagonal) else ()
        lead = (batch, core.length, heads, *keys)
        g = v.new_zeros(lead)
        if not isinstance(core.transition, Identity):
            g = logs(core.transition).expand(lead)
        outputs, final = self.kernel(q, k, v, g, core.memory)
        return (outputs[..., None, :][..., :0, :] if none else outputs), final


def _once(x: Tensor) -> Tensor:
    """One head of what all heads share, so that the kernel reads it in its place: no head is copied."""
    return x[:, :, :1] if x.stride(2) == 0 else x


def depth_of(system: System) -> float:
    """The largest |log| of a decay, exact zeros apart, up to where float32 ends: there with a stabiliser."""
    if system.log_write is not None:  # it moves decays to any size
        return DEEPEST
    return depth(system.transition)

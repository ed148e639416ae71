"""What every kernel is as a form of a system: on a GPU, in float32, and never replaced by another in silence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Form
from dsf.forms.transforms import is_transformed
from dsf.structure import Diagonal, Scalar
from dsf.structure.base import Structure
from dsf.system import System

from .library import triton_missing

DEEPEST = 104.0  # e^-104 is no float32 any more, so no exponent beyond it is rounded


@dataclass(frozen=True)
class KernelForm(Form):
    """A form that runs a Triton kernel, and says why where it cannot."""

    def refuse(self, reason: str, remedy: str) -> Refusal:
        return Refusal(self.name, reason, remedy)

    def cannot_run(self, system: System, remedy: str) -> Refusal | None:
        """Why no kernel can run on these tensors; `remedy` names the forms that can."""
        couplings = (*system.write.tensors, *system.read.tensors)
        if is_transformed(*system.transition.leaves, *couplings):
            reason = "kernels carry no tangents and no transforms of torch.func."
            return self.refuse(reason, f"Use {remedy}.")
        if not system.write.tensors[0].is_cuda:
            return self.refuse("the tensors are not on a GPU.", f"Move them, or use {remedy}.")
        if (missing := triton_missing()) is not None:
            return self.refuse(missing.reason, missing.remedy)
        gate = system.log_write
        dtypes = (system.dtype,) if gate is None else (system.dtype, gate.dtype)
        if any(dtype.to_real() == torch.float64 for dtype in dtypes):
            return self.refuse("kernels compute in float32.", f"Use {remedy}, or narrower tensors.")
        return None

    def loses_gradient(self, gate: Structure) -> Refusal | None:
        """Why a gate that a kernel takes as its logarithm would have no gradient."""
        value = getattr(gate, "value", None)
        if value is None or not value.requires_grad or not bool((value == 0).any()):
            return None
        reason = "the gradient of a decay that is zero does not pass through its logarithm."
        return self.refuse(reason, "Use chunkwise, or give the logarithm, -inf (`from_log`).")


def is_single(coupling: object) -> bool:
    """One vector a step, shared by all value channels."""
    return isinstance(coupling, OuterCoupling) and coupling.several is None


def logs(gate: Scalar | Diagonal) -> Tensor:
    """Log-decays; the gradient of a decay given as a value passes through its logarithm."""
    return gate.leaves[0] if gate.value is None else gate.value.log()


def depth(gate: Structure) -> float:
    """The largest |log| of a decay, exact zeros apart, up to where float32 ends."""
    if not isinstance(gate, Scalar | Diagonal):
        return 0.0
    sizes = logs(gate).detach().abs()
    finite = torch.where(torch.isfinite(sizes), sizes, 0.0)
    return min(DEEPEST, float(finite.max())) if finite.numel() else 0.0

"""What every kernel is as a form of a system: on a GPU, in float32, and never replaced by another in silence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsf.coupling import OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Form
from dsf.system import System

from .library import triton_missing


@dataclass(frozen=True)
class KernelForm(Form):
    """A form that runs a Triton kernel, and says why where it cannot."""

    def refuse(self, reason: str, remedy: str) -> Refusal:
        return Refusal(self.name, reason, remedy)

    def cannot_run(self, system: System, remedy: str) -> Refusal | None:
        """Why no kernel can run on these tensors; `remedy` names the forms that can."""
        if not system.write.tensors[0].is_cuda:
            return self.refuse("the tensors are not on a GPU.", f"Move them, or use {remedy}.")
        if (missing := triton_missing()) is not None:
            return self.refuse(missing.reason, missing.remedy)
        gate = system.log_write
        dtypes = (system.dtype,) if gate is None else (system.dtype, gate.dtype)
        if any(dtype.to_real() == torch.float64 for dtype in dtypes):
            return self.refuse("kernels compute in float32.", f"Use {remedy}, or narrower tensors.")
        return None


def is_single(coupling: object) -> bool:
    """One vector a step, shared by all value channels."""
    return isinstance(coupling, OuterCoupling) and coupling.several is None

"""Whether torch transforms what is computed: then only plain operations, out of place, may be used."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level  # type: ignore[attr-defined]
from torch.autograd.forward_ad import unpack_dual


def is_transformed(*tensors: Tensor) -> bool:
    """Whether a transform of `torch.func` is at work or a tensor has a tangent, which only plain operations carry."""
    if torch.compiler.is_compiling():
        return False
    if maybe_current_level() is not None:
        return True
    return any(unpack_dual(x).tangent is not None for x in tensors)


def is_followed(*tensors: Tensor) -> bool:
    """Whether autograd records what is made of these, or torch transforms it: either would miss what is in place."""
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return recorded or is_transformed(*tensors)

"""The operator of the gated scan: Triton on CUDA, the package's scan on the CPU, gradients for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dsf.errors import Refused

from . import channel_scan as scans
from . import scan_reference as reference
from .operators import triton_missing
from .shapes import Packing


def gated_scan(
    a: Tensor, b: Tensor, initial_state: Tensor | None = None, *, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""h_t = a_t h_{t-1} + b_t for every channel: all states and the last; differentiable in every tensor.

    - `a`, `b` (B, T, D): gates of any sign and what enters; float32, float16, bfloat16 or complex64 (float64 and
      complex128 on the CPU).
    - `initial_state` (N, D), zero where it is not given; `starts` (N + 1,) packs sequences into one row (B = 1).

    Returns h (B, T, D) and the last states (N, D), in float32 or complex64 (or wider, as given). CUDA tensors run
    the Triton kernel, CPU tensors the scan of `dsf.run`. A second derivative raises. Raises `InvalidInput` for
    shapes that do not fit and `Refused` on CUDA without Triton.

    Source: Martin and Cundy (arXiv 1709.04057).

    >>> import torch
    >>> from dsf.kernels import gated_scan
    >>> states, last = gated_scan(torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1))
    >>> states.flatten(), last.flatten()
    (tensor([1.0000, 1.5000, 1.7500]), tensor([1.7500]))
    """
    packing = Packing.of(a, starts, axes=3)
    state = scans.checked_gate(a, b, initial_state, packing.sequences)
    if a.dtype in (torch.float16, torch.bfloat16):
        state = state.float()
    if a.is_cuda and (missing := triton_missing()) is not None:
        raise Refused(missing)
    return torch.ops.dsf.gated_scan(a, b, state.to(_wide(a)), packing.starts)


def _wide(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_complex() or x.dtype == torch.float64 else torch.float32


@torch.library.custom_op(
    "dsf::gated_scan",
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor a, Tensor b, Tensor state, Tensor? starts) -> (Tensor, Tensor)",
)
def _on_cuda(a, b, state, starts):
    return scans.forward(scans.Quantities.of(a, b, state, starts))


@torch.library.custom_op(
    "dsf::gated_scan_backward",
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor dh, Tensor dfinal, Tensor a, Tensor h, Tensor state, Tensor? starts)"
    " -> (Tensor, Tensor, Tensor)",
)
def _backward_on_cuda(dh, dfinal, a, h, state, starts):
    return scans.backward(scans.Quantities.of(a, a, state, starts), h, dh, dfinal)


_on_cuda.register_kernel("cpu")(reference.forward)
_backward_on_cuda.register_kernel("cpu")(reference.backward)


@_on_cuda.register_fake
def _shapes(a, b, state, starts):
    return torch.empty_like(a, dtype=state.dtype), torch.empty_like(state)


@_backward_on_cuda.register_fake
def _backward_shapes(dh, dfinal, a, h, state, starts):
    return torch.empty_like(a), torch.empty_like(a), torch.empty_like(state)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    a, _, state, starts = inputs
    ctx.save_for_backward(a, output[0], state, starts)


def _differentiate(ctx: Any, dh: Tensor, dfinal: Tensor) -> tuple:
    return (*torch.ops.dsf.gated_scan_backward(dh, dfinal, *ctx.saved_tensors), None)


_on_cuda.register_autograd(_differentiate, setup_context=_keep)

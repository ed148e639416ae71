"""The operator of the selective scan: Triton on CUDA, the package's scan on the CPU, gradients for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dsf.errors import Refused

from . import selective
from . import selective_reference as reference
from .operators import triton_missing
from .shapes import Packing


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    initial_state: Tensor | None = None,
    *,
    skip: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""h_t = e^{Δ_t A} h_{t-1} + Δ_t b_t x_t, y_t = Σ_n c_t h_t + D x_t, and the last states; differentiable in all.

    - `x`, `delta` (B, T, D): tokens and steps (after softplus); float32, float16 or bfloat16 (float64 on the CPU).
    - `A` (D, N): rates. `b`, `c` (B, T, G, N) in the type of x, each shared by the channels of one of G groups.
    - `initial_state` (sequences, D, N), zero where it is not given; `skip` D (D,).
    - `starts` (sequences + 1,) packs sequences into one row of tokens (B = 1).

    Returns y (B, T, D) in the type of x and the last states in float32 (or float64). CUDA tensors run the Triton
    kernel, CPU tensors the scan of `dsf.run`; a second derivative raises. Raises `InvalidInput` for shapes that do
    not fit and `Refused` on CUDA without Triton.

    Source: Gu and Dao (arXiv 2312.00752), algorithm 2, with Euler's rule for b as in their code.

    >>> import torch
    >>> from dsf.kernels import selective_scan
    >>> ones = torch.ones(1, 3, 1)
    >>> half, many = torch.full((1, 1), 0.5).log(), ones[..., None]
    >>> y, state = selective_scan(ones, ones, half, many, many)
    >>> y.flatten(), state.flatten()
    (tensor([1.0000, 1.5000, 1.7500]), tensor([1.7500]))
    """
    packing = Packing.of(x, starts, axes=3)
    state = selective.checked(x, delta, A, b, c, initial_state, packing.sequences)
    if x.is_cuda and (missing := triton_missing()) is not None:
        raise Refused(missing)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y, final, _ = torch.ops.dsf.selective_scan(
        x, delta, A.to(wide), b, c, state.to(wide), packing.starts
    )
    return (y if skip is None else y + skip.to(y.dtype) * x), final


_ARGUMENTS = "Tensor x, Tensor delta, Tensor A, Tensor b, Tensor c, Tensor state, Tensor? starts"


@torch.library.custom_op(
    "dsf::selective_scan",
    mutates_args=(),
    device_types="cuda",
    schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
)
def _on_cuda(x, delta, A, b, c, state, starts):
    return selective.forward(selective.Quantities.of(x, delta, A, b, c, state, starts))


@torch.library.custom_op(
    "dsf::selective_scan_backward",
    mutates_args=(),
    device_types="cuda",
    schema=f"(Tensor dy, Tensor dfinal, Tensor kept, {_ARGUMENTS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward_on_cuda(dy, dfinal, kept, x, delta, A, b, c, state, starts):
    q = selective.Quantities.of(x, delta, A, b, c, state, starts)
    return selective.backward(q, kept, dy, dfinal)


_on_cuda.register_kernel("cpu")(reference.forward)
_backward_on_cuda.register_kernel("cpu")(reference.backward)


@_on_cuda.register_fake
def _shapes(x, delta, A, b, c, state, starts):
    return torch.empty_like(x), torch.empty_like(state), selective.room(x, state)


@_backward_on_cuda.register_fake
def _backward_shapes(dy, dfinal, kept, x, delta, A, b, c, state, starts):
    return tuple(torch.empty_like(each) for each in (x, delta, A, b, c, state))


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[2])
    ctx.set_materialize_grads(True)


def _differentiate(ctx: Any, dy: Tensor, dfinal: Tensor, _: Tensor) -> tuple:
    *inputs, kept = ctx.saved_tensors
    return (*torch.ops.dsf.selective_scan_backward(dy, dfinal, kept, *inputs), None)


_on_cuda.register_autograd(_differentiate, setup_context=_keep)

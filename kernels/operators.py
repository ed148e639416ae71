"""Custom operators of torch: Triton on CUDA, the package's own forms on the CPU, gradients for both.

Nothing falls back in silence: on a device without an implementation torch says so, and on CUDA without
Triton the operator raises `Refused`.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from dsf.errors import Refusal, Refused

from . import chunk_decay as chunks
from . import reference
from .shapes import Packing, checked_decay

Saved = tuple[Tensor, ...]


def triton_missing() -> Refusal | None:
    """Why no kernel can run or compile here; None where Triton is installed."""
    if importlib.util.find_spec("triton") is not None:
        return None
    reason = "Triton is not installed."
    return Refusal("kernels", reason, "Install it on Linux: pip install dsf-dynamics[kernels].")


def scalar_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float = 1.0,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, and the final state; differentiable in every tensor.

    - `q` (B, T, Hq, K), `k` (B, T, Hk, K), `v` (B, T, Hv, V): one of float32, float16, bfloat16 (float64 on the CPU).
    - `g` (B, T, H): log-decays, -inf for an exact zero. H is a multiple of Hq, Hk and Hv: heads in a row share.
    - `initial_state` (N, H, K, V), zero where it is not given; N = B, or the number of packed sequences.
    - `starts` (N + 1,): where sequences packed into one row of tokens (B = 1) begin, from 0 to T.

    Returns y (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32 (or float64).
    CUDA tensors run the Triton kernel, CPU tensors the chunk form of `dsf.run`. A second derivative raises.
    Raises `InvalidInput` for shapes that do not fit and `Refused` on CUDA without Triton.

    Source: the chunkwise form of Yang et al. (arXiv 2312.06635) with one decay per head.

    >>> import torch
    >>> from dsf.kernels import scalar_decay
    >>> ones = torch.ones(1, 3, 1, 1)
    >>> y, state = scalar_decay(ones, ones, ones, torch.full((1, 3, 1), 0.5).log())
    >>> y.flatten(), state.flatten()
    (tensor([1.0000, 1.5000, 1.7500]), tensor([1.7500]))
    """
    packing = Packing.of(q, starts)
    state = checked_decay(q, k, v, g, initial_state, packing.sequences)
    state = state.to(_accumulator(v))
    if q.is_cuda and (missing := triton_missing()) is not None:
        raise Refused(missing)
    return torch.ops.dsf.scalar_decay(q, k, v, g, state, scale, packing.starts)


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


_ARGUMENTS = "Tensor q, Tensor k, Tensor v, Tensor g, Tensor state, float scale, Tensor? starts"


@torch.library.custom_op(
    "dsf::scalar_decay",
    mutates_args=(),
    device_types="cuda",
    schema=f"({_ARGUMENTS}) -> (Tensor, Tensor)",
)
def _on_cuda(q, k, v, g, state, scale, starts):
    x = chunks.Quantities.of(q, k, v, g, state, scale, starts)
    return chunks.forward(x)


@torch.library.custom_op(
    "dsf::scalar_decay_backward",
    mutates_args=(),
    device_types="cuda",
    schema=f"(Tensor do, Tensor dfinal, Tensor final, {_ARGUMENTS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward_on_cuda(do, dfinal, final, q, k, v, g, state, scale, starts):
    x = chunks.Quantities.of(q, k, v, g, state, scale, starts)
    return chunks.backward(x, do, dfinal, final)


_on_cuda.register_kernel("cpu")(reference.forward)
_backward_on_cuda.register_kernel("cpu")(reference.backward)


@_on_cuda.register_fake
def _shapes(q, k, v, g, state, scale, starts):
    return v.new_empty(*v.shape[:2], g.shape[2], v.shape[3]), torch.empty_like(state)


@_backward_on_cuda.register_fake
def _backward_shapes(do, dfinal, final, q, k, v, g, state, scale, starts):
    return tuple(torch.empty_like(x) for x in (q, k, v, g, state))


def _keep(ctx: Any, inputs: tuple, output: Saved) -> None:
    q, k, v, g, state, scale, starts = inputs
    ctx.save_for_backward(q, k, v, g, state, output[1], starts)
    ctx.scale = scale


def _differentiate(ctx: Any, do: Tensor, dfinal: Tensor) -> tuple:
    q, k, v, g, state, final, starts = ctx.saved_tensors
    found = torch.ops.dsf.scalar_decay_backward(
        do, dfinal, final, q, k, v, g, state, ctx.scale, starts
    )
    return (*found, None, None)


_on_cuda.register_autograd(_differentiate, setup_context=_keep)

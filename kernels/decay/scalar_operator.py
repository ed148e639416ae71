"""The operator of scalar decay: Triton on CUDA, the chunk form of `dsf.run` on the CPU, gradients for both."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.library import Pair, Signature, define, require_runnable
from dsf.kernels.numbers import check_alike, check_real
from dsf.kernels.shapes import Packing, accumulator, checked_decay

from . import reference
from . import scalar as chunks


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
    check_alike(q=q, k=k, v=v)
    check_real(q, q=q, g=g, initial_state=initial_state)
    packing = Packing.of(q, starts)
    state = checked_decay(q, k, v, g, initial_state, packing.sequences)
    state = state.to(accumulator(v))
    require_runnable(v)
    return _operator(q, k, v, g, state, scale, packing.starts)


def _forward(*inputs):
    return chunks.forward(chunks.Quantities.of(*inputs))


def _backward(do, dfinal, *inputs):
    return chunks.backward(chunks.Quantities.of(*inputs), do, dfinal)


def _shapes(q, k, v, g, state, scale, starts):
    return v.new_empty(*v.shape[:2], g.shape[2], v.shape[3]), torch.empty_like(state)


def _back(do, dfinal, states, *inputs):
    return reference.back(do, dfinal, (states,), *inputs)


def _held(q, k, v, g, state, scale, starts):
    return reference.room(q, g, state, starts)


_operator = define(
    Signature(
        "scalar_decay", ("q", "k", "v", "g", "state"), ("float scale", "Tensor? starts"), held=1
    ),
    cuda=Pair(_forward, _backward),
    cpu=Pair(reference.run, _back, reference.keeping),
    shapes=_shapes,
    held=_held,
)

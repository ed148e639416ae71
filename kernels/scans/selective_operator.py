"""The operator of the selective scan: Triton on CUDA, the package's scan on the CPU, gradients for both."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.library import Pair, Signature, define, require_runnable
from dsf.kernels.numbers import check_alike, check_real
from dsf.kernels.shapes import Packing, accumulator

from . import selective
from . import selective_reference as reference


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
    check_alike(x=x, delta=delta, b=b, c=c)
    check_real(x, x=x, A=A, initial_state=initial_state, skip=skip)
    packing = Packing.of(x, starts, axes=3)
    state = selective.checked(x, delta, A, b, c, initial_state, packing.sequences)
    require_runnable(x)
    wide = accumulator(x)
    skip = state.new_zeros(x.shape[2]) if skip is None else selective.checked_skip(skip, x)
    A, state, skip = (each.to(wide) for each in (A, state, skip))
    return _operator(x, delta, A, b, c, state, skip, packing.starts)


def _forward(*inputs):
    return selective.forward(selective.Quantities.of(*inputs))[:2]


def _keep(*inputs):
    return selective.forward(selective.Quantities.of(*inputs))


def _backward(dy, dfinal, kept, *inputs):
    return selective.backward(selective.Quantities.of(*inputs), kept, dy, dfinal)


def _shapes(x, delta, A, b, c, state, skip, starts):
    return torch.empty_like(x), torch.empty_like(state)


def _held(x, delta, A, b, c, state, skip, starts):
    if x.is_cuda:
        return (selective.room(x, state),)
    return (reference.room(x, b, state, starts),)


_operator = define(
    Signature(
        "selective_scan",
        ("x", "delta", "A", "b", "c", "state", "skip"),
        ("Tensor? starts",),
        held=1,
    ),
    cuda=Pair(_forward, _backward, _keep),
    cpu=Pair(reference.run, reference.backward, reference.keeping),
    shapes=_shapes,
    held=_held,
)

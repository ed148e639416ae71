"""The operator of the gated scan: Triton on CUDA, the package's scan on the CPU, gradients for both."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.library import Pair, Signature, define, require_runnable
from dsf.kernels.numbers import check_alike
from dsf.kernels.shapes import Packing, accumulator

from . import channel as scans
from . import channel_reference as reference


def gated_scan(
    a: Tensor, b: Tensor, initial_state: Tensor | None = None, *, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""h_t = a_t h_{t-1} + b_t for every channel: all states and the last; differentiable in every tensor.

    - `a`, `b` (B, T, D): gates of any sign and what enters; float32, float16, bfloat16 or complex64 (float64 and
      complex128 on the CPU). Products of gates over 64 steps in a row must not overflow.
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
    check_alike(a=a, b=b)
    packing = Packing.of(a, starts, axes=3)
    state = scans.checked_gate(a, b, initial_state, packing.sequences)
    require_runnable(a)
    return _operator(a, b, state.to(accumulator(a)), packing.starts)


def _forward(*inputs):
    return scans.forward(scans.Quantities.of(*inputs))


def _backward(dh, dfinal, h, *inputs):
    return scans.backward(scans.Quantities.of(*inputs), h, dh, dfinal)


def _shapes(a, b, state, starts):
    return torch.empty_like(a, dtype=state.dtype), torch.empty_like(state)


_operator = define(
    Signature("gated_scan", ("a", "b", "state"), ("Tensor? starts",), kept=(0,)),
    cuda=Pair(_forward, _backward),
    cpu=Pair(reference.forward, reference.backward),
    shapes=_shapes,
)

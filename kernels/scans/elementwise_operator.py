"""The operator of the elementwise scan: Triton on CUDA, the package's scan on the CPU, gradients for both."""

from __future__ import annotations

import torch
from torch import Tensor

import dsf
from dsf.coupling import ChannelCoupling, OuterCoupling
from dsf.kernels.library import Pair, Signature, by_autograd, define, require_runnable
from dsf.kernels.numbers import check_alike, check_real
from dsf.kernels.shapes import Packing, accumulator, windows
from dsf.state import State
from dsf.structure import Elementwise
from dsf.system import System

from . import elementwise


def elementwise_scan(
    x: Tensor,
    a: Tensor,
    w: Tensor,
    c: Tensor,
    initial_state: Tensor | None = None,
    *,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""h_t = a_t ⊙ h_{t-1} + w_t diag(x_t), y_t = h_tᵀ c_t, and the last states; differentiable in every tensor.

    - `x` (B, T, H, V), gates `a` and writes `w` (B, T, H, K, V), reads `c` (B, T, H, K): one of float32, float16,
      bfloat16 (float64 on the CPU).
    - `initial_state` (N, H, K, V), zero where it is not given; `starts` (N + 1,) packs sequences into one row (B = 1).

    Returns y (B, T, H, V) in the type of x and the last states in float32 (or float64). CUDA tensors run the Triton
    kernel, CPU tensors the scan of `dsf.run`; a second derivative raises. Raises `InvalidInput` for shapes that do
    not fit and `Refused` on CUDA without Triton.

    Source: Gu and Dao (arXiv 2312.00752), algorithm 2, for gates and writes of any kind.

    >>> import torch
    >>> from dsf.kernels import elementwise_scan
    >>> ones = torch.ones(1, 3, 1, 1)
    >>> y, state = elementwise_scan(ones, ones[..., None] / 2, ones[..., None], ones)
    >>> y.flatten(), state.flatten()
    (tensor([1.0000, 1.5000, 1.7500]), tensor([1.7500]))
    """
    check_alike(x=x, a=a, w=w, c=c)
    check_real(x, x=x, initial_state=initial_state)
    packing = Packing.of(x, starts)
    state = elementwise.checked(x, a, w, c, initial_state, packing.sequences)
    require_runnable(x)
    wide = accumulator(x)
    y, final, _ = _operator(x, a, w, c, state.to(wide), packing.starts)
    return y, final


def _run(
    x: Tensor, a: Tensor, w: Tensor, c: Tensor, state: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan of `dsf.run`; no states are kept, since its own way back makes them again."""
    outputs, finals = [x[:, :0]], [state[:0]]
    for steps, first in windows(state, x.shape[1], starts):
        gates, writes, reads = a[:, steps], w[:, steps], c[:, steps]
        system = System(Elementwise(gates), ChannelCoupling(writes), OuterCoupling(reads))
        y, final = dsf.run(system, x[:, steps], State(first), form="scan")
        outputs.append(y)
        finals.append(final.memory)
    return torch.cat(outputs, 1), torch.cat(finals), elementwise.room(x, state).zero_()


def _forward(*inputs):
    return elementwise.forward(elementwise.Quantities.of(*inputs))


def _backward(dy, dfinal, kept, *inputs):
    return elementwise.backward(elementwise.Quantities.of(*inputs), kept, dy, dfinal)


def _shapes(x, a, w, c, state, starts):
    return torch.empty_like(x), torch.empty_like(state), elementwise.room(x, state)


_SIGNATURE = Signature(
    "elementwise_scan",
    ("x", "a", "w", "c", "state"),
    ("Tensor? starts",),
    hidden=1,
    kept=(2,),
)
_operator = define(
    _SIGNATURE,
    cuda=Pair(_forward, _backward),
    cpu=by_autograd(_SIGNATURE, _run),
    shapes=_shapes,
)

"""The operator of decay per key: Triton on CUDA, the chunk form of `dsf.run` on the CPU, gradients for both."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.library import Pair, Signature, define, require_runnable
from dsf.kernels.numbers import check_alike, check_real
from dsf.kernels.shapes import Packing, accumulator, checked_decay

from . import diagonal as chunks
from . import reference


def diagonal_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float = 1.0,
    bonus: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""h_i = Diag(e^{g_i}) h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, and the final state; differentiable in every tensor.

    With a `bonus` u (H, K) a step is read before its update: y_i = s (h_{i-1} + Diag(u) k_i v_iᵀ)ᵀ q_i (RWKV-6).

    - `q` (B, T, Hq, K), `k` (B, T, Hk, K), `v` (B, T, Hv, V): one of float32, float16, bfloat16 (float64 on the CPU).
    - `g` (B, T, H, K): log-decays per key, -inf for an exact zero. H is a multiple of Hq, Hk and Hv: heads in a row
      share.
    - `initial_state` (N, H, K, V), zero where it is not given; N = B, or the number of packed sequences.
    - `starts` (N + 1,): where sequences packed into one row of tokens (B = 1) begin, from 0 to T.

    Returns y (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32 (or float64).
    CUDA tensors run the Triton kernel, CPU tensors the chunk form of `dsf.run`. A second derivative raises.
    Raises `InvalidInput` for shapes that do not fit and `Refused` on CUDA without Triton.

    Source: gated linear attention, Yang et al. (arXiv 2312.06635); the bonus is that of RWKV-6, Peng et al.
    (arXiv 2404.05892).

    >>> import torch
    >>> from dsf.kernels import diagonal_decay
    >>> ones, two = torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 2)
    >>> gates = torch.tensor([0.0, -torch.inf]).expand(1, 3, 1, 2)  # one key keeps, one forgets
    >>> y, state = diagonal_decay(two, two, ones, gates)
    >>> y.flatten(), state.flatten()
    (tensor([2., 3., 4.]), tensor([3., 1.]))
    >>> diagonal_decay(two, two, ones, gates, bonus=torch.zeros(1, 2))[0].flatten()
    tensor([0., 2., 3.])
    """
    check_alike(q=q, k=k, v=v)
    check_real(q, q=q, g=g, initial_state=initial_state, bonus=bonus)
    packing = Packing.of(q, starts)
    state = checked_decay(q, k, v, g, initial_state, packing.sequences, per_key=True)
    state = state.to(accumulator(v))
    require_runnable(v)
    if bonus is None:
        return _operator(q, k, v, g, state, state.new_empty(0), scale, False, packing.starts)
    chunks.check_bonus(bonus, g)
    return _operator(q, k, v, g, state, bonus, scale, True, packing.starts)


def _quantities(q, k, v, g, state, bonus, scale, before, starts):
    return chunks.Quantities.of(q, k, v, g, state, scale, starts, bonus if before else None)


def _run(q, k, v, g, state, bonus, scale, before, starts):
    return reference.run(q, k, v, g, state, scale, starts, bonus if before else None)


def _keep(q, k, v, g, state, bonus, scale, before, starts):
    return reference.keeping(q, k, v, g, state, scale, starts, bonus if before else None)


def _back(do, dfinal, states, q, k, v, g, state, bonus, scale, before, starts):
    given = (q, k, v, g, state, scale, starts, bonus if before else None)
    found = reference.back(do, dfinal, (states,), *given)
    return found if before else (*found, torch.zeros_like(bonus))


def _held(q, k, v, g, state, bonus, scale, before, starts):
    return reference.room(q, g, state, starts)


def _forward(*inputs):
    return chunks.forward(_quantities(*inputs))


def _backward(do, dfinal, *inputs):
    *found, of_bonus = chunks.backward(_quantities(*inputs), do, dfinal)
    bonus = inputs[5]
    return (*found, torch.zeros_like(bonus) if of_bonus is None else of_bonus.to(bonus.dtype))


def _shapes(q, k, v, g, state, bonus, scale, before, starts):
    return v.new_empty(*v.shape[:2], g.shape[2], v.shape[3]), torch.empty_like(state)


_operator = define(
    Signature(
        "diagonal_decay",
        ("q", "k", "v", "g", "state", "bonus"),
        ("float scale", "bool before", "Tensor? starts"),
        held=1,
    ),
    cuda=Pair(_forward, _backward),
    cpu=Pair(_run, _back, _keep),
    shapes=_shapes,
    held=_held,
)

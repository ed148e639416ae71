"""The operator of the delta family: Triton on CUDA, the chunk form of `dsf.run` on the CPU, gradients for both."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.library import Pair, Signature, define, require_runnable
from dsf.kernels.numbers import check_alike, check_real
from dsf.kernels.shapes import Packing, repeated

from . import chunks, reference
from .quantities import Quantities
from .rows import checked, in_rows, rows_for


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    scale: float = 1.0,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""h_i = (I - β_i k_i k_iᵀ) D_i h_{i-1} + β_i k_i v_iᵀ, y_i = s h_iᵀ q_i, D = diag(e^g), and the final state.

    Differentiable in every tensor. Without `g` this is DeltaNet, with one per head Gated DeltaNet, with one per key
    KDA. With R keys per token it is DeltaProduct: after the gate, R steps h ← (I - β k kᵀ) h + β k vᵀ, then y.

    - `q` (B, T, Hq, K), `k` (B, T, Hk, K) and `v` (B, T, Hv, V), or k (B, T, Hk, R, K) and v (B, T, Hv, R, V) with R
      up to 16, padded to a power of two: one of float32, float16, bfloat16 (float64 on the CPU).
    - `beta` (B, T, H) or (B, T, H, R): write strengths. H is a multiple of Hq, Hk and Hv: heads in a row share.
    - `g` (B, T, H) or (B, T, H, K): log-decays, not above 0, -inf for an exact zero; none where it is not given.
    - `initial_state` (N, H, K, V), zero where it is not given; N = B, or the number of packed sequences.
    - `starts` (N + 1,): where sequences packed into one row of tokens (B = 1) begin, from 0 to T.

    Returns y (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32 (or float64). CUDA tensors
    run the Triton kernels, CPU tensors the chunk form of `dsf.run`. A second derivative raises.
    Raises `InvalidInput` for shapes that do not fit and `Refused` on CUDA without Triton.

    Source: Yang et al. (arXiv 2406.06484), section 3; gates: arXiv 2412.06464 and 2510.26692.

    >>> import torch
    >>> from dsf.kernels import delta_rule
    >>> k, one = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 2), torch.ones(1, 3, 1)
    >>> y, state = delta_rule(k, k, torch.tensor([5.0, 6, 7]).reshape(1, 3, 1, 1), one)
    >>> y.flatten(), state.flatten()
    (tensor([5., 6., 7.]), tensor([7., 0.]))
    """
    check_alike(q=q, k=k, v=v)
    check_real(q, q=q, beta=beta, g=g, initial_state=initial_state)
    packing = Packing.of(q, starts)
    if k.ndim != v.ndim or beta.ndim != k.ndim - 1:
        raise InvalidInput(
            "k, v and beta have one axis of rows, or none of them: (B, T, H, R, K), (B, T, H, R, V), "
            f"(B, T, H, R); got {k.ndim}, {v.ndim} and {beta.ndim} axes"
        )
    if k.ndim == 4:
        k, v, beta = k[..., None, :], v[..., None, :], beta[..., None]
    gates = torch.zeros(beta.shape[:3], device=q.device) if g is None else g
    state = checked(q, {"k": k, "v": v}, gates, initial_state, packing.sequences)
    if beta.shape != (*gates.shape[:3], k.shape[3]) or v.shape[3] != k.shape[3]:
        raise InvalidInput(
            f"`beta` must be {(*gates.shape[:3], k.shape[3])}: (B, T, H, R), and `v` have R = {k.shape[3]}; "
            f"got {tuple(beta.shape)} and R = {v.shape[3]}"
        )
    rows = rows_for(k.shape[3])
    k, v = in_rows(k, rows), in_rows(v, rows)
    strength = in_rows(beta[..., None].to(state.dtype), rows)[..., 0]
    require_runnable(v)
    return _operator(
        q, k, k, v, strength, gates.to(state.dtype), state, scale, False, packing.starts
    )


def dplr_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float = 1.0,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""h_i = (diag(e^{g_i}) + a_i b_iᵀ) h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, and the final state.

    Diagonal plus low rank, as `dsf.structure.DPLR` writes it: `b` reads the state before its gate, `a` is what is
    written of that. RWKV-7 has a = -(rate ⊙ κ̂), b = κ̂. Differentiable in every tensor.

    - `q` (B, T, Hq, K), `k` (B, T, Hk, K), `v` (B, T, Hv, V), `a` and `b` (B, T, h, K), or with an axis of rows before
      the last: R for both k and v, the rank r for both a and b, r + R up to 16.
    - `g` (B, T, H) or (B, T, H, K): log-decays, not above 0, -inf for an exact zero. H is a multiple of all heads.
    - `initial_state`, `starts` and what is returned or raised: as for `delta_rule`. A token costs r + R rows of it.

    Source: Peng et al. (arXiv 2503.14456), own wording, for r = R = 1.

    >>> import torch
    >>> from dsf.kernels import dplr_rule
    >>> e, v = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 2), torch.tensor([5.0, 6, 7]).reshape(1, 3, 1, 1)
    >>> dplr_rule(e, e, v, -0.5 * e, e, torch.zeros(1, 3, 1))[0].flatten()
    tensor([ 5.0000,  8.5000, 11.2500])
    """
    check_alike(q=q, k=k, v=v, a=a, b=b)
    check_real(q, q=q, g=g, initial_state=initial_state)
    packing = Packing.of(q, starts)
    k, v, a, b = (x[..., None, :] if x.ndim == 4 else x for x in (k, v, a, b))
    streams = {"k": k, "v": v, "a": a, "b": b}
    state = checked(q, streams, g, initial_state, packing.sequences)
    if k.shape[3] != v.shape[3] or a.shape[3] != b.shape[3]:
        raise InvalidInput(
            "k and v have as many rows, and a and b; "
            f"got {k.shape[3]} and {v.shape[3]}, {a.shape[3]} and {b.shape[3]}"
        )
    if a.shape[2] != k.shape[2]:
        a, k = repeated(a, g.shape[2]), repeated(k, g.shape[2])
    rows = rows_for(a.shape[3] + k.shape[3])
    none = v.new_zeros(*v.shape[:3], a.shape[3], v.shape[4])
    written, values = in_rows(torch.cat([a, k], 3), rows), in_rows(torch.cat([none, v], 3), rows)
    ones = torch.ones(*written.shape[:2], g.shape[2], device=q.device, dtype=state.dtype)
    require_runnable(v)
    return _operator(
        q,
        written,
        in_rows(-b, rows),
        values,
        ones,
        g.to(state.dtype),
        state,
        scale,
        True,
        packing.starts,
    )


def _forward(*inputs):
    return chunks.forward(Quantities.of(*inputs))


def _backward(do, dfinal, *inputs):
    return chunks.backward(Quantities.of(*inputs), do, dfinal)


def _shapes(q, k, b, v, beta, g, state, scale, together, starts):
    return v.new_empty(*q.shape[:2], beta.shape[2], v.shape[3]), torch.empty_like(state)


def _held(q, k, b, v, beta, g, state, scale, together, starts):
    return reference.room(q, k, state, together, starts)


_operator = define(
    Signature(
        "delta_rule",
        ("q", "k", "b", "v", "beta", "g", "state"),
        ("float scale", "bool together", "Tensor? starts"),
        held=3,
    ),
    cuda=Pair(_forward, _backward),
    cpu=Pair(reference.run, reference.back, reference.keeping),
    shapes=_shapes,
    held=_held,
)

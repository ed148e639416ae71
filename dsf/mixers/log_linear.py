"""Log-linear attention: one state per power of two of the past, each with a weight of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Block
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def bucket_moves(length: int, levels: int) -> Tensor:
    """The levels' own transition (T, L, L): at step t levels 0 … j merge into j + 1, 2^j the last set bit of t.

    After step t level 0 holds token t, level l >= 1 the 2^{l-1} tokens of bit l - 1 of t, if it is set.

    >>> bucket_moves(3, 3)[2]  # tokens 0 and 1 become one bucket
    tensor([[0., 0., 0.],
            [0., 0., 0.],
            [1., 1., 1.]])
    """
    moves = torch.eye(levels).repeat(length, 1, 1)
    for t in range(1, length):
        last = (t & -t).bit_length() - 1
        moves[t, : last + 1] = 0
        moves[t, last + 1, : last + 1] = 1
    return moves


def log_linear_attention(
    q: Float[Tensor, "#B T #H K"],
    k: Float[Tensor, "#B T #H K"],
    g: Float[Tensor, "#B T #H"],
    scales: Float[Tensor, "#B T #H L"],
) -> System:
    r"""y_i = Σ_l λ_i^{(l)} (h_i^{(l)})ᵀ q_i: h_i = e^{g_i} h_{i-1} + k_i v_iᵀ split into Fenwick buckets.

    A composition of L recurrences that hand their states on: Λ_i = e^{g_i} M_i ⊗ I_K in blocks of width L,
    M_i of `bucket_moves`; B = e₀ ⊗ k, C = λ ⊗ q. `q`, `k` are (B, T, H, K), log-decays `g` (B, T, H), `scales`
    λ (B, T, H, L) with L > log₂ T. All λ = 1 is the base model.

    Raises `InvalidInput` where L levels do not reach over T tokens.

    Source: Guo et al., "Log-linear attention" (2506.04761), own wording, on the base of Mamba-2; code: fla,
    `fla/ops/log_linear_attn/naive.py`.

    >>> import dsf
    >>> q, g = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1)
    >>> scales = torch.tensor([1.0, 10.0, 100.0]).expand(1, 4, 1, 3)
    >>> dsf.run(log_linear_attention(q, q, g, scales), q)[0].flatten()
    tensor([  1.,  11., 201., 211.])
    """
    length, levels = k.shape[1], scales.shape[-1]
    if length > 2 ** (levels - 1):
        raise InvalidInput(
            f"`scales` has L = {levels} levels, which reach over {2 ** (levels - 1)} tokens; got T = {length}"
        )
    moves = bucket_moves(length, levels).to(k)[None, :, None, None]
    blocks = torch.exp(g)[..., None, None, None] * moves
    first = torch.nn.functional.pad(k[..., None], (0, levels - 1))
    return System(
        Block(blocks.expand(*blocks.shape[:3], k.shape[-1], levels, levels)),
        OuterCoupling(first.flatten(-2)),
        OuterCoupling((q[..., None] * scales[..., None, :]).flatten(-2)),
    )


def _sample(draw: Draw) -> Sample:
    levels = 6 if draw.length <= 32 else 1 + (draw.length - 1).bit_length()
    return Sample(
        {
            "q": draw.normal(*draw.lead, draw.keys),
            "k": draw.normal(*draw.lead, draw.keys),
            "g": -draw.uniform(*draw.lead),
            "scales": draw.uniform(*draw.lead, levels),
        },
        draw.normal(*draw.lead, draw.values),
    )


LOG_LINEAR = Architecture(
    "log-linear",
    "Log-linear attention",
    r"$y_i = \sum_l \lambda_i^{(l)} (h_i^{(l)})^\top q_i, \quad h_i^{(l)} = e^{g_i} "
    r"\sum_m [M_i]_{lm} h_{i-1}^{(m)} + [l = 0]\, k_i v_i^\top$",
    "Guo et al., 2506.04761, own wording",
    log_linear_attention,
    _sample,
)

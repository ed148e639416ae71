"""Titans with a linear memory: gradient descent with momentum and decay, an affine recurrence."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Dense
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def titans_linear(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    theta: Float[Tensor, "#B #T #H"],
    eta: Float[Tensor, "#B #T #H"],
    alpha: Float[Tensor, "#B #T #H"],
) -> System:
    r"""S_i = η_i S_{i-1} - θ_i ∇ℓ_i(M_{i-1}),  M_i = (1 - α_i) M_{i-1} + S_i,  y_i = M_iᵀ q_i,  ℓ = ½‖Mᵀk - v‖².

    System: the state is [M; S] of 2K key channels, Λ = `[[(1-α) I, η I], [0, η I]] - θ [k; k] [k; 0]ᵀ`, which
    is Dense, since its diagonal part is no gate; B = `θ [k; k]`, C = `[q; 0]`. `q`, `k` are (B, T, H, K), step
    `theta`, momentum `eta` and forgetting `alpha` (B, T, H). The paper's loss has no ½: its θ is half of this.
    The gradient is taken at every token (a chunk-wise implementation takes it at the start of a chunk, which
    is another model).

    Source: Behrouz, Zhong, Mirrokni, "Titans" (2501.00663), own wording, for a memory of one matrix.

    >>> import dsf
    >>> k, one = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 2), torch.ones(1, 3, 1)
    >>> v = torch.tensor([5.0, 6, 7]).reshape(1, 3, 1, 1)
    >>> dsf.run(titans_linear(k, k, one, 0 * one, 0 * one), v)[0].flatten()  # the delta rule
    tensor([5., 6., 7.])
    """
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    fast = theta[..., None, None] * k[..., :, None] * k[..., None, :]
    carried = eta[..., None, None] * eye
    carried, fast = torch.broadcast_tensors(carried, fast)
    kept = (1 - alpha)[..., None, None] * eye - fast
    memory, momentum = torch.cat([kept, carried], -1), torch.cat([-fast, carried], -1)
    step = theta[..., None] * k
    return System(
        Dense(torch.cat([memory, momentum], -2)),
        OuterCoupling(torch.cat([step, step], -1)),
        OuterCoupling(torch.cat([q, torch.zeros_like(q)], -1)),
    )


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "q": draw.normal(*draw.lead, draw.keys),
            "k": draw.unit(*draw.lead, draw.keys),
            "theta": draw.uniform(*draw.lead),
            "eta": 0.8 * draw.uniform(*draw.lead),
            "alpha": 0.2 + 0.5 * draw.uniform(*draw.lead),
        },
        draw.normal(*draw.lead, draw.values),
    )


TITANS_LINEAR = Architecture(
    "titans-linear",
    "Titans, linear memory",
    r"$S_i = \eta_i S_{i-1} - \theta_i k_i (k_i^\top M_{i-1} - v_i^\top), \quad "
    r"M_i = (1 - \alpha_i) M_{i-1} + S_i, \quad y_i = M_i^\top q_i$",
    "Behrouz et al., 2501.00663, own wording",
    titans_linear,
    _sample,
)

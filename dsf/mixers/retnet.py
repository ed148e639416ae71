"""RetNet's retention: linear attention that forgets at a fixed rate per head."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, queries_and_keys


def head_decays(heads: int) -> Tensor:
    """γ_h = 1 - 2^{-5-h} for h = 0 … H-1."""
    return 1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float64))


def retnet(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    *,
    decay: Float[Tensor, " H"] | None = None,
) -> System:
    r"""y_i = Σ_{j≤i} γ^{i-j} (q_iᵀ k_j) v_j.

    System: Λ = γ I, constant in time, B = k, C = q. `q`, `k` are (B, T, H, K), rotated and scaled
    by the caller where the layer does so; `decay` is γ (H,), by default 1 - 2^{-5-h}. The layer's
    group norm follows the read-out and is not part of the system.

    Source: Sun et al., "Retentive network" (2307.08621), section 2.1.

    >>> import dsf
    >>> q = k = torch.ones(1, 3, 1, 1)
    >>> dsf.run(retnet(q, k, decay=torch.tensor([0.5])), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    if decay is None:
        decay = head_decays(k.shape[2]).to(k)
    return System(Scalar(decay[None, None, :]), OuterCoupling(k), OuterCoupling(q))


RETNET = Architecture(
    "retnet",
    "RetNet",
    r"$h_i = \gamma h_{i-1} + k_i v_i^\top, \quad y_i = h_i^\top q_i$",
    "Sun et al., 2307.08621, section 2.1",
    retnet,
    queries_and_keys,
)

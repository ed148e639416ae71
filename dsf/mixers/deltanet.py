"""DeltaNet: every key replaces what it stored before."""

from __future__ import annotations

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import DPLR
from dsf.system import System

from .architecture import Architecture, delta_rule


def deltanet(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    beta: Float[Tensor, "#B #T #H"],
) -> System:
    r"""h_i = (I - β_i k_i k_iᵀ) h_{i-1} + β_i k_i v_iᵀ,  y_i = h_iᵀ q_i.

    System: Λ = I - β k kᵀ, B = β k, C = q. `q`, `k` are (B, T, H, K), keys of unit length for a
    contraction; write strengths `beta` (B, T, H) in [0, 1], or [0, 2] for negative eigenvalues.

    Source: Schlag, Irie, Schmidhuber, "Linear transformers are secretly fast weight programmers"
    (2102.11174), section 4.2; parallel form: Yang et al. (2406.06484).

    >>> import torch, dsf
    >>> k = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 2)
    >>> v = torch.tensor([5.0, 6, 7]).reshape(1, 3, 1, 1)
    >>> dsf.run(deltanet(k, k, torch.ones(1, 3, 1)), v)[0].flatten()
    tensor([5., 6., 7.])
    """
    return System(DPLR.householder(k, beta), OuterCoupling(beta[..., None] * k), OuterCoupling(q))


DELTANET = Architecture(
    "deltanet",
    "DeltaNet",
    r"$h_i = (I - \beta_i k_i k_i^\top) h_{i-1} + \beta_i k_i v_i^\top, \quad y_i = h_i^\top q_i$",
    "Schlag et al., 2102.11174, section 4.2",
    deltanet,
    delta_rule,
)

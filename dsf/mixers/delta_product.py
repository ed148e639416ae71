"""DeltaProduct: several delta steps per token, so a product of Householder matrices per transition."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import DPLR, Identity, Scalar, Structure, compose
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def delta_product(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H R K"],
    beta: Float[Tensor, "#B #T #H R"],
    g: Float[Tensor, "#B #T #H"] | None = None,
) -> System:
    r"""h_i = H_R … H_1 e^{g_i} h_{i-1} + Σ_r H_R … H_{r+1} β_r k_r v_{i,r}ᵀ,  y_i = h_iᵀ q_i,  H_r = I - β_r k_r k_rᵀ.

    System: Λ = e^g H_R … H_1 of rank R beside its gate, R writes per step, C = q. `q` is (B, T, H, K),
    `k` (B, T, H, R, K) with keys of unit length, `beta` (B, T, H, R), log-decays `g` (B, T, H) or None
    for 1; the tokens are R values per step (B, T, H, R, V).

    Source: Siems et al., "DeltaProduct" (2502.10297), own wording; code: fla,
    `fla/ops/gated_delta_product/naive.py`.

    >>> import dsf
    >>> q, k = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 2, 1)
    >>> system = delta_product(q, k, torch.ones(1, 1, 1, 2))
    >>> dsf.run(system, torch.tensor([5.0, 6]).reshape(1, 1, 1, 2, 1))[0].flatten()  # the last key wins
    tensor([6.])
    """
    transition: Structure = Identity() if g is None else Scalar.from_log(g)
    writes = beta[..., None] * k
    for r in range(k.shape[-2]):
        step = DPLR.householder(k[..., r, :], beta[..., r])
        transition = compose(step, transition)
        earlier = step.apply(writes[..., :r, :].transpose(-1, -2)).transpose(-1, -2)
        writes = _with_first(writes, earlier)
    return System(transition, OuterCoupling(writes), OuterCoupling(q))


def _with_first(rows: Tensor, replaced: Tensor) -> Tensor:
    """`rows` with its first ones replaced."""
    return torch.cat([replaced, rows[..., replaced.shape[-2] :, :]], -2)


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "q": draw.normal(*draw.lead, draw.keys),
            "k": draw.unit(*draw.lead, 2, draw.keys),
            "beta": 2 * draw.uniform(*draw.lead, 2),
            "g": -draw.uniform(*draw.lead),
        },
        draw.normal(*draw.lead, 2, draw.values),
    )


DELTA_PRODUCT = Architecture(
    "delta-product",
    "DeltaProduct",
    r"$h_i = H_R \cdots H_1 e^{g_i} h_{i-1} + \sum_r H_R \cdots H_{r+1} \beta_r k_r v_{i,r}^\top, \quad "
    r"H_r = I - \beta_r k_r k_r^\top$",
    "Siems et al., 2502.10297, own wording",
    delta_product,
    _sample,
)

"""Kimi delta attention: the gated delta rule with a decay per key channel."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import DPLR, Diagonal
from dsf.system import System

from .architecture import Architecture, Draw, Sample, delta_rule


def kda(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    beta: Float[Tensor, "#B #T #H"],
    g: Float[Tensor, "#B #T #H K"],
) -> System:
    r"""h_i = (I - β_i k_i k_iᵀ) diag(e^{g_i}) h_{i-1} + β_i k_i v_iᵀ,  y_i = h_iᵀ q_i.

    System: Λ = diag(α) + (-β k)(α ⊙ k)ᵀ with α = e^g, B = β k, C = q: first every channel decays, then
    the key erases. `q`, `k` and the log-decays `g` are (B, T, H, K), `beta` (B, T, H).

    Source: Kimi team, "Kimi Linear" (2510.26692), own wording; code: fla, `fla/ops/kda/naive.py`.

    >>> import dsf
    >>> k, one = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2), torch.ones(1, 2, 1)
    >>> system = kda(k, k, one, torch.zeros(1, 2, 1, 2))
    >>> dsf.run(system, torch.tensor([5.0, 6]).reshape(1, 2, 1, 1))[0].flatten()
    tensor([5., 6.])
    """
    erase, seen = -beta[..., None] * k, torch.exp(g) * k
    return System(
        DPLR(Diagonal.from_log(g), erase[..., None], seen[..., None]),
        OuterCoupling(beta[..., None] * k),
        OuterCoupling(q),
    )


def _sample(draw: Draw) -> Sample:
    return delta_rule(draw, g=-draw.uniform(*draw.lead, draw.keys))


KDA = Architecture(
    "kda",
    "KDA (Kimi Linear)",
    r"$h_i = (I - \beta_i k_i k_i^\top)\,\mathrm{diag}(e^{g_i}) h_{i-1} + \beta_i k_i v_i^\top, \quad "
    r"y_i = h_i^\top q_i$",
    "Kimi team, 2510.26692, own wording",
    kda,
    _sample,
)

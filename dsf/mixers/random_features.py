"""Softmax attention by positive random features: an unbiased estimate of its kernel, of finite state."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.precision import keeps_precision
from dsf.shapes import Float
from dsf.system import System

from .architecture import Architecture, Draw, Sample
from .linear_attention import linear_attention


@keeps_precision
def positive_features(x: Tensor, omega: Tensor) -> Tensor:
    r"""φ(x) = e^{ωᵀx - ‖x‖²/2} / √M per row of `omega` (M, K); E φ(x)ᵀφ(y) = e^{xᵀy} for ω ~ N(0, I).

    >>> positive_features(torch.zeros(3), torch.ones(4, 3))
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    square = (x * x).sum(-1, keepdim=True) / 2
    return torch.exp(x @ omega.transpose(-1, -2) - square) / omega.shape[-2] ** 0.5


def random_feature_attention(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    omega: Float[Tensor, "M K"],
) -> System:
    r"""y_i = Σ_{j≤i} φ(q_i)ᵀφ(k_j) v_j / Σ_{j≤i} φ(q_i)ᵀφ(k_j) with φ of `positive_features`.

    System: linear attention with M positive features of x / K^{1/4}. `q`, `k` are (B, T, H, K), the
    directions `omega` (M, K) are drawn by the caller, orthogonal or not.

    Source: Choromanski et al., "Rethinking attention with performers" (2009.14794), lemma 1.

    >>> import dsf
    >>> q = torch.zeros(1, 4, 1, 2)
    >>> system = random_feature_attention(q, q, torch.ones(3, 2))
    >>> dsf.run(system, torch.arange(4.0).reshape(1, 4, 1, 1))[0].flatten()
    tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    scale = k.shape[-1] ** -0.25
    return linear_attention(
        positive_features(scale * q, omega), positive_features(scale * k, omega), feature=None
    )


def _sample(draw: Draw) -> Sample:
    quantities = {name: draw.normal(*draw.lead, draw.keys) for name in ("q", "k")}
    quantities["omega"] = draw.normal(6, draw.keys)
    return Sample(quantities, draw.normal(*draw.lead, draw.values))


RANDOM_FEATURES = Architecture(
    "random-features",
    "Softmax attention, positive random features",
    r"$y_i = \sum_{j \leq i} \phi(q_i)^\top \phi(k_j) v_j \,/\, \eta_i, \quad "
    r"\phi(x) = e^{\omega^\top x - \|x\|^2 / 2} / \sqrt{M}$",
    "Choromanski et al., 2009.14794, lemma 1",
    random_feature_attention,
    _sample,
)

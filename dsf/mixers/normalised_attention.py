"""Normalised attention: linear attention divided by a function of the current token alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Identity
from dsf.system import System

from .architecture import Architecture, Draw, Sample

_FUNCTIONS = {"exp": torch.exp, "softplus": torch.nn.functional.softplus, "sigmoid": torch.sigmoid}


def normalised_attention(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    n: Float[Tensor, "#B #T #H"],
    *,
    norm: Literal["exp", "softplus", "sigmoid"] = "exp",
) -> System:
    r"""y_i = Σ_{j≤i} q_iᵀk_j v_j / η(n_i),  η = exp, softplus or σ.

    System: Λ = I, B = k, C = q / η(n); `dsf.conversions.normaliser_gauge` moves η into the state, where
    Λ̃ = η_{i-1}/η_i as in the paper. `q`, `k` are (B, T, H, K), `n` (B, T, H) a linear map of the token.
    Unlike a sum of weights, η depends on the current token alone.

    Raises `InvalidInput` for another `norm`.

    Source: Sieber et al. (2405.15731), section 4.1 (normalised attention), own wording.

    >>> import dsf
    >>> q, n = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 2.0, 4.0]).log().reshape(1, 3, 1)
    >>> dsf.run(normalised_attention(q, q, n), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([1.0000, 1.0000, 0.7500])
    """
    if norm not in _FUNCTIONS:
        raise InvalidInput(f"`norm` must be one of {', '.join(_FUNCTIONS)}; got {norm!r}")
    eta = _FUNCTIONS[norm](n)
    return System(Identity(), OuterCoupling(k), OuterCoupling(q / eta[..., None]))


def _sample(draw: Draw) -> Sample:
    quantities = {name: draw.normal(*draw.lead, draw.keys) for name in ("q", "k")}
    quantities["n"] = draw.normal(*draw.lead)
    return Sample(quantities, draw.normal(*draw.lead, draw.values))


NORMALISED_ATTENTION = Architecture(
    "normalised-attention",
    "Normalised attention",
    r"$y_i = \sum_{j \leq i} q_i^\top k_j v_j \,/\, \eta(n_i), \quad "
    r"\eta \in \{\exp, \mathrm{softplus}, \sigma\}$",
    "Sieber et al., 2405.15731, section 4.1, own wording",
    normalised_attention,
    _sample,
)

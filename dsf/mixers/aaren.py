"""Aaren: softmax attention of one learned query, so one number per token decides its weight."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Identity
from dsf.system import Normaliser, System

from .architecture import Architecture, Draw, Sample


def aaren(q: Float[Tensor, "H K"], k: Float[Tensor, "#B #T #H K"]) -> System:
    r"""y_i = Σ_{j≤i} e^{s_j} v_j / Σ_{j≤i} e^{s_j},  s_j = qᵀk_j / √K.

    System: Λ = I on one key channel, log write gate s, B = C = 1, normalised; the forms keep e^{s - m}
    with the running maximum m. The query `q` (H, K) is a parameter of the head, `k` (B, T, H, K). It is not
    attention with a query per token: every output weighs the tokens alike.

    Source: Feng et al., "Attention as an RNN" (2405.13956), own wording.

    >>> import dsf
    >>> k = torch.full((1, 3, 1, 4), 1e4)
    >>> dsf.run(aaren(torch.ones(1, 4), k), torch.tensor([0.0, 2, 4]).reshape(1, 3, 1, 1))[0].flatten()
    tensor([0., 1., 2.])
    """
    scores = (q * k).sum(-1) / k.shape[-1] ** 0.5
    one = OuterCoupling(torch.ones_like(k[:1, :1, :1, :1]))
    return System(Identity(), one, one, normaliser=Normaliser(), log_write=scores)


def _sample(draw: Draw) -> Sample:
    query = 3 * draw.normal(draw.heads, draw.keys)
    keys = draw.normal(*draw.lead, draw.keys)
    return Sample({"q": query, "k": keys}, draw.normal(*draw.lead, draw.values))


AAREN = Architecture(
    "aaren",
    "Aaren",
    r"$y_i = \sum_{j \leq i} e^{s_j} v_j \,/\, \sum_{j \leq i} e^{s_j}, \quad s_j = q^\top k_j / \sqrt{K}$",
    "Feng et al., 2405.13956, own wording",
    aaren,
    _sample,
)

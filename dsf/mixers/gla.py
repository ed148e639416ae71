"""Gated linear attention: a decay per key channel that the token chooses."""

from __future__ import annotations

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Diagonal
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def gla(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    g: Float[Tensor, "#B #T #H K"],
) -> System:
    r"""h_i = diag(e^{g_i}) h_{i-1} + k_i v_iᵀ,  y_i = h_iᵀ q_i.

    System: Λ = diag(e^g), B = k, C = q. `q`, `k` and the log-decays `g` are (B, T, H, K), queries
    scaled by the caller.

    Source: Yang et al., "Gated linear attention transformers" (2312.06635), own wording.

    >>> import torch, dsf
    >>> q, g = torch.ones(1, 2, 1, 2), torch.tensor([0.0, -torch.inf]).expand(1, 2, 1, 2)
    >>> dsf.run(gla(q, q, g), torch.ones(1, 2, 1, 1))[0].flatten()  # one channel keeps, one forgets
    tensor([2., 3.])
    """
    return System(Diagonal.from_log(g), OuterCoupling(k), OuterCoupling(q))


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "q": draw.normal(*draw.lead, draw.keys),
            "k": draw.normal(*draw.lead, draw.keys),
            "g": -draw.uniform(*draw.lead, draw.keys),
        },
        draw.normal(*draw.lead, draw.values),
    )


GLA = Architecture(
    "gla",
    "GLA",
    r"$h_i = \mathrm{diag}(e^{g_i}) h_{i-1} + k_i v_i^\top, \quad y_i = h_i^\top q_i$",
    "Yang et al., 2312.06635, own wording",
    gla,
    _sample,
)

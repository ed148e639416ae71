"""HGRN2: the forget gate's complement is the key."""

from __future__ import annotations

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Diagonal
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def hgrn2(
    q: Float[Tensor, "#B #T #H K"],
    forget: Float[Tensor, "#B #T #H K"],
    lower: Float[Tensor, "H K"],
) -> System:
    r"""h_i = diag(f_i) h_{i-1} + (1 - f_i) v_iᵀ,  y_i = h_iᵀ q_i,  f = l + (1 - l) σ(f̃).

    System: Λ = diag(f), B = 1 - f, C = q: GLA with the keys 1 - f. `q` and the raw gates `forget` f̃ are
    (B, T, H, K), `lower` l (H, K) is the layer's lower bound in [0, 1).

    Source: Qin et al., "HGRN2" (2404.07904), own wording; code: fla, `fla/layers/hgrn2.py`.

    >>> import torch, dsf
    >>> x = torch.zeros(1, 3, 1, 1)
    >>> dsf.run(hgrn2(x + 1, x, torch.zeros(1, 1)), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([0.5000, 0.7500, 0.8750])
    """
    open_ = lower + (1 - lower) * forget.sigmoid()
    closed = (1 - lower) * (-forget).sigmoid()
    return System(Diagonal(open_), OuterCoupling(closed), OuterCoupling(q))


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "q": draw.normal(*draw.lead, draw.keys),
            "forget": draw.normal(*draw.lead, draw.keys),
            "lower": 0.8 * draw.uniform(draw.heads, draw.keys),
        },
        draw.normal(*draw.lead, draw.values),
    )


HGRN2 = Architecture(
    "hgrn2",
    "HGRN2",
    r"$h_i = \mathrm{diag}(f_i) h_{i-1} + (1 - f_i) v_i^\top, \quad y_i = h_i^\top q_i, \quad "
    r"f = l + (1 - l)\,\sigma(\tilde{f})$",
    "Qin et al., 2404.07904, own wording",
    hgrn2,
    _sample,
)

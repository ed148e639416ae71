"""minLSTM: forget and input gates that share one unit of weight."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def minlstm(forget: Float[Tensor, "#B #T #H"], enter: Float[Tensor, "#B #T #H"]) -> System:
    r"""h_i = f_i/(f_i + i_i) h_{i-1} + i_i/(f_i + i_i) h̃_i,  y_i = h_i,  f = σ(forget), i = σ(enter).

    System: Λ = f/(f + i), B = i/(f + i), C = 1, one channel per head; raw gates (B, T, H), the tokens are
    the candidates h̃ (B, T, H, 1). The quotient is σ(log f - log i), which nothing overflows.

    Source: Feng et al., "Were RNNs all we needed?" (2410.01201), own wording.

    >>> import dsf
    >>> gates = torch.zeros(1, 3, 1)
    >>> dsf.run(minlstm(gates, gates), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([0.5000, 0.7500, 0.8750])
    """
    share = torch.nn.functional.logsigmoid(forget) - torch.nn.functional.logsigmoid(enter)
    one = torch.ones_like(share[:1, :1, :, None])
    return System(
        Scalar(share.sigmoid()), OuterCoupling((-share).sigmoid()[..., None]), OuterCoupling(one)
    )


def _sample(draw: Draw) -> Sample:
    gates = {"forget": draw.normal(*draw.lead), "enter": draw.normal(*draw.lead)}
    return Sample(gates, draw.normal(*draw.lead, 1))


MINLSTM = Architecture(
    "minlstm",
    "minLSTM",
    r"$h_i = \frac{f_i}{f_i + i_i} h_{i-1} + \frac{i_i}{f_i + i_i} \tilde{h}_i, \quad y_i = h_i$",
    "Feng et al., 2410.01201, own wording",
    minlstm,
    _sample,
)

"""minGRU: a GRU whose gate and candidate do not look at the state."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def mingru(gate: Float[Tensor, "#B #T #H"]) -> System:
    r"""h_i = (1 - z_i) h_{i-1} + z_i h̃_i,  y_i = h_i,  z = σ(gate), one channel per head.

    System: Λ = 1 - z, B = z, C = 1. `gate` are the raw gates (B, T, H) of H channels; the tokens are the
    candidates h̃ (B, T, H, 1), in the log-space version of the paper after its g(·).

    Source: Feng et al., "Were RNNs all we needed?" (2410.01201), own wording.

    >>> import dsf
    >>> dsf.run(mingru(torch.zeros(1, 3, 1)), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([0.5000, 0.7500, 0.8750])
    """
    one = torch.ones_like(gate[:1, :1, :, None])
    return System(
        Scalar((-gate).sigmoid()), OuterCoupling(gate.sigmoid()[..., None]), OuterCoupling(one)
    )


def _sample(draw: Draw) -> Sample:
    return Sample({"gate": draw.normal(*draw.lead)}, draw.normal(*draw.lead, 1))


MINGRU = Architecture(
    "mingru",
    "minGRU",
    r"$h_i = (1 - z_i) h_{i-1} + z_i \tilde{h}_i, \quad y_i = h_i, \quad z = \sigma(\tilde{z})$",
    "Feng et al., 2410.01201, own wording",
    mingru,
    _sample,
)

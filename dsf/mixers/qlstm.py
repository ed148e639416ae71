"""qLSTM: an LSTM whose gates see the input alone, without the tanh."""

from __future__ import annotations

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def qlstm(
    forget: Float[Tensor, "#B #T #H"],
    enter: Float[Tensor, "#B #T #H"],
    out: Float[Tensor, "#B #T #H"],
) -> System:
    r"""h_i = σ(f̃_i) h_{i-1} + σ(ĩ_i) x_i,  y_i = σ(õ_i) h_i, one channel per head.

    System: Λ = σ(f̃), B = σ(ĩ), C = σ(õ) for raw gates (B, T, H); the tokens are x (B, T, H, 1). Unlike
    S6, forgetting and writing have gates of their own.

    Source: Sieber et al. (2405.15731), section 4, own wording.

    >>> import torch, dsf
    >>> gates = torch.zeros(1, 3, 1)
    >>> dsf.run(qlstm(gates, gates, gates), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([0.2500, 0.3750, 0.4375])
    """
    return System(
        Scalar(forget.sigmoid()),
        OuterCoupling(enter.sigmoid()[..., None]),
        OuterCoupling(out.sigmoid()[..., None]),
    )


def _sample(draw: Draw) -> Sample:
    gates = {name: draw.normal(*draw.lead) for name in ("forget", "enter", "out")}
    return Sample(gates, draw.normal(*draw.lead, 1))


QLSTM = Architecture(
    "qlstm",
    "qLSTM",
    r"$h_i = \sigma(\tilde{f}_i) h_{i-1} + \sigma(\tilde{\imath}_i) x_i, \quad y_i = \sigma(\tilde{o}_i) h_i$",
    "Sieber et al., 2405.15731, section 4, own wording",
    qlstm,
    _sample,
)

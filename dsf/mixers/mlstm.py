"""mLSTM, the matrix memory of xLSTM: exponential input gates, kept finite by a running maximum."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import Normaliser, System

from .architecture import Architecture, Draw, Sample


def mlstm(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    input_gate: Float[Tensor, "#B #T #H"],
    forget_gate: Float[Tensor, "#B #T #H"],
    *,
    forget: Literal["sigmoid", "exp"] = "sigmoid",
) -> System:
    r"""h_i = f_i h_{i-1} + e^{ĩ_i} k_i v_iᵀ,  n_i = f_i n_{i-1} + e^{ĩ_i} k_i,  y_i = h_iᵀq_i / max(|n_iᵀq_i|, 1).

    System: Λ = f I, log write gate ĩ, normaliser with floor 1. The forms scale h and n by e^{-m} with
    m_i = max(log f_i + m_{i-1}, ĩ_i), so gates of any size stay finite. `q`, `k` are (B, T, H, K) and k is
    divided by √K here; `input_gate` ĩ and `forget_gate` f̃ are raw gates (B, T, H), f = σ(f̃) or e^{f̃}.

    Source: Beck et al., "xLSTM" (2405.04517), section 2.3; stabilisation as in section 2.2.

    >>> import dsf
    >>> q = k = torch.ones(1, 2, 1, 1)
    >>> gates = torch.full((1, 2, 1), 1000.0)
    >>> dsf.run(mlstm(q, k, gates, gates), torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1))[0].flatten()
    tensor([1., 2.])
    """
    if forget not in ("sigmoid", "exp"):
        raise InvalidInput(f"`forget` must be 'sigmoid' or 'exp'; got {forget!r}")
    log_forget = torch.nn.functional.logsigmoid(forget_gate) if forget == "sigmoid" else forget_gate
    return System(
        Scalar.from_log(log_forget),
        OuterCoupling(k / k.shape[-1] ** 0.5),
        OuterCoupling(q),
        normaliser=Normaliser(floor=1.0),
        log_write=input_gate,
    )


def _sample(draw: Draw) -> Sample:
    lead = (draw.batch, draw.length, draw.heads)
    return Sample(
        {
            "q": draw.normal(*lead, draw.keys),
            "k": draw.normal(*lead, draw.keys),
            "input_gate": 3 * draw.normal(*lead),
            "forget_gate": 3 + draw.normal(*lead),
        },
        draw.normal(*lead, draw.values),
    )


MLSTM = Architecture(
    "mlstm",
    "mLSTM (xLSTM)",
    r"$h_i = f_i h_{i-1} + e^{\tilde{\imath}_i} k_i v_i^\top, \quad y_i = h_i^\top q_i \,/\, \max(|n_i^\top q_i|, 1)$",
    "Beck et al., 2405.04517, section 2.3",
    mlstm,
    _sample,
)

"""RG-LRU, the real-gated linear recurrent unit of Griffin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample

SHARPNESS = 8.0


def rg_lru(
    recurrence: Float[Tensor, "#B #T #H"],
    enter: Float[Tensor, "#B #T #H"],
    rate: Float[Tensor, " H"],
    *,
    variant: Literal["paper", "code"] = "paper",
) -> System:
    r"""h_i = a_i h_{i-1} + √(1 - a_i²) (i_i x_i),  y_i = h_i,  a_i = σ(Λ)^{8 r_i},  r, i = σ(raw gates).

    System: Λ = a, B = √(1 - a²) i, C = 1, one channel per head. Raw gates `recurrence` and `enter` are
    (B, T, H), `rate` (H,), the tokens x (B, T, H, 1). In the code `rate` has the other sign,
    log a = -8 r softplus(rate), and the first token is written with 1 in place of √(1 - a²).

    Source: De et al., "Griffin" (2402.19427), own wording; code: recurrentgemma, `RGLRU`.

    >>> import dsf
    >>> gates, rate = torch.full((1, 3, 1), torch.inf), torch.tensor([0.0])  # a = 1/256
    >>> dsf.run(rg_lru(gates, gates, rate), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([1.0000, 1.0039, 1.0039])
    """
    if variant not in ("paper", "code"):
        raise InvalidInput(f"`variant` must be 'paper' or 'code'; got {variant!r}")
    log_a = -SHARPNESS * recurrence.sigmoid() * softplus(rate if variant == "code" else -rate)
    gain = torch.sqrt(-torch.expm1(2 * log_a))
    if variant == "code":
        gain = torch.cat([torch.ones_like(gain[:, :1]), gain[:, 1:]], 1)
    write = (gain * enter.sigmoid())[..., None]
    one = torch.ones_like(log_a[:1, :1, :, None])
    return System(Scalar.from_log(log_a), OuterCoupling(write), OuterCoupling(one))


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "recurrence": draw.normal(*draw.lead),
            "enter": draw.normal(*draw.lead),
            "rate": 2 + draw.uniform(draw.heads),
        },
        draw.normal(*draw.lead, 1),
    )


RG_LRU = Architecture(
    "rg-lru",
    "RG-LRU (Griffin)",
    r"$h_i = a_i h_{i-1} + \sqrt{1 - a_i^2}\, (i_i x_i), \quad y_i = h_i, \quad a_i = \sigma(\Lambda)^{8 r_i}$",
    "De et al., 2402.19427, own wording",
    rg_lru,
    _sample,
)

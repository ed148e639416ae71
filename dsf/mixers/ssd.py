"""SSD, the scalar state space of Mamba-2: one decay per head and step."""

from __future__ import annotations

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def ssd(
    delta: Float[Tensor, "#B #T #H"],
    A: Float[Tensor, " H"],
    b: Float[Tensor, "#B #T #H N"],
    c: Float[Tensor, "#B #T #H N"],
    *,
    skip: Float[Tensor, " H"] | None = None,
) -> System:
    r"""h_i = e^{Δ_i A} h_{i-1} + Δ_i b_i x_iᵀ,  y_i = h_iᵀ c_i + D x_i.

    System: Λ = e^{ΔA} I, B = Δ b, C = c, D = skip. `delta` (B, T, H) is positive (after its softplus),
    `A` (H,) negative, `b` and `c` (B, T, H, N), `skip` (H,); the tokens are x (B, T, H, P).

    Source: Dao and Gu, "Transformers are SSMs" (2405.21060), own wording.

    >>> import torch, dsf
    >>> ones = torch.ones(1, 3, 1)
    >>> system = ssd(ones, torch.tensor([-0.6931472]), ones[..., None], ones[..., None])
    >>> dsf.run(system, torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    return System(
        Scalar.from_log(delta * A),
        OuterCoupling(delta[..., None] * b),
        OuterCoupling(c),
        feedthrough=None if skip is None else Scalar(skip[None, None]),
    )


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "delta": draw.uniform(*draw.lead),
            "A": -draw.uniform(draw.heads) * 4,
            "b": draw.normal(*draw.lead, draw.keys),
            "c": draw.normal(*draw.lead, draw.keys),
            "skip": draw.normal(draw.heads),
        },
        draw.normal(*draw.lead, draw.values),
    )


SSD = Architecture(
    "ssd",
    "SSD (Mamba-2)",
    r"$h_i = e^{\Delta_i A} h_{i-1} + \Delta_i b_i x_i^\top, \quad y_i = h_i^\top c_i + D x_i$",
    "Dao and Gu, 2405.21060, own wording",
    ssd,
    _sample,
)

"""S4D: diagonal state spaces, constant in time, one per channel."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float, Inexact
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample
from .discretisation import Rule, discretise


def s4d(
    step: Float[Tensor, " H"],
    A: Inexact[Tensor, "H N"],
    b: Inexact[Tensor, "H N"],
    c: Inexact[Tensor, "H N"],
    *,
    skip: Float[Tensor, " H"] | None = None,
    discretisation: Rule = "zoh",
) -> System:
    r"""h_i = Λ̄ h_{i-1} + B̄ u_i,  y_i = 2 Re(C h_i) + D u_i, one complex system per channel.

    Zero-order hold: Λ̄ = e^{ΔA}, B̄ = (e^{ΔA} - 1)/A · B. Bilinear: Λ̄ = (1 + ΔA/2)/(1 - ΔA/2),
    B̄ = Δ/(1 - ΔA/2) · B. The states are one of each conjugate pair, hence 2 Re. Channels are heads:
    `step` is (H,), `A`, `b`, `c` complex (H, N), `skip` (H,); the tokens are (B, T, H, 1).

    Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space
    models" (2206.11893), section 3.

    >>> import dsf
    >>> A, b = torch.tensor([[-0.5 + 3j]]), torch.ones(1, 1, dtype=torch.complex64)
    >>> system = s4d(torch.tensor([0.1]), A, b, b)
    >>> dsf.select(system, torch.ones(1, 4096, 1, 1)).name
    'convolution'
    """
    transition, held = discretise(step[:, None], A, discretisation)
    return System(
        transition.map(lambda x, _: x[None, None]),
        OuterCoupling((held * b)[None, None]),
        OuterCoupling(2 * c[None, None]),
        feedthrough=None if skip is None else Scalar(skip[None, None]),
        real_part=True,
    )


def _sample(draw: Draw) -> Sample:
    channels, states = draw.heads, draw.keys
    imaginary = torch.pi * torch.arange(states, dtype=draw.dtype)
    return Sample(
        {
            "step": 0.01 + 0.1 * draw.uniform(channels),
            "A": torch.complex(-draw.uniform(channels, states), imaginary.expand(channels, states)),
            "b": torch.complex(draw.normal(channels, states), draw.normal(channels, states)),
            "c": torch.complex(draw.normal(channels, states), draw.normal(channels, states)),
            "skip": draw.normal(channels),
        },
        draw.normal(draw.batch, draw.length, channels, 1),
    )


S4D = Architecture(
    "s4d",
    "S4D",
    r"$h_i = e^{\Delta A} h_{i-1} + \bar{B} u_i, \quad y_i = 2\,\mathrm{Re}(C h_i) + D u_i$",
    "Gu et al., 2206.11893, section 3",
    s4d,
    _sample,
)

"""S4: a state matrix that is diagonal plus low rank, one system per channel, constant in time."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float, Inexact
from dsf.structure import DPLR, Dense, Diagonal, Scalar, Structure
from dsf.system import System

from .architecture import Architecture, Draw, Sample
from .discretisation import Rule, check_rule


def s4(
    step: Float[Tensor, " H"],
    A: Inexact[Tensor, "H N"],
    p: Inexact[Tensor, "H N"],
    b: Inexact[Tensor, "H N"],
    c: Inexact[Tensor, "H N"],
    *,
    skip: Float[Tensor, " H"] | None = None,
    discretisation: Rule = "bilinear",
) -> System:
    r"""h_i = Ā h_{i-1} + B̄ u_i,  y_i = 2 Re(C h_i) + D u_i, discretised from h' = (diag(A) - p p*) h + B u.

    Bilinear: Ā = (I - Δ/2 𝒜)⁻¹ (I + Δ/2 𝒜), which is diagonal plus rank one by Woodbury's identity, and
    B̄ = (I - Δ/2 𝒜)⁻¹ Δ B. Zero-order hold: Ā = e^{Δ𝒜}, which has no such structure, so Λ is Dense.
    Channels are heads: `step` (H,), the rest complex (H, N), `skip` (H,); tokens (B, T, H, 1).

    Source: Gu, Goel, Ré, "Efficiently modeling long sequences with structured state spaces"
    (2111.00396), section 3.3 and appendix C.3.

    >>> import dsf
    >>> A, p = torch.tensor([[-0.5 + 3j]]), torch.full((1, 1), 0.5 + 0j)
    >>> system = s4(torch.tensor([0.1]), A, p, p, p)
    >>> type(system.transition).__name__, dsf.select(system, torch.ones(1, 4096, 1, 1)).name
    ('DPLR', 'convolution')
    """
    check_rule(discretisation)
    transition, held = (_bilinear if discretisation == "bilinear" else _held)(step, A, p, b)
    return System(
        transition.map(lambda x, _: x[None, None]),
        OuterCoupling(held[None, None]),
        OuterCoupling(2 * c[None, None]),
        feedthrough=None if skip is None else Scalar(skip[None, None]),
        real_part=True,
    )


def _bilinear(step: Tensor, A: Tensor, p: Tensor, b: Tensor) -> tuple[Structure, Tensor]:
    """(I - Δ/2 𝒜)⁻¹ = E - E p w p*E with E = 1/(1 - ΔA/2), w = (Δ/2)/(1 + Δ/2 p*E p); Ā is twice that - I."""
    half = step[:, None] / 2
    resolvent = 1 / (1 - half * A)
    weight = half / (1 + half * (p.conj() * resolvent * p).sum(-1, keepdim=True))
    left, right = -weight * resolvent * p, resolvent * p.conj()
    held = resolvent * b + left * (right * b).sum(-1, keepdim=True)
    return DPLR(Diagonal(2 * resolvent - 1), 2 * left[..., None], right[..., None]), 2 * half * held


def _held(step: Tensor, A: Tensor, p: Tensor, b: Tensor) -> tuple[Structure, Tensor]:
    """exp Δ [[𝒜, B], [0, 0]] holds both e^{Δ𝒜} and ∫ e^{s𝒜} B ds."""
    matrix = torch.diag_embed(A) - p[..., :, None] * p.conj()[..., None, :]
    augmented = torch.cat([matrix, b[..., None]], -1)
    augmented = torch.nn.functional.pad(augmented, (0, 0, 0, 1))
    whole = torch.matrix_exp(step[:, None, None] * augmented)
    return Dense(whole[:, :-1, :-1]), whole[:, :-1, -1]


def _sample(draw: Draw) -> Sample:
    channels, states = draw.heads, draw.keys

    def complex_normal() -> Tensor:
        return torch.complex(draw.normal(channels, states), draw.normal(channels, states))

    imaginary = torch.pi * torch.arange(states, dtype=draw.dtype)
    return Sample(
        {
            "step": 0.01 + 0.1 * draw.uniform(channels),
            "A": torch.complex(-draw.uniform(channels, states), imaginary.expand(channels, states)),
            "p": complex_normal() / 2,
            "b": complex_normal(),
            "c": complex_normal(),
            "skip": draw.normal(channels),
        },
        draw.normal(draw.batch, draw.length, channels, 1),
    )


S4 = Architecture(
    "s4",
    "S4 (DPLR)",
    r"$h_i = \bar{A} h_{i-1} + \bar{B} u_i, \quad y_i = 2\,\mathrm{Re}(C h_i) + D u_i, \quad "
    r"\bar{A} = (I - \frac{\Delta}{2} \mathcal{A})^{-1} (I + \frac{\Delta}{2} \mathcal{A}), \; "
    r"\mathcal{A} = \mathrm{diag}(A) - p p^*$",
    "Gu et al., 2111.00396, section 3.3",
    s4,
    _sample,
)

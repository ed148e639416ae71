"""Julistiono et al. 2024: mirror descent and margins in p-norms."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="julistiono2024",
    title="Optimizing attention with mirror descent: generalized max-margin token selection",
    authors=(
        "Aaron Alvarado Kristanto Julistiono",
        "Davoud Ataee Tarzanagh",
        "Navid Azizan",
    ),
    year=2024,
    arxiv="2410.14581",
    url="https://arxiv.org/abs/2410.14581",
    summary=(
        "The potential of mirror descent, a p-norm to the power p, chooses the norm of the margin."
    ),
    claims=("dsf.theory.claims.mirror:CLAIMS",),
)

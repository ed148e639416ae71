"""Dewilde and van der Veen 1998: state spaces of maps that vary in time."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="dewilde1998",
    title="Time-varying systems and computations",
    authors=(
        "Patrick Dewilde",
        "Alle-Jan van der Veen",
    ),
    year=1998,
    arxiv="",
    url="https://doi.org/10.1007/978-1-4757-2817-0",
    summary="Hankel blocks of a causal map: their ranks are the least states, their singular values the rest.",
    claims=("dsf.claims.realizations:CLAIMS",),
)

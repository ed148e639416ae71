"""Gu, Goel and Ré 2021: structured state spaces."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="gu2021",
    title="Efficiently modeling long sequences with structured state spaces",
    authors=(
        "Albert Gu",
        "Karan Goel",
        "Christopher Ré",
    ),
    year=2021,
    arxiv="2111.00396",
    url="https://arxiv.org/abs/2111.00396",
    summary="S4: a state matrix that is diagonal plus low rank, run as a convolution.",
    claims=("dsf.claims.state_spaces:GU2021",),
)

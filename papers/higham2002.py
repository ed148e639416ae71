"""Higham 2002: rounding errors and how to bound them."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="higham2002",
    title="Accuracy and stability of numerical algorithms, second edition",
    authors=("Nicholas J. Higham",),
    year=2002,
    arxiv="",
    url="https://doi.org/10.1137/1.9780898718027",
    summary="Constants, running bounds, stagnation: what they say of recurrences of thousands of steps.",
    claims=("dsf.claims.rounding:CLAIMS",),
)

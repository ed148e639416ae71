"""Gu and Dao 2023: selective state spaces."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="gu2023",
    title="Mamba: linear-time sequence modeling with selective state spaces",
    authors=(
        "Albert Gu",
        "Tri Dao",
    ),
    year=2023,
    arxiv="2312.00752",
    url="https://arxiv.org/abs/2312.00752",
    summary="S6: a state space whose step and couplings are chosen by the token.",
    claims=("dsf.claims.scalar_decays:GU2023",),
)

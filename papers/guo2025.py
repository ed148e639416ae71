"""Guo et al. 2025: log-linear attention."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="guo2025",
    title="Log-linear attention",
    authors=(
        "Han Guo",
        "Songlin Yang",
        "Tarushii Goel",
        "Eric P. Xing",
        "Tri Dao",
        "Yoon Kim",
    ),
    year=2025,
    arxiv="2506.04761",
    url="https://arxiv.org/abs/2506.04761",
    summary="A state per power of two of the past.",
    claims=("dsf.claims.state_spaces:GUO2025",),
)

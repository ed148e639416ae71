"""Tarzanagh et al. 2023: a tunable prompt selects tokens by their margin."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="tarzanagh2023-max-margin",
    title="Max-margin token selection in attention mechanism",
    authors=(
        "Davoud Ataee Tarzanagh",
        "Yingcong Li",
        "Xuechen Zhang",
        "Samet Oymak",
    ),
    year=2023,
    arxiv="2306.13596",
    url="https://arxiv.org/abs/2306.13596",
    summary=(
        "Descent on a prompt turns to the max-margin separator of locally optimal tokens from others."
    ),
    claims=("dsf.theory.claims.descent:MAX_MARGIN_CLAIMS", "dsf.theory.claims.joint:CLAIMS"),
    figures=("dsf.theory.figures:trajectories",),
)

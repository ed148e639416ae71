"""Schlag, Irie and Schmidhuber 2021: the delta rule."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="schlag2021",
    title="Linear transformers are secretly fast weight programmers",
    authors=(
        "Imanol Schlag",
        "Kazuki Irie",
        "Jürgen Schmidhuber",
    ),
    year=2021,
    arxiv="2102.11174",
    url="https://arxiv.org/abs/2102.11174",
    summary="The delta rule as the update of a linear attention's memory.",
    claims=("dsf.claims.delta_family:SCHLAG2021", "dsf.claims.delta_stability:CLAIMS"),
)

"""Sandberg and Rantzer 2004: balanced truncation where the system varies in time."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="sandberg2004",
    title="Balanced truncation of linear time-varying systems",
    authors=(
        "Henrik Sandberg",
        "Anders Rantzer",
    ),
    year=2004,
    arxiv="",
    url="https://doi.org/10.1109/TAC.2003.822862",
    summary="Error bounds from Lyapunov inequalities, with states whose number may vary in time.",
    claims=("dsf.claims.realizations:SANDBERG2004",),
)

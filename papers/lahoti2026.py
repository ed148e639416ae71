"""Lahoti et al. 2026: Mamba-3."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="lahoti2026",
    title="Mamba-3: improved sequence modeling using state space principles",
    authors=(
        "Aakash Lahoti",
        "Kevin Y. Li",
        "Berlin Chen",
        "Caitlin Wang",
        "Aviv Bick",
        "J. Zico Kolter",
        "Tri Dao",
        "Albert Gu",
    ),
    year=2026,
    arxiv="2603.15569",
    url="https://arxiv.org/abs/2603.15569",
    summary="Mamba-3: a trapezoidal step, a rotating state, several inputs and outputs.",
    claims=("dsf.claims.state_spaces:LAHOTI2026",),
)

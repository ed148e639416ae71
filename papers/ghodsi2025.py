"""Ghodsi 2025: how many attention heads a linear recurrence asks for."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="ghodsi2025",
    title="How many heads make an SSM? A unified framework for attention and state space models",
    authors=("Ali Ghodsi",),
    year=2025,
    arxiv="2512.15115",
    url="https://arxiv.org/abs/2512.15115",
    summary="The span of lag operators counts the heads; attention alone has paths that no distance weakens.",
    claims=("dsf.claims.head_count:CLAIMS",),
)

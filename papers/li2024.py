"""Li et al. 2024: next-token prediction by one attention layer."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="li2024",
    title="Mechanics of next token prediction with self-attention",
    authors=(
        "Yingcong Li",
        "Yixiao Huang",
        "M. Emrullah Ildiz",
        "Ankit Singh Rawat",
        "Samet Oymak",
    ),
    year=2024,
    arxiv="2403.08081",
    url="https://arxiv.org/abs/2403.08081",
    summary=(
        "Graphs of token priorities per last token: components give equalities, edges between them margins."
    ),
    claims=("dsf.theory.claims.graphs:CLAIMS",),
)

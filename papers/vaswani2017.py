"""Vaswani et al. 2017: softmax attention."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="vaswani2017",
    title="Attention is all you need",
    authors=(
        "Ashish Vaswani",
        "Noam Shazeer",
        "Niki Parmar",
        "Jakob Uszkoreit",
        "Llion Jones",
        "Aidan N. Gomez",
        "Łukasz Kaiser",
        "Illia Polosukhin",
    ),
    year=2017,
    arxiv="1706.03762",
    url="https://arxiv.org/abs/1706.03762",
    summary="Softmax attention.",
    claims=("dsf.claims.gated_cells:VASWANI2017",),
)

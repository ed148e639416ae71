"""Feng et al. 2024: minimal gated cells."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="feng2024",
    title="Were RNNs all we needed?",
    authors=(
        "Leo Feng",
        "Frederick Tung",
        "Mohamed Osama Ahmed",
        "Yoshua Bengio",
        "Hossein Hajimirsadeghi",
    ),
    year=2024,
    arxiv="2410.01201",
    url="https://arxiv.org/abs/2410.01201",
    summary="minGRU and minLSTM: gated cells whose gates do not see the state.",
    claims=("dsf.claims.gated_cells:FENG2024",),
)

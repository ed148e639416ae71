"""Qin et al. 2024: the second lightning attention, left products within blocks and right products between them."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="qin2024-lightning2",
    title=(
        "Lightning attention-2: a free lunch for handling unlimited sequence lengths in large language models"
    ),
    authors=(
        "Zhen Qin",
        "Weigao Sun",
        "Dong Li",
        "Xuyang Shen",
        "Weixuan Sun",
        "Yiran Zhong",
    ),
    year=2024,
    arxiv="2401.04658",
    url="https://arxiv.org/abs/2401.04658",
    summary="The chunk form of linear attention with decay as a kernel that keeps the state on chip.",
    claims=(
        "dsf.kernels.claims.chunks:LIGHTNING2",
        "dsf.kernels.claims.published:CLAIMS",
    ),
    figures=("dsf.kernels.claims.figures:published_times",),
)

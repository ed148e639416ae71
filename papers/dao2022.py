"""Dao et al. 2022: exact attention in tiles, with the statistics of a row on chip."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="dao2022",
    title="FlashAttention: fast and memory-efficient exact attention with IO-awareness",
    authors=(
        "Tri Dao",
        "Daniel Y. Fu",
        "Stefano Ermon",
        "Atri Rudra",
        "Christopher Ré",
    ),
    year=2022,
    arxiv="2205.14135",
    url="https://arxiv.org/abs/2205.14135",
    summary="Softmax over blocks of keys with rescaled sums; one number a row is kept for the gradients.",
    claims=(
        "dsf.kernels.claims.online_softmax:DAO2022",
        "dsf.kernels.claims.published:FLASH_MEMORY",
    ),
)

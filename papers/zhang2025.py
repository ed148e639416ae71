"""Zhang et al. 2025: sliding tile attention, and the kernels it was compared with."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="zhang2025",
    title="Fast video generation with sliding tile attention",
    authors=(
        "Peiyuan Zhang",
        "Yongqi Chen",
        "Runlong Su",
        "Hangliang Ding",
        "Ion Stoica",
        "Zhengzhong Liu",
        "Hao Zhang",
    ),
    year=2025,
    arxiv="2502.04507",
    url="https://arxiv.org/abs/2502.04507",
    summary="Windows of whole tiles that move by whole tiles: no tile needs a mask.",
    claims=("dsf.sim.claims.blocks:STA_CLAIMS",),
)

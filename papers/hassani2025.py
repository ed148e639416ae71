"""Hassani et al. 2025: generalized neighborhood attention and the simulator that chose its strides."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="hassani2025",
    title="Generalized Neighborhood Attention: multi-dimensional sparse attention at the speed of light",
    authors=(
        "Ali Hassani",
        "Fengzhe Zhou",
        "Aditya Kane",
        "Jiannan Huang",
        "Chieh-Yun Chen",
        "Min Shi",
        "Steven Walton",
        "Markus Hoehnerbach",
        "Vijay Thakkar",
        "Michael Isaev",
        "Qinsheng Zhang",
        "Bing Xu",
        "Haicheng Wu",
        "Wen-mei Hwu",
        "Ming-Yu Liu",
        "Humphrey Shi",
    ),
    year=2025,
    arxiv="2504.16922",
    url="https://arxiv.org/abs/2504.16922",
    summary=(
        "A window, a stride, a dilation and causality per axis; strides that align windows with tiles "
        "turn the reduction of operations into a reduction of time."
    ),
    claims=(
        "dsf.sim.claims.tables:CLAIMS",
        "dsf.sim.claims.theorems:CLAIMS",
        "dsf.sim.claims.blocks:GNA_CLAIMS",
        "dsf.sim.claims.times:CLAIMS",
        "dsf.sim.claims.searches:CLAIMS",
        "dsf.kernels.claims.neighborhoods:VISITED_TILES",
    ),
    figures=("dsf.sim.plots:stride_bars",),
)

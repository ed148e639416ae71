"""Yang et al. 2023: gated linear attention."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="yang2023",
    title="Gated linear attention transformers with hardware-efficient training",
    authors=(
        "Songlin Yang",
        "Bailin Wang",
        "Yikang Shen",
        "Rameswar Panda",
        "Yoon Kim",
    ),
    year=2023,
    arxiv="2312.06635",
    url="https://arxiv.org/abs/2312.06635",
    summary="Linear attention with a decay per key channel, and its chunk-wise form.",
    claims=(
        "dsf.claims.scalar_decays:YANG2023",
        "dsf.kernels.claims.gate_gradients:SYMBOLIC",
        "dsf.kernels.claims.gate_rounding:CLAIMS",
        "dsf.kernels.claims.traffic:CLAIMS",
    ),
)

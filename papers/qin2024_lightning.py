"""Qin et al. 2024: lightning attention, in time that does not depend on length."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="qin2024-lightning",
    title="Various lengths, constant speed: efficient language modeling with lightning attention",
    authors=(
        "Zhen Qin",
        "Weigao Sun",
        "Dong Li",
        "Xuyang Shen",
        "Weixuan Sun",
        "Yiran Zhong",
    ),
    year=2024,
    arxiv="2405.17381",
    url="https://arxiv.org/abs/2405.17381",
    summary=(
        "Linear attention with a fixed decay per head, computed in blocks; its operations per token do not "
        "depend on the length."
    ),
    claims=(
        "dsf.kernels.claims.decay_rates:LIGHTNING",
        "dsf.kernels.claims.operations:CLAIMS",
        "dsf.kernels.claims.crossover:CROSSOVER",
        "dsf.kernels.claims.speeds:CONSTANT_TIME",
    ),
    figures=("dsf.kernels.claims.figures:operations_per_token",),
)

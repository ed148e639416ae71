"""Katharopoulos et al. 2020: linear attention."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="katharopoulos2020",
    title="Transformers are RNNs: fast autoregressive transformers with linear attention",
    authors=(
        "Angelos Katharopoulos",
        "Apoorv Vyas",
        "Nikolaos Pappas",
        "François Fleuret",
    ),
    year=2020,
    arxiv="2006.16236",
    url="https://arxiv.org/abs/2006.16236",
    summary="Attention with a separable kernel is a recurrence.",
    claims=("dsf.claims.scalar_decays:KATHAROPOULOS2020",),
)

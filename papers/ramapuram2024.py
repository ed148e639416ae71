"""Ramapuram et al. 2024: attention with sigmoid weights."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="ramapuram2024",
    title="Theory, analysis, and best practices for sigmoid self-attention",
    authors=(
        "Jason Ramapuram",
        "Federico Danieli",
        "Eeshan Dhekane",
        "Floris Weers",
        "Dan Busbridge",
        "Pierre Ablin",
        "Tatiana Likhomanenko",
        "Jagrit Digani",
        "Zijin Gu",
        "Amitis Shidani",
        "Russ Webb",
    ),
    year=2024,
    arxiv="2409.04431",
    url="https://arxiv.org/abs/2409.04431",
    summary="Weights that do not know of each other: no statistics of a row, a bias of -log T instead.",
    claims=(
        "dsf.kernels.claims.sigmoid:RAMAPURAM2024",
        "dsf.kernels.claims.slopes:SMALLER_EVERYWHERE",
        "dsf.kernels.claims.row_statistics:STATISTICS_SAVED",
        "dsf.kernels.claims.speeds:SIGMOID_IS_FASTER",
    ),
)

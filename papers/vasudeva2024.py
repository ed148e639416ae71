"""Vasudeva et al. 2024: rates of normalised descent on attention weights."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="vasudeva2024",
    title="Implicit bias and fast convergence rates for self-attention",
    authors=(
        "Bhavya Vasudeva",
        "Puneesh Deora",
        "Christos Thrampoulidis",
    ),
    year=2024,
    arxiv="2402.05738",
    url="https://arxiv.org/abs/2402.05738",
    summary=("Global convergence for some data, and finite-time rates of direction and sparsity."),
    claims=("dsf.theory.claims.rates:CLAIMS",),
)

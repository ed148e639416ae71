"""Sheen et al. 2024: gradient flow of keys and queries, and the nuclear norm."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="sheen2024",
    title="Implicit regularization of gradient flow on one-layer softmax attention",
    authors=(
        "Heejune Sheen",
        "Siyu Chen",
        "Tianhao Wang",
        "Harrison H. Zhou",
    ),
    year=2024,
    arxiv="2403.08699",
    url="https://arxiv.org/abs/2403.08699",
    summary=(
        "With separate K and Q, gradient flow under the exponential loss minimises the nuclear norm."
    ),
    claims=("dsf.theory.claims.flows:CLAIMS",),
)

"""Heinsen 2023: a linear recurrence by two prefix sums."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="heinsen2023",
    title="Efficient parallelization of a ubiquitous sequential computation",
    authors=("Franz A. Heinsen",),
    year=2023,
    arxiv="2311.06281",
    url="https://arxiv.org/abs/2311.06281",
    summary="Scans of h_i = a_i h_{i-1} + b_i in log space, and what float32 makes of them.",
    claims=("dsf.claims.log_space:CLAIMS",),
)

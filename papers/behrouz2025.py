"""Behrouz, Zhong and Mirrokni 2025: memories learned at test time."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="behrouz2025",
    title="Titans: learning to memorize at test time",
    authors=(
        "Ali Behrouz",
        "Peilin Zhong",
        "Vahab Mirrokni",
    ),
    year=2025,
    arxiv="2501.00663",
    url="https://arxiv.org/abs/2501.00663",
    summary="A memory that is trained by gradient descent with momentum while it reads.",
    claims=("dsf.claims.delta_family:BEHROUZ2025",),
)

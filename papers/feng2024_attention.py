"""Feng et al. 2024: attention with a fixed query as a recurrence and as a scan."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="feng2024-attention",
    title="Attention as an RNN",
    authors=(
        "Leo Feng",
        "Frederick Tung",
        "Hossein Hajimirsadeghi",
        "Mohamed Osama Ahmed",
        "Yoshua Bengio",
        "Greg Mori",
    ),
    year=2024,
    arxiv="2405.13956",
    url="https://arxiv.org/abs/2405.13956",
    summary="Aaren: softmax of one learned query at every prefix, by an associative merge of pieces of a row.",
    claims=(
        "dsf.kernels.claims.online_softmax:MONOID",
        "dsf.kernels.claims.aaren:SYMBOLIC",
        "dsf.kernels.claims.aaren:CLAIMS",
    ),
)

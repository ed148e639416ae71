"""Dao and Gu 2024: state spaces with scalar decays as masked attention."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="dao2024",
    title=(
        "Transformers are SSMs: generalized models and efficient algorithms through "
        "structured state space duality"
    ),
    authors=(
        "Tri Dao",
        "Albert Gu",
    ),
    year=2024,
    arxiv="2405.21060",
    url="https://arxiv.org/abs/2405.21060",
    summary="Mamba-2: a scalar decay per head makes a state space a masked attention.",
    claims=("dsf.claims.scalar_decays:DAO2024",),
)

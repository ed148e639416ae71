"""Orvieto et al. 2023: the linear recurrent unit."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="orvieto2023",
    title="Resurrecting recurrent neural networks for long sequences",
    authors=(
        "Antonio Orvieto",
        "Samuel L. Smith",
        "Albert Gu",
        "Anushan Fernando",
        "Caglar Gulcehre",
        "Razvan Pascanu",
        "Soham De",
    ),
    year=2023,
    arxiv="2303.06349",
    url="https://arxiv.org/abs/2303.06349",
    summary="The linear recurrent unit: complex diagonal, stable by its parameters.",
    claims=("dsf.claims.state_spaces:ORVIETO2023",),
)

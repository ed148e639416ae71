"""Yang, Kautz and Hatamizadeh 2024: the gated delta rule and its family."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="yang2024",
    title="Gated delta networks: improving Mamba2 with delta rule",
    authors=(
        "Songlin Yang",
        "Jan Kautz",
        "Ali Hatamizadeh",
    ),
    year=2024,
    arxiv="2412.06464",
    url="https://arxiv.org/abs/2412.06464",
    summary="The delta rule with a decay; its neighbours in the delta family are stated here too.",
    claims=(
        "dsf.claims.delta_family:YANG2024",
        "dsf.claims.certified_runs:DELTA_RULE_RUN",
        "dsf.kernels.claims.wy:CLAIMS",
    ),
)

"""Sieber et al. 2024: attention, state space models and recurrent networks as one recurrence."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="sieber2024",
    title=(
        "Understanding the differences in foundation models: attention, state space models, and "
        "recurrent neural networks"
    ),
    authors=(
        "Jerome Sieber",
        "Carmen Amo Alonso",
        "Alexandre Didier",
        "Melanie N. Zeilinger",
        "Antonio Orvieto",
    ),
    year=2024,
    arxiv="2405.15731",
    url="https://arxiv.org/abs/2405.15731",
    summary=(
        "The Dynamical Systems Framework writes attention, S6 and gated recurrent networks as "
        "h_i = Λ_i h_{i-1} + B_i u_i, y_i = C_i h_i + D_i u_i, and compares them there."
    ),
    claims=(
        "dsf.claims.separable:SEPARABLE_ATTENTION",
        "dsf.claims.separable:SEPARABLE_ATTENTION_RUN",
        "dsf.claims.hankel:LINEAR_ATTENTION_RANK",
        "dsf.claims.hankel:SOFTMAX_RANK",
        "dsf.claims.taylor:TRUNCATED_SOFTMAX",
        "dsf.claims.normalisers:CUMULATIVE_NORMALISER",
        "dsf.claims.normalisers:LINEAR_ATTENTION_DECAYS",
        "dsf.claims.gates:REVERSED_SIGMOID",
        "dsf.claims.gates:TIED_GATES",
        "dsf.claims.gates:GRU_GATE",
        "dsf.claims.conversions:STABILISER_CANCELS",
        "dsf.claims.conversions:NORMALISER_IS_A_COLUMN",
        "dsf.claims.conversions:DELTA_RULE_ORTHONORMAL",
        "dsf.claims.gated_cells:SIEBER2024",
        "dsf.claims.states:CLAIMS",
        "dsf.claims.taylor_degrees:CLAIMS",
        "dsf.claims.gauge_reach:CLAIMS",
    ),
    figures=("dsf.analysis.state_sweep:state_against_error",),
)

"""Tarzanagh et al. 2023: one attention layer as a hard-margin SVM over pairs of tokens."""

from __future__ import annotations

from dsf.papers.paper import Paper

PAPER = Paper(
    slug="tarzanagh2023-svm",
    title="Transformers as support vector machines",
    authors=(
        "Davoud Ataee Tarzanagh",
        "Yingcong Li",
        "Christos Thrampoulidis",
        "Samet Oymak",
    ),
    year=2023,
    arxiv="2308.16898",
    url="https://arxiv.org/abs/2308.16898",
    summary=(
        "Trained attention weights turn to the W of least norm that separates the selected tokens: the "
        "Frobenius norm for W, the nuclear norm for (K, Q)."
    ),
    claims=(
        "dsf.theory.claims.paths:CLAIMS",
        "dsf.theory.claims.descent:SVM_CLAIMS",
        "dsf.theory.claims.feasibility:CLAIMS",
        "dsf.theory.claims.landscape:CLAIMS",
        "dsf.theory.claims.nonlinear:CLAIMS",
        "dsf.theory.claims.ranks:CLAIMS",
    ),
    figures=(
        "dsf.theory.figures:local_convergence",
        "dsf.theory.figures:shares",
        "dsf.theory.figures:ranks",
        "dsf.theory.figures:nonlinear_head",
        "dsf.theory.figures:trajectories",
    ),
)

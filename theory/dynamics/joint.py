"""The joint regularisation path of a prompt p and a head v, each on a sphere of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from dsf.errors import InvalidInput

from ..instances import TokenData
from .objective import Objective
from .path import regularisation_path

_ROUNDS = 50
_SETTLED = 1e-13  # the change of v, relative, below which both stay


def joint_path(
    data: TokenData,
    selection: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
    radii: Sequence[tuple[float, float]] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    r"""A local argmin of L(v, p) = Σ_i log(1 + exp(-Y_i vᵀX_iᵀ softmax(X_i p))) / n over ‖v‖ = r, ‖p‖ = R.

    `data` needs labels and one unit query for all samples, as `instances.prompt` has; `start` is (v, p), whose
    directions are taken; `radii` are pairs (r, R). Returns v and p at each pair, float64 (pairs, d). The two are
    minimised in turns until v stays: at large R what is left to p is exponentially small beside what v sees,
    so each is minimised in the logarithm of its own part of the risk.

    Raises `InvalidInput` without labels or with different queries, and `ArithmeticError` where the basin of
    the selection is left.

    Source: Tarzanagh, Li, Zhang, Oymak (arXiv 2306.13596), joint optimisation of head and prompt.

    >>> from dsf.theory.instances import prompt
    >>> data = prompt(2, 3, 8, seed=0)
    >>> best = data.tokens[np.arange(2), data.optimal].T @ data.labels
    >>> v, p = joint_path(data, data.optimal, (best, best), [(10.0, 5.0)])
    >>> float(np.linalg.norm(v)), float(np.linalg.norm(p).round(12))
    (10.0, 5.0)
    """
    query = data.queries[0]
    if data.labels is None or (data.queries != query).any():
        raise InvalidInput("a joint path needs labels, and the same query in every sample")
    v, p = (np.asarray(part, dtype=np.float64) for part in start)
    heads, prompts = [], []
    for r, radius in radii:
        v = r / np.linalg.norm(v) * v
        for _ in range(_ROUNDS):
            p = _prompt(data, selection, v, p, query, float(radius))
            later = _head(_features(data, p), float(r), v)
            change, v = float(np.linalg.norm(later - v)) / r, later
            if change <= _SETTLED:
                break
        heads.append(v)
        prompts.append(p)
    return np.stack(heads), np.stack(prompts)


def _prompt(
    data: TokenData,
    selection: np.ndarray,
    v: np.ndarray,
    p: np.ndarray,
    query: np.ndarray,
    radius: float,
) -> np.ndarray:
    """The best p for a head; p is W z, and no other part of W is moved."""
    assert data.labels is not None
    scores = data.labels[:, None] * (data.tokens @ v)
    seen = TokenData(data.tokens, data.queries, scores, data.lengths, data.labels)
    found = regularisation_path(
        Objective.of(seen), np.outer(p, query), [radius], np.asarray(selection)
    )
    if not found.snapshots:
        raise ArithmeticError("a point with a lower risk than that of the selection was met")
    return found.snapshots[0][0] @ query / float(query @ query)


def _features(data: TokenData, p: np.ndarray) -> np.ndarray:
    """Y_i X_iᵀ softmax(X_i p), (n, d)."""
    assert data.labels is not None
    a = np.where(data.mask, data.tokens @ p, -np.inf)
    s = np.exp(a - a.max(1, keepdims=True))
    return data.labels[:, None] * np.einsum("it,itd->id", s / s.sum(1, keepdims=True), data.tokens)


def _head(features: np.ndarray, radius: float, start: np.ndarray) -> np.ndarray:
    """argmin of log Σ_i log(1 + exp(-vᵀf_i)) over ‖v‖ = radius."""

    def function(theta: np.ndarray) -> tuple[float, np.ndarray]:
        size = float(np.linalg.norm(theta))
        unit = theta / size
        margins = radius * (features @ unit)
        near = np.minimum(margins, 30.0)  # beyond, log(1 + e^-m) is e^-m to rounding
        losses = np.where(margins > 30, -margins, np.log(np.logaddexp(0.0, -near)))
        total = float(np.logaddexp.reduce(losses))
        weights = np.exp(-np.logaddexp(0.0, margins) - total)
        slope = -radius / size * (weights @ features)
        return total, slope - unit * (unit @ slope)

    here = radius / np.linalg.norm(start) * start
    options = {"maxiter": 3000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
    for _ in range(3):
        found = minimize(function, here, jac=True, method="L-BFGS-B", options=options).x
        here = radius / np.linalg.norm(found) * found
    return here

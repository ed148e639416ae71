"""Why no attention weights select the tokens asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .instance import Array, Instance

_TOLERANCE = 1e-9
"""The residual, over the largest row, up to which weights count as a certificate."""


@dataclass(frozen=True, eq=False)
class Infeasible:
    r"""Gordan's certificate: λ ≥ 0 and μ with bᵀλ + cᵀμ = 1 and A*λ + E*μ of norm `residual`.

    Every W with all its margins has 1 = bᵀλ + cᵀμ ≤ ⟨A*λ + E*μ, W⟩ ≤ residual · ‖W‖_F, so none is shorter than
    1 / residual, and there is none at all where the residual is zero (`exact.refute` looks for weights of an exact
    zero). With margins of 1 and no values this is λ ≥ 0, Σ λ = 1. A value, false where a solution would be true.

    - `weights`: λ, float64 (M,); `equal_weights`: μ, float64 (E,).

    >>> from dsf.theory import att_svm
    >>> nothing = att_svm([[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]], [[1.0, 2.0]], [0])
    >>> bool(nothing), nothing.weights, nothing.verify()
    (False, array([0.5, 0.5]), True)
    """

    instance: Instance
    weights: Array
    equal_weights: Array

    def __bool__(self) -> bool:
        return False

    @property
    def residual(self) -> float:
        """‖A*λ + E*μ‖_F, computed from the instance and the weights alone."""
        return float(np.linalg.norm(self.instance.adjoint(self.weights, self.equal_weights)))

    @property
    def shortest(self) -> float:
        """1 / residual: no W with all its margins has a smaller Frobenius norm."""
        return 1 / self.residual if self.residual else np.inf

    def verify(self) -> bool:
        """Whether the weights are a certificate: signs, sum, and a residual at the level of rounding."""
        x, weights, equal = self.instance, self.weights, self.equal_weights
        if weights.shape != x.bounds.shape or equal.shape != x.equal_values.shape:
            return False
        if (weights < 0).any() or not all(np.isfinite(a).all() for a in (weights, equal)):
            return False
        lengths = np.linalg.norm(x.queries, axis=1)
        rows = np.linalg.norm(x.differences, axis=1) * lengths[x.owner]
        ties = np.linalg.norm(x.equal_differences, axis=1) * lengths[x.equal_owner]
        size = float((rows * weights).sum() + (ties * np.abs(equal)).sum())
        total = float(x.bounds @ weights + x.equal_values @ equal)
        return abs(total - 1) <= 1e-12 and self.residual <= _TOLERANCE * size

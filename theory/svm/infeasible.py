"""Why no attention weights select the tokens asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .instance import Array, Instance


@dataclass(frozen=True, eq=False)
class Infeasible:
    r"""Gordan's certificate: λ ≥ 0 with Σ λ = 1 and A*λ + E*μ of norm `residual`.

    For every W that meets the equalities, min_k A(W)_k ≤ ⟨A*λ + E*μ, W⟩ ≤ residual · ‖W‖_F: no W has
    margins above `residual` per unit of norm. An exact zero proves that the program has no solution.
    A value, false where a solution would be true.
    """

    instance: Instance
    weights: Array
    equal_weights: Array

    def __bool__(self) -> bool:
        return False

    @property
    def residual(self) -> float:
        """‖A*λ + E*μ‖_F, computed from the instance and the weights alone."""
        x = self.instance
        found = (x.differences * self.weights[:, None]).T @ x.queries[x.owner]
        found += (x.equal_differences * self.equal_weights[:, None]).T @ x.queries[x.equal_owner]
        return float(np.linalg.norm(found))

    def verify(self, tolerance: float = 1e-9) -> bool:
        """Whether the weights are a certificate, relative to the size of the rows."""
        x, weights = self.instance, self.weights
        if not len(weights) or (weights < 0).any() or not np.isfinite(weights).all():
            return False
        sizes = np.linalg.norm(x.differences, axis=1) * np.linalg.norm(x.queries[x.owner], axis=1)
        total = float(weights.sum())
        return abs(total - 1) <= 1e-12 and self.residual <= tolerance * float(
            sizes.max(initial=0.0)
        )

"""Everything a solution claims, computed again from instance, primal and dual point with numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .instance import Array, Instance


@dataclass(frozen=True)
class Verification:
    """What the two points prove: `lower` ≤ optimal norm ≤ `upper`, and how far the direction can be off.

    `direction_error` bounds ‖W/‖W‖ - W*/‖W*‖‖ in the program's own norm; it is None for the nuclear norm,
    whose solution need not be unique.
    """

    feasible: bool
    upper: float
    lower: float
    stationarity: float
    complementarity: float
    equality_residual: float
    direction_error: float | None

    @property
    def relative_gap(self) -> float:
        """(upper - lower) / upper."""
        return (self.upper - self.lower) / self.upper if self.upper else 0.0

    @property
    def accepted(self) -> bool:
        """Both points are feasible, and their values are in order up to rounding."""
        return self.feasible and self.relative_gap >= -1e-12


def verify(
    instance: Instance, W: Array, dual: Array, equal_dual: Array, norm: str | float
) -> Verification:
    """Judge a primal W (d, d) and a dual point (λ, μ) of an instance for "frobenius", "nuclear" or p > 1."""
    x = instance
    if not all(np.isfinite(a).all() for a in (W, dual, equal_dual)):
        return Verification(False, np.inf, 0.0, np.inf, np.inf, np.inf, None)
    values = W @ x.queries.T
    margins = np.einsum("kd,dk->k", x.differences, values[:, x.owner])
    equal = np.einsum("kd,dk->k", x.equal_differences, values[:, x.equal_owner])
    gradient = (x.differences * dual[:, None]).T @ x.queries[x.owner]
    gradient += (x.equal_differences * equal_dual[:, None]).T @ x.queries[x.equal_owner]
    size = float(np.abs(W).max(initial=0.0)) or 1.0
    rows = np.linalg.norm(x.equal_differences, axis=1) * np.linalg.norm(
        x.queries[x.equal_owner], axis=1
    )
    off = float((np.abs(equal) / np.where(rows > 0, rows, 1)).max(initial=0.0)) / size
    lowest = float(margins.min(initial=np.inf))
    good = lowest >= 1 - 1e-12 and off <= 1e-9 and bool((dual >= 0).all())
    upper, dual_size = norm_of(W, norm), dual_norm_of(gradient, norm)
    lower = float(dual.sum()) / dual_size if dual_size > 0 else 0.0
    if not len(margins):
        return Verification(good, upper, 0.0, 0.0, 0.0, off, 0.0 if norm != "nuclear" else None)
    aligned = float((W * gradient).sum())
    stationarity = 1 - aligned / (upper * dual_size) if upper * dual_size else 0.0
    slack = float((dual * (margins - lowest)).sum() / max(float(dual.sum()), 1e-300))
    return Verification(
        good, upper, lower, abs(stationarity), slack, off, _direction(upper, lower, norm)
    )


def _direction(upper: float, lower: float, norm: str | float) -> float | None:
    r"""A bound of ‖Δ‖/lower, twice, since normalising at most doubles a relative distance.

    Frobenius: ‖Δ‖² ≤ P² - D² (first-order optimality). p ≤ 2: ‖Δ‖² ≤ 2 (P² - D²)/(p - 1) (Ball, Carlen, Lieb
    at the midpoint, which is feasible). p ≥ 2: ‖Δ‖^p ≤ 2^{p-1} (P^p - D^p) (Clarkson).
    """
    if norm == "nuclear" or lower <= 0:
        return None if norm == "nuclear" else np.inf
    p = 2.0 if norm == "frobenius" else float(norm)
    apart = max(upper / lower - 1, np.finfo(float).eps)  # P/D - 1, not below what rounding hides
    if norm == "frobenius":
        relative = np.sqrt((2 + apart) * apart)
    elif p <= 2:
        relative = np.sqrt(2 * (2 + apart) * apart / (p - 1))
    else:
        relative = (2 ** (p - 1) * np.expm1(p * np.log1p(apart))) ** (1 / p)
    return float(2 * relative)


def norm_of(W: Array, norm: str | float) -> float:
    """‖W‖ in the norm of the program."""
    if norm == "nuclear":
        return float(np.linalg.svd(W, compute_uv=False).sum())
    p = 2.0 if norm == "frobenius" else float(norm)
    top = float(np.abs(W).max(initial=0.0))
    return top * float((np.abs(W / top) ** p).sum()) ** (1 / p) if top else 0.0


def dual_norm_of(gradient: Array, norm: str | float) -> float:
    """The dual norm: spectral for nuclear, ℓ_q with 1/p + 1/q = 1 otherwise."""
    if norm == "nuclear":
        return float(np.linalg.norm(gradient, 2))
    p = 2.0 if norm == "frobenius" else float(norm)
    return norm_of(gradient, p / (p - 1))


def enclose_exactly(instance: Instance, W: Array, dual: Array) -> tuple[Fraction, Fraction]:
    """[lower², upper²] of the optimal Frobenius norm, in exact rationals from the floats as given.

    Raises `ArithmeticError` where a margin or the dual sum is not positive, or there are equalities.
    """
    if len(instance.equal_owner):
        raise ArithmeticError("exact enclosures are for instances without equalities")
    exact = np.vectorize(Fraction, otypes=[object])
    tokens, queries = [exact(x) for x in instance.tokens], exact(instance.queries)
    weights, lam = exact(W), exact(dual)
    gradient = np.full(W.shape, Fraction(0), dtype=object)
    lowest = None
    for k, (i, t) in enumerate(instance.row_tokens):
        difference = tokens[i][int(instance.selection[i])] - tokens[i][t]
        margin = difference @ weights @ queries[i]
        lowest = margin if lowest is None else min(lowest, margin)
        if lam[k] < 0:
            raise ArithmeticError(f"dual weight {k} is negative")
        gradient = gradient + lam[k] * np.outer(difference, queries[i])
    total, size = sum(lam), (gradient**2).sum()
    if lowest is None or lowest <= 0 or total <= 0 or size <= 0:
        raise ArithmeticError("a margin or the dual point is not positive: nothing is enclosed")
    return total**2 / size, (weights**2).sum() / lowest**2

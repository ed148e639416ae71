"""Everything a solution claims, computed again from instance, primal and dual point with numpy alone.

No solver is imported. Sums run in extended precision (`numpy.longdouble`) and carry bounds on their roundings, and
singular values enter through the residual of their factorisation, so that `lower` ≤ optimal norm ≤ `upper` holds
for the floats as they are. Powers for ℓ_p are taken as accurate to `_POWER` units of the last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .instance import Instance

Array = np.ndarray
_U = float(np.finfo(np.longdouble).eps) / 2
_POWER = 16


@dataclass(frozen=True)
class Verification:
    """What the two points prove: `lower` ≤ optimal norm ≤ `upper`, and how far the direction can be off.

    - `feasible`: W has all its margins, and the equalities up to `shift`; λ ≥ 0.
    - `shift`: a bound of the distance (Frobenius) from W to a matrix that meets the equalities exactly;
      `upper` allows for it.
    - `stationarity`: 1 - ⟨W, G⟩ / (‖W‖ ‖G‖⋆) with G = A*λ + E*μ, zero where W is aligned with G.
    - `complementarity`: Σ λ_k (margin_k - b_k) / Σ λ_k b_k.
    - `direction_error` bounds ‖W/‖W‖ - W*/‖W*‖‖ in the program's own norm; None for the nuclear norm, whose
      solution need not be unique, and where equalities with values or margins of 0 fix more than a direction.
    - `rank`: singular values of W above rounding. `rank_bound`: those of G that reach ‖G‖ within the square root
      of the gap (nuclear norm); every solution has a nuclear tail of at most `tail` beyond that rank.
    - `support`: (i, t) with λ > 0.
    """

    feasible: bool
    upper: float
    lower: float
    shift: float
    stationarity: float
    complementarity: float
    direction_error: float | None
    rank: int
    rank_bound: int
    tail: float
    support: tuple[tuple[int, int], ...]

    @property
    def relative_gap(self) -> float:
        """(upper - lower) / upper."""
        return (self.upper - self.lower) / self.upper if self.upper else 0.0

    @property
    def accepted(self) -> bool:
        """Both points are feasible, and bound the optimal norm from both sides."""
        return self.feasible and 0 <= self.lower <= self.upper < np.inf


_REFUSED = Verification(False, np.inf, 0.0, np.inf, np.inf, np.inf, None, 0, 0, np.inf, ())


@dataclass(frozen=True, eq=False)
class _Rows:
    """x_{iα_i} - x_it of rows and the z_i that own them, in extended precision."""

    left: Array
    queries: Array
    owner: Array

    @classmethod
    def of(cls, instance: Instance, pairs: Sequence[tuple[int, int]]) -> _Rows:
        x = instance
        flat = np.concatenate(x.tokens).astype(np.longdouble)
        first = np.cumsum([0, *map(len, x.tokens)])
        owner, token = np.array(pairs, dtype=int).reshape(-1, 2).T
        left = flat[first[owner] + np.asarray(x.selection)[owner]] - flat[first[owner] + token]
        return cls(left, x.queries.astype(np.longdouble), owner)

    def apply(self, W: Array) -> tuple[Array, Array]:
        """Margins, and bounds on their roundings."""
        images = self.queries @ W.astype(np.longdouble).T
        sizes = np.abs(self.queries).astype(float) @ np.abs(W).T
        found = (self.left * images[self.owner]).sum(1)
        size = (np.abs(self.left).astype(float) * sizes[self.owner]).sum(1)
        return found, _gamma(2 * W.shape[0] + 4) * size

    def adjoint(self, weights: Array) -> tuple[Array, Array]:
        """Σ y_k d_k z_kᵀ and bounds on its roundings, (d, d); rows of one query are summed first."""
        d = self.left.shape[1]
        if not len(weights):
            return np.zeros((d, d), np.longdouble), np.zeros((d, d))
        present, first = np.unique(self.owner, return_index=True)
        scaled, queries = self.left * weights[:, None], self.queries[present]
        found = np.add.reduceat(scaled, first, axis=0).T @ queries
        size = np.add.reduceat(np.abs(scaled).astype(float), first, axis=0).T
        return found, _gamma(len(weights) + len(first) + 4) * (size @ np.abs(queries).astype(float))

    def sizes(self) -> Array:
        """‖d_k‖ ‖z_k‖."""
        return (
            np.linalg.norm(self.left.astype(float), axis=1)
            * np.linalg.norm(self.queries.astype(float), axis=1)[self.owner]
        )


def verify(
    instance: Instance, W: Array, dual: Array, equal_dual: Array, norm: str | float
) -> Verification:
    """Judge a primal W (d, d) and a dual point λ (M,), μ (E,) of an instance for "frobenius", "nuclear" or p > 1."""
    x = instance
    held = [{int(a), *own} for a, own in zip(x.selection, x.equal, strict=True)]
    pairs = [(i, t) for i, s in enumerate(x.tokens) for t in range(len(s)) if t not in held[i]]
    equal = [(i, t) for i, own in enumerate(x.equal) for t in own]
    if W.shape != (x.d, x.d) or dual.shape != (len(pairs),) or equal_dual.shape != (len(equal),):
        return _REFUSED
    if not all(np.isfinite(a).all() for a in (W, dual, equal_dual)) or (dual < 0).any():
        return _REFUSED
    rows, ties = _Rows.of(x, pairs), _Rows.of(x, equal)
    asked = np.asarray(x.least, dtype=np.longdouble)[[i for i, _ in pairs]]
    values = np.array([v for own in x.values for v in own], dtype=np.longdouble)
    margins, slop = rows.apply(W)
    shift = _shift(ties, values, W)
    over = margins - asked - slop - shift * rows.sizes() * (1 + 1e-9)
    gradient, error = rows.adjoint(dual)
    if len(equal):
        more, slack = ties.adjoint(equal_dual)
        gradient, error = gradient + more, (error + slack) * (1 + 1e-9)
    upper = norm_of(W, norm)[1] * (1 + 1e-15) + shift * _stretch(x.d, norm)
    bare, dual_size = dual_norm_of(gradient, norm)
    dual_size += _dual_error(error, norm)
    objective = (dual * asked).sum() + (equal_dual * values).sum()
    size = float((dual * asked).sum() + np.abs(equal_dual * values).sum())
    proven = float(objective) - _gamma(len(dual) + len(equal_dual) + 4) * size
    lower = max(0.0, proven / dual_size * (1 - 4e-16)) if dual_size > 0 else 0.0
    aligned = float((W * gradient).sum())
    away = 1 - aligned / (upper * dual_size) if upper * dual_size else 0.0
    slackness = float((dual * (margins - asked)).sum()) / size if size else 0.0
    found = np.linalg.svd(W, compute_uv=False)
    bound, tail = _rank_bound(gradient.astype(float), bare, upper, lower, norm)
    return Verification(
        bool((over >= 0).all() and np.isfinite(shift)),
        upper,
        lower,
        shift,
        abs(away),
        abs(slackness),
        _direction(upper, lower, shift * _stretch(x.d, norm), norm)
        if bool((asked > 0).all()) and not values.any()
        else None,
        int((found > found[0] * len(found) * 4 * np.finfo(float).eps).sum()) if found[0] else 0,
        bound,
        tail,
        tuple(pair for pair, weight in zip(pairs, dual, strict=True) if weight > 0),
    )


def _gamma(count: float) -> float:
    """The relative error of `count` roundings, generously."""
    return 1.01 * count * _U


def _shift(ties: _Rows, values: Array, W: Array) -> float:
    """How far W is from the matrices that meet the equalities: ‖E(W) - c‖ over the least singular value of E."""
    if not len(values):
        return 0.0
    found, slop = ties.apply(W)
    off = np.linalg.norm((np.abs(found - values) + slop).astype(float))
    left, right = ties.left.astype(float), ties.queries[ties.owner].astype(float)
    roots = np.linalg.eigvalsh((left @ left.T) * (right @ right.T))
    kept = roots[
        roots > roots[-1] * 1e-9
    ]  # E(W) - c has no part where E vanishes, if some W meets c
    if not len(kept):
        return np.inf if off > 0 else 0.0
    return float(off / np.sqrt(kept[0]) * (1 + 1e-6))


def _stretch(d: int, norm: str | float) -> float:
    """sup ‖X‖ / ‖X‖_F over matrices (d, d)."""
    if norm == "nuclear":
        return float(np.sqrt(d))
    p = 2.0 if norm == "frobenius" else float(norm)
    return float(d ** max(0.0, 2 / p - 1))


def _dual_error(error: Array, norm: str | float) -> float:
    """The dual norm of any matrix with entries below `error`, from above."""
    return norm_of(error, "frobenius" if norm == "nuclear" else _conjugate(norm))[1]


def _conjugate(norm: str | float) -> float:
    p = 2.0 if norm == "frobenius" else float(norm)
    return p / (p - 1)


def _rank_bound(
    G: Array, size: float, upper: float, lower: float, norm: str | float
) -> tuple[int, float]:
    r"""Von Neumann: Σ_j (1 - σ_j(G)) σ_j(W*) ≤ ‖W*‖ - ⟨G, W*⟩ ≤ upper - lower for ‖G‖ = 1 and every solution W*."""
    if norm != "nuclear" or not size:
        return min(G.shape), np.inf
    sizes = np.linalg.svd(G, compute_uv=False) / size
    near = np.sqrt(max((upper - lower) / upper, np.finfo(float).eps)) if upper else 0.0
    count = int((sizes >= 1 - near).sum())
    return count, float((upper - lower) / (1 - sizes[count])) if count < len(sizes) else 0.0


def _direction(upper: float, lower: float, shift: float, norm: str | float) -> float | None:
    r"""A bound of ‖W/‖W‖ - W*/‖W*‖‖ from P = `upper` and D = `lower`.

    Frobenius: ⟨W, W*⟩ ≥ ‖W*‖² at the optimum, so the cosine is at least D/P and the chord at most √(2 - 2 D/P).
    The midpoint of the unit vectors u = W/‖W‖ and u* = W*/‖W*‖ has margins of at least 1/P, so that its norm is at
    least D/P. p ≤ 2: 1 ≥ ‖(u + u*)/2‖² + (p - 1) ‖(u - u*)/2‖² (Ball, Carlen, Lieb 1994), so
    ‖u - u*‖² ≤ 8 (1 - D/P)/(p - 1). p ≥ 2: ‖u - u*‖ ≤ 2 (1 - (D/P)^p)^{1/p} ≤ 2 (p (1 - D/P))^{1/p}
    (Clarkson 1936).
    """
    if norm == "nuclear" or not lower > 0:
        return None if norm == "nuclear" or upper else 0.0
    p = 2.0 if norm == "frobenius" else float(norm)
    apart = min(1.0, max(0.0, (upper - lower) / upper))
    if p == 2:
        chord = np.sqrt(2 * apart)
    elif p < 2:
        chord = np.sqrt(8 * apart / (p - 1))
    else:
        chord = 2 * min(1.0, p * apart) ** (1 / p)
    return float(chord + 2 * shift / lower) * (1 + 1e-12)


def norm_of(W: Array, norm: str | float) -> tuple[float, float]:
    """‖W‖ in the norm of the program as computed, and a bound from above."""
    if norm == "nuclear":
        left, sizes, right, rest = _factored(W)
        lengths = np.sqrt((left**2).sum(0) * (right**2).sum(1)).astype(float)
        bound = float((sizes * lengths).sum()) + np.sqrt(min(W.shape)) * rest
        return float(sizes.sum()), float(bound) * (1 + 1e-15)
    p = 2.0 if norm == "frobenius" else float(norm)
    top = np.abs(W).max(initial=0.0)
    if not top:
        return 0.0, 0.0
    wide = (np.abs(W) / top).astype(np.longdouble)
    total = (wide * wide).sum() ** np.longdouble(0.5) if p == 2 else (wide**p).sum() ** (1 / p)
    found = float(top * total)
    inner = W.size + (_POWER if p != 2 else 0) + 2 * p
    return found, found * (1 + _gamma(inner / p + _POWER + 4) + 2.3e-16)


def dual_norm_of(G: Array, norm: str | float) -> tuple[float, float]:
    """The dual norm, spectral for nuclear and ℓ_q with 1/p + 1/q = 1 otherwise: as computed, and a bound."""
    if norm != "nuclear":
        return norm_of(G, _conjugate(norm))
    left, sizes, right, rest = _factored(G)
    off = 1.0
    for basis in (left, right.T):
        inner = (basis.T @ basis - np.eye(basis.shape[1])).astype(float)
        off *= np.sqrt(1 + np.linalg.norm(inner) * (1 + 1e-9))
    return float(sizes[0]), float(sizes[0] * off + rest) * (1 + 1e-15)


def _factored(W: Array) -> tuple[Array, Array, Array, float]:
    """U, σ, Vᵀ in extended precision, and a bound of ‖W - U diag(σ) Vᵀ‖_F."""
    left, sizes, right = np.linalg.svd(W.astype(float))
    left, right = left.astype(np.longdouble), right.astype(np.longdouble)
    rest = np.linalg.norm((W - (left * sizes) @ right).astype(float))
    slop = _gamma(len(sizes) + 4) * float(sizes.sum()) * 1.01
    return left, sizes, right, float(rest + slop) * (1 + 1e-9)

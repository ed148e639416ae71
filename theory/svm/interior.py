r"""One step of a primal-dual interior-point method for nuclear-norm programs, for many programs at once.

    min ½ tr Y  s.t.  d_kᵀ Y₁₂ z_k - s_k = b_k,  Y ⪰ 0, s ≥ 0        (W = Y₁₂; equality rows have no slack)
    max bᵀy     s.t.  Z = ½ [[I, -G], [-Gᵀ, I]] ⪰ 0, G = Σ y_k d_k z_kᵀ, y ≥ 0 on inequality rows

Nesterov-Todd scaling S Z S = Y with Mehrotra's predictor and corrector. The Schur complement is a sum of Hadamard
products, ½ (D S₁₁ Dᵀ ∘ R S₂₂ Rᵀ + C ∘ Cᵀ), C = D S₁₂ Rᵀ, so that a step costs three products of matrices and one
Cholesky factorisation of the size of the rows.

Source: Todd, Toh, Tütüncü, "On the Nesterov-Todd direction in semidefinite programming" (1998).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs  # pyright: ignore[reportAttributeAccessIssue]

from .instance import Array

_BACK = 0.95  # the part of the way to the boundary that a step goes


@dataclass(frozen=True, eq=False)
class Rows:
    """B programs: d (B, m, p), z (B, m, r), right-hand sides (B, m); the first `count` rows are inequalities."""

    left: Array
    right: Array
    sides: Array
    count: int

    def apply(self, W: Array) -> Array:
        """d_kᵀ W z_k, (B, m)."""
        return ((self.left @ W) * self.right).sum(-1)

    def adjoint(self, y: Array) -> Array:
        """Σ y_k d_k z_kᵀ, (B, p, r)."""
        return _t(self.left) @ (y[..., None] * self.right)

    def only(self, keep: Array | list[int]) -> Rows:
        """The programs with these numbers."""
        return replace(self, left=self.left[keep], right=self.right[keep], sides=self.sides[keep])


@dataclass(frozen=True, eq=False)
class State:
    """Y (B, p + r, p + r), slacks s (B, count) and y (B, m) inside their cones; G and μ belong to them."""

    Y: Array
    slack: Array
    y: Array
    G: Array

    @property
    def W(self) -> Array:
        """The block Y₁₂, (B, p, r)."""
        p = self.G.shape[1]
        return self.Y[:, :p, p:]

    @property
    def value(self) -> Array:
        """½ tr Y, at least the nuclear norm of W, (B,)."""
        return np.trace(self.Y, axis1=1, axis2=2) / 2

    @property
    def gap(self) -> Array:
        """⟨Y, Z⟩ + sᵀλ, (B,)."""
        count = self.slack.shape[1]
        inner = (self.W * self.G).sum((1, 2))
        return self.value - inner + (self.slack * self.y[:, :count]).sum(1)

    @property
    def degree(self) -> int:
        return self.Y.shape[1] + self.slack.shape[1]

    def only(self, keep: Array | list[int]) -> State:
        """The programs with these numbers."""
        return State(self.Y[keep], self.slack[keep], self.y[keep], self.G[keep])


def start(rows: Rows, W: Array, y: Array) -> State:
    """A point well inside the cones near W (B, p, r), whose margins are about b, and multipliers y (B, m)."""
    p, r = W.shape[1:]
    left, sizes, right = np.linalg.svd(W, full_matrices=False)
    W, sizes = 1.5 * W, 1.5 * sizes
    delta = 0.3 * np.maximum(sizes[:, :1, None], 1e-3)
    Y = np.zeros((len(W), p + r, p + r))
    Y[:, :p, p:], Y[:, p:, :p] = W, _t(W)
    Y[:, :p, :p] = (left * sizes[:, None]) @ _t(left) + delta * np.eye(p)
    Y[:, p:, p:] = (_t(right) * sizes[:, None]) @ right + delta * np.eye(r)
    count = rows.count
    slack = np.maximum(rows.apply(W) - rows.sides, 0.1)[:, :count]
    middle = 0.35 * np.trace(Y, axis1=1, axis2=2)[:, None] / (p + r)
    largest = np.linalg.norm(rows.adjoint(y), 2, axis=(1, 2))[:, None]
    y = y * (0.5 / np.where(largest > 0, largest, 1.0))
    inside = np.clip(y[:, :count], 0.05 * middle / slack, 20 * middle / slack)
    y = np.concatenate([inside, y[:, count:]], 1)
    largest = np.linalg.norm(rows.adjoint(y), 2, axis=(1, 2))[:, None]
    y = y * np.minimum(1.0, 0.7 / np.where(largest > 0, largest, 0.7))
    return State(Y, slack, y, rows.adjoint(y))


class Stalled(ArithmeticError):
    """A factorisation failed: the iteration has come as far as float64 goes."""


def step(rows: Rows, state: State) -> State:
    """The next point; raises `Stalled` where a matrix is not positive definite any more."""
    p, count = rows.left.shape[2], rows.count
    s, lam = state.slack, state.y[:, :count]
    mu = (state.gap / state.degree)[:, None]
    try:
        P, v = _scaling(state, p)
    except np.linalg.LinAlgError as error:
        raise Stalled("Y or Z is singular") from error
    short = rows.sides - rows.apply(state.W)
    short[:, :count] += s
    factors = _schur(rows, P @ _t(P), s / lam)
    V = _diagonal(v)

    def direction(cone: Array, linear: Array) -> tuple[Array, Array, Array, Array, Array]:
        """dy, dG and, in the scaled space, dY and dZ; ds, for what the complementarities shall become."""
        right = short - rows.apply((P @ cone @ _t(P))[:, :p, p:])
        right[:, :count] += linear
        dy = _solve(factors, right)
        dG = rows.adjoint(dy)
        upper = _t(P[:, :p]) @ dG @ P[:, p:]
        dZ = -(upper + _t(upper)) / 2
        return dy, dG, cone - dZ, dZ, linear - s / lam * dy[:, :count]

    root = 1 / np.sqrt(v)

    def lengths(dy: Array, dY: Array, dZ: Array, ds: Array) -> tuple[Array, Array]:
        """How far Y, s and Z, λ may go before one leaves its cone, (B, 1) each."""
        found = []
        for matrix, change, at in ((dY, ds, s), (dZ, dy[:, :count], lam)):
            inner = root[:, :, None] * matrix * root[:, None]
            worst = np.maximum(-np.linalg.eigvalsh(inner)[:, 0], (-change / at).max(1, initial=0.0))
            found.append(1 / np.maximum(worst, 1e-300)[:, None])
        return found[0], found[1]

    dy, dG, dY, dZ, ds = direction(-V, -s)
    a, b = (np.minimum(1.0, x) for x in lengths(dy, dY, dZ, ds))
    ahead = ((V + a[..., None] * dY) * (V + b[..., None] * dZ)).sum((1, 2))
    ahead += ((s + a * ds) * (lam + b * dy[:, :count])).sum(1)
    sigma = np.clip((ahead / state.degree)[:, None] / mu, 1e-4, 1.0) ** 3
    twice = dY @ dZ
    mixed = (twice + _t(twice)) / (v[:, :, None] + v[:, None])
    dy, dG, dY, dZ, ds = direction(
        _diagonal(sigma * mu / v - v) - mixed, sigma * mu / lam - s - ds * dy[:, :count] / lam
    )
    a, b = (np.minimum(1.0, _BACK * x) for x in lengths(dy, dY, dZ, ds))
    Y = state.Y + a[..., None] * (P @ dY @ _t(P))
    later = replace(state, Y=(Y + _t(Y)) / 2, slack=s + a * ds, y=state.y + b * dy)
    return replace(later, G=rows.adjoint(later.y))


def _scaling(state: State, p: int) -> tuple[Array, Array]:
    """P and v with Y = P diag(v) Pᵀ and Z = P⁻ᵀ diag(v) P⁻¹."""
    Z = np.zeros_like(state.Y)
    Z[:, :p, p:], Z[:, p:, :p] = -state.G / 2, -_t(state.G) / 2
    at = np.arange(Z.shape[1])
    Z[:, at, at] = 0.5
    lower = np.linalg.cholesky(state.Y)
    _, v, right = np.linalg.svd(_t(np.linalg.cholesky(Z)) @ lower)
    return lower @ _t(right) / np.sqrt(v)[:, None], v


def _schur(rows: Rows, S: Array, ratio: Array) -> list[Array]:
    """Cholesky factors of the Schur complement of each program."""
    p, at = rows.left.shape[2], np.arange(rows.count)
    factors = []
    for D, R, own, diagonal in zip(rows.left, rows.right, S, ratio, strict=True):
        H = (D @ own[:p, :p]) @ D.T
        H *= (R @ own[p:, p:]) @ R.T
        C = (D @ own[:p, p:]) @ R.T
        C = C * C.T
        H += C
        H *= 0.5
        H[at, at] += diagonal
        factor, info = dpotrf(H.T, lower=1, overwrite_a=1)
        if info:
            raise Stalled("the Schur complement is singular")
        factors.append(factor)
    return factors


def _solve(factors: list[Array], right: Array) -> Array:
    return np.stack([dpotrs(f, x, lower=1)[0] for f, x in zip(factors, right, strict=True)])


def _t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _diagonal(v: Array) -> Array:
    return v[:, :, None] * np.eye(v.shape[1])

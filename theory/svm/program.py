"""A program in the smallest space that holds its solutions: rows, right-hand sides, what equalities leave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from .instance import Array, Instance

_FEW = 200_000  # numbers up to which sums over the rows of a sample are not formed first
_DEPENDENT = 1e-10  # relative size below which an equality adds nothing to those before it


@dataclass(frozen=True, eq=False)
class Program:
    r"""A(W)_k = ⟨d_k z_kᵀ, W⟩ ≥ b_k and E(W) = c for W (p, r); no matrix of M rows and p r columns is formed.

    `left` (M + E, p) and `right` (n, r) are coordinates of d_k and z_i in orthonormal bases `basis_left` (d, p)
    and `basis_right` (d, r): solutions of unitarily invariant norms have no part outside. The first `count` rows
    are the inequalities, b and c are `sides` (M + E,). Both factors are divided by their largest row; W of the
    instance is `lift` of W here.
    """

    left: Array
    right: Array
    owner: Array
    sides: Array
    count: int
    basis_left: Array
    basis_right: Array
    scale: float

    @classmethod
    def of(cls, instance: Instance, reduce: bool = True) -> Program:
        """The rows of an instance; without `reduce` in all d channels, as norms of entries need."""
        x = instance
        left = np.concatenate([x.differences, x.equal_differences])
        left, top = _scaled(left)
        right, other = _scaled(x.queries)
        bases = [np.eye(x.d), np.eye(x.d)]
        if reduce:
            bases = [
                _basis(rows) if len(rows) < x.d else eye
                for rows, eye in zip((left, right), bases, strict=True)
            ]
        return cls(
            left @ bases[0],
            right @ bases[1],
            np.concatenate([x.owner, x.equal_owner]),
            np.concatenate([x.bounds, x.equal_values]),
            len(x.owner),
            bases[0],
            bases[1],
            top * other,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(p, r)."""
        return self.left.shape[1], self.right.shape[1]

    @property
    def numbers(self) -> int:
        """What all the matrices d_k z_kᵀ together would hold."""
        return len(self.left) * self.shape[0] * self.shape[1]

    def apply(self, W: Array) -> Array:
        """A(W) and E(W), (M + E,)."""
        return np.einsum("kp,kp->k", self.left, (self.right @ W.T)[self.owner])

    def adjoint(self, weights: Array) -> Array:
        """A*(λ) + E*(μ) = Σ y_k d_k z_kᵀ of all rows, or of the first `len(weights)`, (p, r)."""
        count = len(weights)
        if self.numbers <= _FEW:
            return (self.left[:count] * weights[:, None]).T @ self.right[self.owner[:count]]
        shape = (len(self.right), count)
        sums = csr_array((weights, (self.owner[:count], np.arange(count))), shape=shape)
        return (sums @ self.left[:count]).T @ self.right

    def gram(self, keep: Array) -> Array:
        """H_kl = (d_kᵀ d_l)(z_kᵀ z_l) of rows `keep`, a Hadamard product."""
        left = self.left[keep]
        found = left @ left.T
        found *= (self.right @ self.right.T)[np.ix_(self.owner[keep], self.owner[keep])]
        return found

    def matrices(self, keep: Array | slice) -> Array:
        """Every d_k z_kᵀ of rows `keep` as a row (·, p r); for few rows only."""
        left = self.left[keep]
        found = np.einsum("kp,kr->kpr", left, self.right[self.owner[keep]])
        return found.reshape(len(left), self.shape[0] * self.shape[1])

    def lift(self, W: Array) -> Array:
        """W in the space of the tokens, (d, d)."""
        return self.basis_left @ W @ self.basis_right.T / self.scale

    @cached_property
    def independent(self) -> Array:
        """Numbers of equality rows that span all of them, chosen by a pivoted Cholesky factorisation."""
        every = np.arange(self.count, len(self.left))
        left = self.gram(every)
        found: list[int] = []
        top = float(left.diagonal().max(initial=0.0))
        for _ in range(len(every)):
            k = int(left.diagonal().argmax())
            if not left[k, k] > _DEPENDENT * top:
                break
            found.append(k)
            left = left - np.outer(left[:, k], left[k]) / left[k, k]
        return every[np.array(sorted(found), dtype=int)]

    @cached_property
    def taken(self) -> Array:
        """An orthonormal basis (p r, q) of the span of the equalities."""
        if not len(self.independent):
            return np.zeros((self.shape[0] * self.shape[1], 0))
        return np.linalg.qr(self.matrices(self.independent).T)[0]

    @cached_property
    def offset(self) -> Array:
        """The smallest W (p, r) that meets the equalities."""
        rows = self.independent
        if not len(rows) or not self.sides[rows].any():
            return np.zeros(self.shape)
        flat = np.linalg.lstsq(self.matrices(rows), self.sides[rows], rcond=None)[0]
        return flat.reshape(self.shape)

    @property
    def consistent(self) -> bool:
        """Is there a W that meets the equalities, up to rounding?"""
        off = self.apply(self.offset)[self.count :] - self.sides[self.count :]
        return bool(np.abs(off).max(initial=0.0) <= 1e-9 * np.abs(self.sides).max(initial=1.0))

    def complement(self, W: Array) -> Array:
        """The part of W in the span of the equalities."""
        if not self.taken.shape[1]:
            return np.zeros_like(W)
        return (self.taken @ (self.taken.T @ W.ravel())).reshape(W.shape)

    def project(self, W: Array) -> Array:
        """The part of W that the equalities do not see."""
        return W - self.complement(W) if self.taken.shape[1] else W

    def equal_dual(self, gradient: Array) -> Array:
        """μ (E,) with E*μ = `gradient`, zero on dependent rows."""
        found = np.zeros(len(self.left) - self.count)
        rows = self.independent
        if len(rows):
            solved = np.linalg.lstsq(self.matrices(rows).T, gradient.ravel(), rcond=None)[0]
            found[rows - self.count] = solved
        return found


def _scaled(x: Array) -> tuple[Array, float]:
    top = float(np.linalg.norm(x, axis=1).max(initial=0.0))
    return (x / top, top) if top else (x, 1.0)


def _basis(rows: Array) -> Array:
    """An orthonormal basis (d, rank) of the span of the rows, of at least one vector."""
    if not len(rows):
        return np.eye(rows.shape[1])[:, :1]
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > sizes[0] * 1e-13).sum()) if sizes[0] > 0 else 0
    return directions[: max(1, rank)].T

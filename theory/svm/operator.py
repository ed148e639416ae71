"""The linear map W ↦ margins of an instance and its adjoint, in the smallest space that holds solutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .instance import Array, Instance


@dataclass(frozen=True, eq=False)
class Rows:
    r"""A(W)_k = ⟨d_k z_kᵀ, W⟩ for W (p, r), never formed as M × p r.

    `left` (M, p) and `right` (n, r) are coordinates of d_k and z_i in orthonormal bases `basis_left`
    (d, p) and `basis_right` (d, r): solutions of unitarily invariant norms have no part outside.
    The rows from `inequalities` on are equalities with right-hand side 0. Both factors are divided by
    the size of the largest: a solution is known up to a factor then, which its least margin gives.
    """

    left: Array
    right: Array
    owner: Array
    inequalities: int
    basis_left: Array
    basis_right: Array

    @classmethod
    def of(cls, instance: Instance, reduce: bool = True) -> Rows:
        left = np.concatenate([instance.differences, instance.equal_differences])
        owner = np.concatenate([instance.owner, instance.equal_owner])
        left, right = _scaled(left), _scaled(instance.queries)
        identity = np.eye(instance.d)
        basis_left, basis_right = identity, identity
        if reduce and len(left) < instance.d:
            basis_left = _basis(left)
        if reduce and len(right) < instance.d:
            basis_right = _basis(right)
        return cls(
            left @ basis_left, right @ basis_right, owner, len(instance.owner), basis_left, basis_right
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[1], self.right.shape[1]

    def only(self, keep: Array) -> Rows:
        """The rows with these numbers."""
        count = int((keep < self.inequalities).sum())
        return Rows(
            self.left[keep], self.right, self.owner[keep], count, self.basis_left, self.basis_right
        )

    def apply(self, W: Array) -> Array:
        """A(W), (M,)."""
        return np.einsum("kp,kp->k", self.left, (self.right @ W.T)[self.owner])

    def adjoint(self, weights: Array) -> Array:
        """A*(λ) = Σ λ_k d_k z_kᵀ, (p, r)."""
        every = np.arange(len(self.owner))
        shape = (len(self.right), len(self.owner))
        sums = csr_array((weights, (self.owner, every)), shape=shape) @ self.left
        return sums.T @ self.right

    def gram(self) -> Array:
        """H_kl = (d_kᵀ d_l)(z_kᵀ z_l), a Hadamard product (M, M)."""
        queries = self.right @ self.right.T
        found = self.left @ self.left.T
        found *= queries[np.ix_(self.owner, self.owner)]
        return found

    def matrices(self) -> Array:
        """Every d_k z_kᵀ as a row (M, p r); for few rows only."""
        found = np.einsum("kp,kr->kpr", self.left, self.right[self.owner])
        return found.reshape(len(self.left), self.left.shape[1] * self.right.shape[1])

    def lift(self, W: Array) -> Array:
        """W in the space of the tokens, (d, d)."""
        return self.basis_left @ W @ self.basis_right.T

    def largest_eigenvalue(self, steps: int = 40) -> float:
        """An estimate of ‖A‖² from a few power iterations, a little above the truth."""
        w = np.random.default_rng(0).standard_normal(self.shape)
        size = 0.0
        for _ in range(steps):
            w = self.adjoint(self.apply(w / np.linalg.norm(w)))
            size = float(np.linalg.norm(w))
            if size == 0.0:
                return 1.0
        return 1.05 * size


def _scaled(x: Array) -> Array:
    top = float(np.linalg.norm(x, axis=1).max(initial=0.0))
    return x / top if top else x


def _basis(rows: Array) -> Array:
    """An orthonormal basis (d, rank) of the span of the rows."""
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > sizes[0] * 1e-13).sum()) if len(sizes) and sizes[0] > 0 else 0
    return directions[: max(1, rank)].T

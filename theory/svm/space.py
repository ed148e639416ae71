"""The rows of a program within the space that its equalities leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .instance import Array, Instance
from .operator import Rows


@dataclass(frozen=True, eq=False)
class Space:
    """Inequality rows, restricted to the matrices W with E(W) = 0; `taken` (p r, q) spans the rest."""

    rows: Rows
    equalities: Array
    taken: Array

    @classmethod
    def of(cls, instance: Instance, reduce: bool = True) -> Space:
        rows = Rows.of(instance, reduce)
        count = rows.inequalities
        every = np.arange(len(rows.left))
        equalities = rows.only(every[count:]).matrices()
        taken = np.zeros((equalities.shape[1], 0))
        if len(equalities):
            u, sizes, _ = np.linalg.svd(equalities.T, full_matrices=False)
            taken = u[:, sizes > sizes[0] * 1e-12] if sizes[0] > 0 else taken
        return cls(rows.only(every[:count]), equalities, taken)

    @property
    def count(self) -> int:
        """M, the number of inequality rows."""
        return len(self.rows.left)

    def project(self, W: Array) -> Array:
        """The part of W that meets the equalities."""
        return W - self.complement(W) if self.taken.shape[1] else W

    def complement(self, W: Array) -> Array:
        """The part of W that the equalities take away, a combination of their rows."""
        return (self.taken @ (self.taken.T @ W.ravel())).reshape(W.shape)

    def adjoint(self, weights: Array) -> Array:
        return self.project(self.rows.adjoint(weights))

    def apply(self, W: Array) -> Array:
        return self.rows.apply(W)

    def gram(self, keep: Array) -> Array:
        """Inner products of the projected rows `keep`."""
        own = self.rows.only(keep)
        found = own.gram()
        if self.taken.shape[1]:
            part = own.matrices() @ self.taken
            found -= part @ part.T
        return found

    def equal_dual(self, gradient: Array) -> Array:
        """μ with E*μ = `gradient`."""
        if not len(self.equalities):
            return np.zeros(0)
        return np.linalg.lstsq(self.equalities.T, gradient.ravel(), rcond=None)[0]

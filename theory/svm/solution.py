"""A solved program: both points, and what they prove."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import uniqueness
from .instance import Array, Instance
from .verification import Verification, dual_norm_of, verify


@dataclass(frozen=True, eq=False)
class Solution:
    r"""min ‖W‖ s.t. (x_{iα_i} - x_it)ᵀ W z_i ≥ 1, with a dual point that bounds it from below.

    - `W`: float64 (d, d), with all the margins of the instance.
    - `dual`: λ ≥ 0, float64 (M,) in the order of `instance.row_tokens`; `equal_dual`: μ, float64 (E,). They are scaled
      so that the dual norm of A*λ + E*μ is 1: bᵀλ + cᵀμ is then a lower bound of the optimal norm.
    - `solver`: "dsf", or "cvxpy:…".

    >>> from dsf.theory import att_svm
    >>> found = att_svm([np.eye(2)], [[1.0, 0.0]], [0], norm="nuclear")
    >>> found.rank, found.support, found.unique, found.verify().accepted
    (1, [(0, 1)], True, True)
    """

    instance: Instance
    norm: str | float
    W: Array
    dual: Array
    equal_dual: Array
    solver: str

    def __bool__(self) -> bool:
        return True

    def verify(self) -> Verification:
        """Compute everything again from the instance and the two points, with numpy alone."""
        return verify(self.instance, self.W, self.dual, self.equal_dual, self.norm)

    @cached_property
    def checked(self) -> Verification:
        """What `verify` finds, kept."""
        return self.verify()

    @property
    def primal(self) -> float:
        """‖W‖, an upper bound of the optimal norm."""
        return self.checked.upper

    @property
    def lower(self) -> float:
        """A lower bound of the optimal norm."""
        return self.checked.lower

    @property
    def relative_gap(self) -> float:
        """(‖W‖ - lower) / ‖W‖."""
        return self.checked.relative_gap

    @property
    def direction_error(self) -> float | None:
        """A bound of the distance of W/‖W‖ from the optimal direction; None for the nuclear norm."""
        return self.checked.direction_error

    @property
    def stationarity(self) -> float:
        """1 - ⟨W, A*λ + E*μ⟩ / ‖W‖: zero where the gradient of the norm is a combination of rows."""
        return self.checked.stationarity

    @property
    def complementarity(self) -> float:
        """Σ λ_k (margin_k - b_k) over Σ λ_k b_k."""
        return self.checked.complementarity

    @cached_property
    def margins(self) -> Array:
        """(x_{iα_i} - x_it)ᵀ W z_i of each row, (M,)."""
        return self.instance.margins(self.W)

    @property
    def support(self) -> list[tuple[int, int]]:
        """The tokens (i, t) whose multiplier is not zero."""
        return list(self.checked.support)

    @cached_property
    def singular_values(self) -> Array:
        """Of W, descending."""
        return np.linalg.svd(self.W, compute_uv=False)

    @property
    def rank(self) -> int:
        """Singular values of W above rounding; of a nuclear solution the others are zero by construction."""
        return self.checked.rank

    @property
    def rank_bound(self) -> int:
        """The multiplicity of the largest singular value of A*λ + E*μ: nuclear solutions have no higher rank.

        Values within the square root of the relative gap of the largest count as equal to it, since the dual point
        is only about that close to the optimal one; `checked.tail` says how much nuclear norm a solution may have
        beyond that rank.
        """
        return self.checked.rank_bound

    @cached_property
    def unique(self) -> bool | None:
        """Is the solution the only one? Always for strictly convex norms; None where it is not decided."""
        return uniqueness.decide(self) if self.norm == "nuclear" else True

    @property
    def gradient(self) -> Array:
        """A*λ + E*μ, (d, d)."""
        return self.instance.adjoint(self.dual, self.equal_dual)

    @property
    def dual_size(self) -> float:
        """The dual norm of `gradient`, from above."""
        return dual_norm_of(self.gradient, self.norm)[1]

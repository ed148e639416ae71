"""A solved program: both points, and what they prove."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .instance import Array, Instance
from .verification import Verification, verify


@dataclass(frozen=True, eq=False)
class Solution:
    r"""min ‖W‖ s.t. (x_{iα_i} - x_it)ᵀ W z_i ≥ 1, with a dual point that bounds it from below.

    `W` (d, d) meets every row, `dual` λ ≥ 0 (M,) and `equal_dual` μ (E,) are scaled so that the dual
    norm of A*λ + E*μ is 1: Σ λ is then a lower bound of the optimal norm.
    """

    instance: Instance
    norm: str | float
    W: Array
    dual: Array
    equal_dual: Array
    solver: str

    def __bool__(self) -> bool:
        return True

    @cached_property
    def checked(self) -> Verification:
        """What `verify` finds, kept."""
        return self.verify()

    def verify(self) -> Verification:
        """Compute everything again from the instance and the two points, with numpy alone."""
        return verify(self.instance, self.W, self.dual, self.equal_dual, self.norm)

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
        return self.checked.relative_gap

    @property
    def direction_error(self) -> float | None:
        """A bound of the distance of W/‖W‖ from the optimal direction; None for the nuclear norm."""
        return self.checked.direction_error

    @cached_property
    def margins(self) -> Array:
        return self.instance.margins(self.W)

    @property
    def support(self) -> list[tuple[int, int]]:
        """The tokens (i, t) whose multiplier is not zero."""
        pairs = self.instance.row_tokens
        return [pairs[k] for k in np.flatnonzero(self.dual > 0)]

    @cached_property
    def singular_values(self) -> Array:
        return np.linalg.svd(self.W, compute_uv=False)

    @property
    def rank(self) -> int:
        """The number of singular values above rounding; of a nuclear solution the others are zero by construction."""
        sizes = self.singular_values
        return (
            int((sizes > sizes[0] * len(sizes) * 4 * np.finfo(float).eps).sum()) if sizes[0] else 0
        )

    def rank_bound(self, tolerance: float | None = None) -> int:
        """The multiplicity of the largest singular value of A*λ + E*μ: no nuclear solution has a higher rank.

        Singular values within `tolerance` of the largest are counted as equal to it, by default the square
        root of the relative gap, since the dual point is only that close to the optimal one.
        """
        if self.norm != "nuclear":
            return min(self.W.shape)
        x = self.instance
        gradient = (x.differences * self.dual[:, None]).T @ x.queries[x.owner]
        gradient += (x.equal_differences * self.equal_dual[:, None]).T @ x.queries[x.equal_owner]
        sizes = np.linalg.svd(gradient, compute_uv=False)
        near = np.sqrt(max(self.relative_gap, 1e-16)) if tolerance is None else tolerance
        return int((sizes >= sizes[0] * (1 - near)).sum())

    @property
    def unique(self) -> bool | None:
        """True for strictly convex norms; None where it is not decided."""
        return None if self.norm == "nuclear" else True

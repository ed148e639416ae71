r"""Is a nuclear-norm solution the only one?

With G = A*λ + E*μ = U Vᵀ + (a part of norm < 1) at a dual optimum, every solution is W = U S Vᵀ with S ⪰ 0, and
has margin b_k wherever λ_k > 0. If these rows and the equalities, as functions of symmetric S, have no common kernel,
there is one solution. If there is a kernel, S ≻ 0 and no other row is tight, there is a segment of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .solution import Solution

_LARGEST = 40_000_000  # numbers in the matrix of the rows as functions of S, beyond which nothing is decided


def decide(found: Solution) -> bool | None:
    """True or False where the numbers are clear of the accuracy of the two points, None otherwise."""
    if not len(found.margins) + len(found.equal_dual):
        return True
    x, near = found.instance, np.sqrt(max(found.relative_gap, np.finfo(float).eps))
    left, sizes, right = np.linalg.svd(found.gradient)
    k = int((sizes >= sizes[0] * (1 - near)).sum())
    clear = k == len(sizes) or sizes[k] <= sizes[0] * (1 - 10 * near)
    U, V = left[:, :k], right[:k].T
    over = found.margins - x.bounds
    scale = float(found.dual.max(initial=0.0))
    tight = found.dual > near * scale
    loose = over > 10 * near
    count = int(tight.sum()) + len(found.equal_dual)
    if not clear or not (tight | loose).all() or count * k * k > _LARGEST:
        return None
    rows = _rows(x.differences[tight] @ U, x.queries[x.owner[tight]] @ V)
    ties = _rows(x.equal_differences @ U, x.queries[x.equal_owner] @ V)
    together = np.concatenate([rows, ties])
    lengths = np.linalg.norm(together, axis=1, keepdims=True)
    values = np.linalg.svd(together / np.where(lengths > 0, lengths, 1), compute_uv=False)
    full = k * (k + 1) // 2
    least = float(values[full - 1]) if len(values) >= full else 0.0
    if least > 100 * near:
        return True
    S = U.T @ found.W @ V
    inside = np.linalg.eigvalsh((S + S.T) / 2)[0] > 10 * near * found.singular_values[0]
    exact = len(values) < full or least <= 1e-10 * float(values[0])
    return False if inside and exact else None


def _rows(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """⟨sym(a_k c_kᵀ), S⟩ in an orthonormal basis of symmetric matrices."""
    k = left.shape[1]
    i, j = np.triu_indices(k)
    weight = np.where(i == j, 0.5, np.sqrt(0.5))
    return weight * (left[:, i] * right[:, j] + left[:, j] * right[:, i])

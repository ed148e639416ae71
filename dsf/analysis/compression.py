r"""From a mixing matrix to a realization, by blocks of steps.

At the end of each block the past is known through X Y = Φ[e:, :e] with orthonormal rows Y; one
truncated SVD per block keeps it so. Inside a block the state simply grows by the block's own tokens.
Work T² n (n + block) / block instead of the T⁴ of an SVD per cut.
"""

from __future__ import annotations

import numpy as np

from dsf.errors import InvalidInput
from dsf.numerics import rank_tolerance

from .realization import Realization
from .sweeps import triangle

BLOCK = 32


LARGEST = 1 << 29  # numbers that a realization and its Gramians may hold: 4 GiB in float64


def compress(
    phi: np.ndarray, allowed: float = 0.0, most: int | None = None, block: int = BLOCK
) -> tuple[Realization, float]:
    r"""A realization of Φ (T, T) and an upper bound of ‖Φ - its matrix‖₂ but for rounding.

    At every block the singular values up to `allowed`/√(number of blocks) are dropped, with
    `allowed` = 0 those up to the rounding of the SVD, and all behind the first `most`. What is dropped
    at different blocks has orthogonal row spaces, so the error is the root of the sum of squares
    (`dsf.analysis.truncation`). Raises `InvalidInput` where the states would fill the memory.
    """
    length = phi.shape[0]
    cuts = [*range(0, length, block), length]
    at_most = allowed / max(1, len(cuts) - 2) ** 0.5
    floor = rank_tolerance(length, length, float(np.linalg.norm(phi)))
    seen = np.zeros((length, 0), dtype=phi.dtype)
    dropped, numbers = 0.0, 0
    A, B, C, D = [], [], [], []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        width, held = stop - start, seen.shape[1]
        moved = np.concatenate([seen[width:], phi[stop:, start:stop]], 1)
        basis, lost = _row_basis(moved, max(at_most, floor), most)
        dropped += lost**2
        numbers += width * max(basis.shape) ** 2
        if numbers > LARGEST:
            raise InvalidInput(
                f"Φ needs {basis.shape[0]} states at cut {stop} of {length}: too many to hold. Allow an "
                "error (`resolution`, `tolerance`, `order`), or look at a few `cuts`"
            )
        for j in range(width):
            i = start + j
            C.append(np.concatenate([seen[j], phi[i, start:i]])[None])
            D.append(phi[i : i + 1, i : i + 1])
            last = j == width - 1
            A.append(basis[:, : held + j] if last else np.eye(held + j + 1, held + j))
            B.append(basis[:, held + j :] if last else np.eye(held + j + 1)[:, held + j :])
        seen = moved @ basis.conj().T
    return Realization(tuple(A), tuple(B), tuple(C), tuple(D)), dropped**0.5


def _row_basis(matrix: np.ndarray, threshold: float, most: int | None) -> tuple[np.ndarray, float]:
    """Orthonormal rows of the leading right singular vectors, and the largest singular value left out."""
    if not matrix.size:
        return np.zeros((0, matrix.shape[1]), dtype=matrix.dtype), 0.0
    _, sizes, rows = np.linalg.svd(triangle(matrix), full_matrices=False)
    kept = int((sizes > threshold).sum())
    kept = kept if most is None else min(kept, most)
    return rows[:kept], float(sizes[kept]) if kept < len(sizes) else 0.0

"""The operator norm of a matrix, measured."""

from __future__ import annotations

import numpy as np

_DENSE = 512  # up to here all singular values cost less than iterating for one


def operator_norm(matrix: np.ndarray) -> float:
    """‖A‖₂, by an SVD for small matrices and by Lanczos iteration to full precision for large ones.

    >>> operator_norm(np.diag([1.0, -3.0]))
    3.0
    """
    if not matrix.size:
        return 0.0
    if min(matrix.shape) <= _DENSE:
        return float(np.linalg.norm(matrix, 2))
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    found = svds(matrix, k=1, v0=start, return_singular_vectors=False)
    return float(np.asarray(found)[0])

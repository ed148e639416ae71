r"""Square roots of the Gramians, by QR, one sweep forward and one backward.

W_c(i) = R_i R_iᴴ = A W_c(i-1) Aᴴ + B Bᴴ and W_o(i) = O_iᴴ O_i = Aᴴ W_o(i+1) A + Cᴴ C are never
formed: L_i L_iᴴ = W_c(i) and U_iᴴ U_i = W_o(i) come from triangular factors of what is stacked, so
that small Hankel singular values are as exact as large ones relative to ‖U_i‖ ‖L_i‖.
"""

from __future__ import annotations

import numpy as np

from .realization import Realization


def reachability_roots(r: Realization) -> list[np.ndarray]:
    """L_0 … L_T with L_i L_iᴴ the reachability Gramian of cut i; L_i has at most n_i columns."""
    kind = _kind(r)
    roots = [np.zeros((r.orders[0], 0), dtype=kind)]
    for a, b in zip(r.A, r.B, strict=True):
        roots.append(triangle(np.concatenate([a @ roots[-1], b], 1).conj().T).conj().T)
    return roots


def observability_roots(r: Realization) -> list[np.ndarray]:
    """U_0 … U_T with U_iᴴ U_i the observability Gramian of cut i; U_i has at most n_i rows."""
    kind = _kind(r)
    roots = [np.zeros((0, r.orders[-1]), dtype=kind)]
    for a, c in zip(reversed(r.A), reversed(r.C), strict=True):
        roots.append(triangle(np.concatenate([c, roots[-1] @ a], 0)))
    return roots[::-1]


def triangle(matrix: np.ndarray) -> np.ndarray:
    """The factor R of QR, or the matrix itself where it has no more rows than columns."""
    if matrix.shape[0] <= matrix.shape[1]:
        return matrix
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def hankel_values(r: Realization) -> list[np.ndarray]:
    """The singular values of Φ[i:, :i] for every cut i = 0 … T, as many as the state has entries."""
    pairs = zip(observability_roots(r), reachability_roots(r), strict=True)
    return [np.linalg.svd(u @ root, compute_uv=False) for u, root in pairs]


def _kind(r: Realization) -> np.dtype:
    return np.result_type(np.float64, *(x[0] for x in (r.A, r.B, r.C, r.D) if x))

"""How far a trained W is from a max-margin solution."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..instances.data import TokenData
from .arrays import Values


def margins(data: TokenData, selection: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(x_iα - x_it)ᵀ W z_i for all i and t ≠ α_i, (..., M); W (..., d, d).

    >>> from dsf.theory.instances import sphere
    >>> data = sphere(2, 3, 4, seed=0)
    >>> margins(data, data.optimal, np.eye(4)).shape
    (4,)
    """
    n = data.shape[0]
    keys = data.queries @ np.swapaxes(w, -1, -2)
    a = (data.tokens @ keys[..., None])[..., 0]
    chosen = np.broadcast_to(np.asarray(selection)[:, None], (*a.shape[:-1], 1))
    gaps = np.take_along_axis(a, chosen, -1) - a
    others = data.mask.copy()
    others[np.arange(n), selection] = False
    return gaps[..., others]


def correlation(w: np.ndarray, v: np.ndarray) -> Values:
    """⟨W, V⟩ / (‖W‖_F ‖V‖_F), over the last two axes."""
    sizes = np.linalg.norm(w, axis=(-2, -1)) * np.linalg.norm(v, axis=(-2, -1))
    return (w * v).sum((-2, -1)) / sizes


def direction_error(w: np.ndarray, v: np.ndarray) -> Values:
    """‖W/‖W‖_F - V/‖V‖_F‖_F, over the last two axes."""
    one = w / np.linalg.norm(w, axis=(-2, -1), keepdims=True)
    other = v / np.linalg.norm(v, axis=(-2, -1), keepdims=True)
    return np.linalg.norm(one - other, axis=(-2, -1))


def margin_ratio(
    data: TokenData,
    selection: np.ndarray,
    w: np.ndarray,
    best: float,
    norm: Literal["nuc", "fro"] = "nuc",
) -> Values:
    """min margin(W) / ‖W‖ times `best`, the optimal value of the SVM: at most 1, and 1 at its solutions.

    `norm` is "nuc" or "fro". For (K, Q) this is the statement of the theorem; a cosine is not, since
    the nuclear norm has nearly as good solutions far away.
    """
    return margins(data, selection, w).min(-1) / np.linalg.norm(w, norm, axis=(-2, -1)) * best

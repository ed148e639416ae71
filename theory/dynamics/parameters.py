"""The two parametrisations: W itself, or W = K Qᵀ with K and Q (d, m)."""

from __future__ import annotations

import numpy as np

from dsf.errors import InvalidInput

from .arrays import Values

Parameters = tuple[np.ndarray, ...]
"""(W,) or (K, Q); each may have a leading axis of batch."""


def as_parameters(start: np.ndarray | Parameters, d: int) -> Parameters:
    """Copies in float64; raises `InvalidInput` where shapes are not (d, d), or twice (d, m)."""
    given = (start,) if isinstance(start, np.ndarray) else tuple(start)
    parts = tuple(np.array(part, dtype=np.float64) for part in given)
    shapes = [part.shape for part in parts]
    if len(parts) == 1:
        fits = parts[0].ndim >= 2 and shapes[0][-2:] == (d, d)
    else:
        fits = len(parts) == 2 and parts[0].ndim >= 2
        fits = fits and shapes[0] == shapes[1] and shapes[0][-2] == d
    if not fits:
        raise InvalidInput(
            f"the start has shapes {shapes}; it must be W of ({d}, {d}), or a pair (K, Q) of ({d}, m)"
        )
    if not all(np.isfinite(part).all() for part in parts):
        raise InvalidInput("the start has numbers that are not finite")
    return parts


def product(parts: Parameters) -> np.ndarray:
    """W = K Qᵀ, or W."""
    return parts[0] if len(parts) == 1 else parts[0] @ np.swapaxes(parts[1], -1, -2)


def pulled_back(parts: Parameters, direction: np.ndarray) -> Parameters:
    """The gradient in the parameters from that in W: G, or (G Q, Gᵀ K)."""
    if len(parts) == 1:
        return (direction,)
    return direction @ parts[1], np.swapaxes(direction, -1, -2) @ parts[0]


def norm(parts: Parameters) -> Values:
    """The Frobenius norm of all parameters together, (...)."""
    squares = sum((part**2).sum((-2, -1)) for part in parts)
    return np.sqrt(np.asarray(squares))

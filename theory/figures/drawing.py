"""What the figures share: colours, axes, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsf.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK, LIGHT, GREY = "#2f6d8f", "#e8963e", "#8a8a86"


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure of one row of axes; raises `InvalidInput` where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("figures need matplotlib: pip install matplotlib") from None
    made = Figure(figsize=(width, height), layout="constrained")
    return made, np.atleast_1d(np.asarray(made.subplots(1, columns))).tolist()


def wilson(successes: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % score interval of a share.

    >>> low, high = wilson(np.array([10]), np.array([10]))
    >>> bool(0.7 < low[0] < 0.75), bool(high[0] > 0.999)
    (True, True)
    """
    z = 1.959964
    share = successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - half, middle + half


def spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the last axis, and 1.96 standard errors of it."""
    count = np.isfinite(values).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, -1) / count
        squares = np.nansum((values - mean[..., None]) ** 2, -1)
        return mean, 1.96 * np.sqrt(squares / np.maximum(count - 1, 1) / count)

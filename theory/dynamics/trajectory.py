"""What a run of the dynamics leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .parameters import Parameters, product


@dataclass(frozen=True)
class Trajectory:
    """Snapshots of a run: `at` (k,) are steps, arc lengths or radii, `snapshots` the parameters there.

    `reached` is False where a run ended before its last snapshot: at a point where the gradient is
    exactly zero, or, for a local path, outside the basin of its selection.
    """

    at: np.ndarray
    snapshots: tuple[Parameters, ...]
    reached: bool = True

    @property
    def final(self) -> Parameters:
        """The parameters of the last snapshot."""
        return self.snapshots[-1]

    def weights(self) -> np.ndarray:
        """W of every snapshot, (k, ..., d, d)."""
        return np.stack([product(parts) for parts in self.snapshots])

    def norms(self) -> np.ndarray:
        """‖W‖_F of every snapshot, (k, ...)."""
        return np.linalg.norm(self.weights(), axis=(-2, -1))


def spaced(last: int, count: int, first: int = 1) -> np.ndarray:
    """Integers from `first` to `last`, evenly spaced in their logarithm, without repetition.

    >>> spaced(1000, 4).tolist()
    [1, 10, 100, 1000]
    """
    return np.unique(np.geomspace(first, last, count).round().astype(np.int64))

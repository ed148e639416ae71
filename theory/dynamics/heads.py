"""Prediction heads h(o) that are not linear: value and gradient at the attention's output o."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Head(Protocol):
    """A differentiable head; `outputs` are float64 (..., n, d)."""

    def value(self, outputs: np.ndarray) -> np.ndarray:
        """h(o), (..., n)."""
        ...

    def gradient(self, outputs: np.ndarray) -> np.ndarray:
        """∇h(o), (..., n, d)."""
        ...


@dataclass(frozen=True)
class QuadraticHead:
    """h(o) = vᵀo - μ‖o‖² with v (d,) or, for a batch, (B, d)."""

    v: np.ndarray
    mu: float

    def value(self, outputs: np.ndarray) -> np.ndarray:
        linear = (outputs * self.v[..., None, :]).sum(-1)
        return linear - self.mu * (outputs**2).sum(-1)

    def gradient(self, outputs: np.ndarray) -> np.ndarray:
        return self.v[..., None, :] - 2 * self.mu * outputs


@dataclass(frozen=True)
class ReluHead:
    """h(o) = Σ_k max(0, V_k · o) with V (k, d) or, for a batch, (B, k, d)."""

    weights: np.ndarray

    def value(self, outputs: np.ndarray) -> np.ndarray:
        return np.maximum(outputs @ np.swapaxes(self.weights, -1, -2), 0.0).sum(-1)

    def gradient(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs @ np.swapaxes(self.weights, -1, -2) > 0) @ self.weights

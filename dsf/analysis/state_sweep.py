"""Output error against state size: truncated, random and reduced states for softmax attention.

The question of figure 1 of Sieber et al. (2405.15731): how fast does a larger state approach softmax
attention? There the states are linear attention's, trained on a task; here they are maps of fixed
queries and keys, so that nothing is trained and the best possible state is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsf.forms import mixing_matrix

from .reduction import reduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS = 8


@dataclass(frozen=True, eq=False)
class Head:
    """Queries and keys (T, K) of one head; logits are q·k / √K."""

    name: str
    q: np.ndarray
    k: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Causal softmax weights (T, T)."""
        return _normalised(np.exp(self.q @ self.k.T / math.sqrt(self.q.shape[1])))


@dataclass(frozen=True)
class Curve:
    """Relative output errors ‖(Φ - Φ̂) v‖_F / ‖Φ v‖_F at growing states, for white values v."""

    name: str
    states: tuple[int, ...]
    errors: tuple[float, ...]


def random_head(length: int, seed: int = 0) -> Head:
    """Independent normal queries and keys: attention without any structure."""
    q, k = np.random.default_rng(seed).standard_normal((2, length, KEYS))
    return Head("random", q, k)


def patterned_head(length: int, seed: int = 0) -> Head:
    """What trained heads are often seen to have: a first token that collects weight, recency, topics.

    A drawing of such a head, not the weights of any model. One channel is the sink, four turn slowly
    with position (cosines of the distance, so nearer tokens weigh more), three hold one of six topics
    that changes every T/16 tokens, with noise.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    angles = np.outer(t, [2 * math.pi / length, 8 * math.pi / length])
    turning = 1.8 * np.concatenate([np.cos(angles), np.sin(angles)], 1)
    topics = rng.standard_normal((6, 3))
    topic = topics[rng.integers(0, 6, 16)[t * 16 // max(1, length)]]
    content = 1.5 * topic + 0.3 * rng.standard_normal((length, 3))
    sink = np.where(t == 0, 6.0, 0.0)[:, None]
    q = np.concatenate([np.ones((length, 1)), turning, content], 1)
    k = np.concatenate([sink, turning, content], 1)
    return Head("patterned", q, k)


def taylor_curve(head: Head, degrees: Sequence[int] = (0, 2, 4, 6)) -> Curve:
    """Truncations Σ_{p<=P} s^p/p!, a state of C(K + P, P) symmetric features; odd P can divide by zero."""
    s = head.q @ head.k.T / math.sqrt(KEYS)
    states, errors = [], []
    for degree in degrees:
        kernel = np.add.reduce([s**p / math.factorial(p) for p in range(degree + 1)])
        states.append(math.comb(KEYS + degree, degree))
        errors.append(_error(head.weights, _normalised(kernel)))
    return Curve("Taylor", tuple(states), tuple(errors))


def random_feature_curve(
    head: Head, states: Sequence[int] = (4, 8, 16, 32, 64, 128, 256, 512), draws: int = 5
) -> Curve:
    """Positive random features e^{w·x - |x|²/2} (Choromanski et al., 2009.14794, lemma 1); medians of draws."""
    x, y = (z / KEYS**0.25 for z in (head.q, head.k))
    errors = []
    for size in states:
        found = []
        for seed in range(draws):
            w = np.random.default_rng([seed, size]).standard_normal((size, KEYS))
            phi, psi = (np.exp(z @ w.T - (z**2).sum(1, keepdims=True) / 2) for z in (x, y))
            found.append(_error(head.weights, _normalised(phi @ psi.T)))
        errors.append(float(np.median(found)))
    return Curve("random features", tuple(states), tuple(errors))


def reduction_curve(head: Head, states: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 96)) -> Curve:
    """Balanced truncation of this head's Φ: it knows all queries and keys in advance."""
    small = [reduce(head.weights, order=order, method="balanced") for order in states]
    phis = [mixing_matrix(one.system)[0, 0].numpy() for one in small]
    errors = tuple(_error(head.weights, phi) for phi in phis)
    return Curve("balanced truncation", tuple(states), errors)


def curves(head: Head) -> tuple[Curve, ...]:
    """All three ways for one head."""
    return taylor_curve(head), random_feature_curve(head), reduction_curve(head)


def state_against_error(length: int = 256) -> Figure:
    """Output error against state size at T = 256, on random attention and on a patterned head."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, head in zip(panels, (random_head(length), patterned_head(length)), strict=True):
        for curve, (colour, mark) in zip(curves(head), _STYLES, strict=True):
            axes.plot(curve.states, curve.errors, f"{mark}-", color=colour, label=curve.name)
        axes.axvline(length / 2, color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="states per value channel")
        axes.set_title(f"{head.name} attention, T = {length}")
        axes.set_ylim(1e-5, 3)
    panels[0].set_ylabel("relative error of the outputs")
    panels[0].legend()
    return figure


_STYLES = (("#e8963e", "s"), ("#999999", "^"), ("#2f6d8f", "o"))


def _normalised(kernel: np.ndarray) -> np.ndarray:
    weights = np.tril(kernel)
    return weights / weights.sum(1, keepdims=True)


def _error(phi: np.ndarray, other: np.ndarray) -> float:
    """‖(Φ - Φ̂) v‖_F / ‖Φ v‖_F in the mean over white v: a quotient of Frobenius norms."""
    return float(np.linalg.norm(phi - other) / np.linalg.norm(phi))

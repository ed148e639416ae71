"""The formula book: one step of each architecture in sympy, for claims that are judged without torch.

Symbols are real, two keys and one value channel unless said otherwise; `tests/test_claims_catalogue.py`
holds each function against the architecture's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
from sympy import Matrix

from dsf.symbolic import Step, scalar, unroll, vector

KEYS = 2


def scalars(name: str, steps: int, **assumptions: bool) -> list[Any]:
    """name0, name1, … real."""
    return [sympy.Symbol(f"{name}{i}", real=True, **assumptions) for i in range(steps)]


def vectors(name: str, steps: int) -> list[Matrix]:
    return [vector(f"{name}{i}_", KEYS, real=True) for i in range(steps)]


def values(steps: int) -> list[Matrix]:
    """One value channel."""
    return [Matrix([[v]]) for v in scalars("v", steps)]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + sympy.exp(-x))


def outputs(steps: Sequence[Step]) -> list[Any]:
    """y_1 … y_T on one channel of free values."""
    return [y[0] for y in unroll(steps, values(len(steps)))[0]]


def compare(left: Sequence[Any], right: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    return {f"y{i + 1}": pair for i, pair in enumerate(zip(left, right, strict=True))}


def linear(q: Sequence[Matrix], k: Sequence[Matrix]) -> list[Step]:
    """Linear attention without feature map and normaliser."""
    return [Step(sympy.eye(KEYS), b, a.T) for a, b in zip(q, k, strict=True)]


def retnet(q: Sequence[Matrix], k: Sequence[Matrix], decay: Any) -> list[Step]:
    return [Step(scalar(decay, KEYS), b, a.T) for a, b in zip(q, k, strict=True)]


def ssd(delta: Sequence[Any], A: Any, b: Sequence[Matrix], c: Sequence[Matrix]) -> list[Step]:
    return [
        Step(scalar(sympy.exp(d * A), KEYS), d * x, y.T)
        for d, x, y in zip(delta, b, c, strict=True)
    ]


def gla(q: Sequence[Matrix], k: Sequence[Matrix], g: Sequence[Matrix]) -> list[Step]:
    return [
        Step(sympy.diag(*x.applyfunc(sympy.exp)), b, a.T) for a, b, x in zip(q, k, g, strict=True)
    ]


def householder(k: Matrix, beta: Any) -> Matrix:
    return sympy.eye(KEYS) - beta * k * k.T


def delta(
    q: Sequence[Matrix],
    k: Sequence[Matrix],
    beta: Sequence[Any],
    decay: Sequence[Matrix] | None = None,
    erasing: Sequence[Matrix] | None = None,
) -> list[Step]:
    """(I - β k pᵀ) D with write β k: DeltaNet (D = I, p = k), gated (D = α I), KDA (diagonal), Comba (p)."""
    erasing = k if erasing is None else erasing
    decay = [sympy.eye(KEYS)] * len(q) if decay is None else decay
    return [
        Step((sympy.eye(KEYS) - s * b * p.T) * d, s * b, a.T)
        for a, b, s, d, p in zip(q, k, beta, decay, erasing, strict=True)
    ]


def titans(
    q: Sequence[Matrix],
    k: Sequence[Matrix],
    theta: Sequence[Any],
    eta: Sequence[Any],
    alpha: Sequence[Any],
) -> list[Step]:
    """The stacked memory and momentum, 2K keys."""
    eye, none = sympy.eye(KEYS), sympy.zeros(1, KEYS)
    steps = []
    for a, b, t, e, f in zip(q, k, theta, eta, alpha, strict=True):
        fast = t * b * b.T
        above = Matrix.hstack((1 - f) * eye - fast, e * eye)
        below = Matrix.hstack(-fast, e * eye)
        steps.append(
            Step(Matrix.vstack(above, below), t * Matrix.vstack(b, b), Matrix.hstack(a.T, none))
        )
    return steps


def rotation(angle: Any) -> Matrix:
    return Matrix([[sympy.cos(angle), -sympy.sin(angle)], [sympy.sin(angle), sympy.cos(angle)]])


def mamba3(
    q: Sequence[Matrix],
    k: Sequence[Matrix],
    delta_: Sequence[Any],
    A: Sequence[Any],
    share: Sequence[Any],
    angle: Sequence[Any],
) -> list[Step]:
    """State and last write, [h; k v]; `share` is λ."""
    none = sympy.zeros(KEYS, KEYS)
    steps = []
    for a, b, d, rate, part, turn in zip(q, k, delta_, A, share, angle, strict=True):
        old = sympy.exp(d * rate) * rotation(turn).T
        above = Matrix.hstack(old, (1 - part) * d * old)
        moved = Matrix.vstack(above, Matrix.hstack(none, none))
        read = Matrix.hstack(a.T, sympy.zeros(1, KEYS))
        steps.append(Step(moved, Matrix.vstack(part * d * b, b), read))
    return steps


def gates(
    decay: Sequence[Any], gain: Sequence[Any], out: Sequence[Any] | None = None
) -> list[Step]:
    """One channel with one state."""
    out = [sympy.Integer(1)] * len(decay) if out is None else out
    return [
        Step(Matrix([[a]]), Matrix([[b]]), Matrix([[c]]))
        for a, b, c in zip(decay, gain, out, strict=True)
    ]


def weighted(weight: Callable[[int, int], Any], steps: int) -> list[Any]:
    """y_i = Σ_{j ≤ i} w_ij v_j."""
    v = scalars("v", steps)
    return [sympy.Add(*(weight(i, j) * v[j] for j in range(i + 1))) for i in range(steps)]

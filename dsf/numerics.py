"""Error bounds: where every tolerance comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Roundings:
    """How a form rounds, in units of u: `step` per transition on a path, `path` once per path.

    `spread` counts roundings relative to the largest entries of the whole sequence (FFT).
    """

    step: float
    path: float
    spread: float = 0.0

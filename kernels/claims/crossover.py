r"""From which length on a chunk form needs fewer operations than causal softmax attention, counted pair by pair."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dsf.certificate import Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from .operations import forward

SIZES = ((64, 64, 64), (64, 128, 128), (128, 128, 128), (64, 256, 256), (64, 128, 64))
"""Chunk, keys and values of the rows that are counted."""


def crossing(C: int, K: int, V: int) -> Fraction:
    """T at which T (T + 1)/2 pairs of 2 (K + V) operations are T times those of a token of the chunk form.

    >>> crossing(64, 128, 128)
    Fraction(383, 1)
    """
    return 2 * C + Fraction(4 * K * V, K + V) - 1


def softmax(T: int, K: int, V: int) -> int:
    """Operations of causal attention's two products, pair by visible pair."""
    return 2 * (K + V) * int(np.tril(np.ones((T, T), dtype=bool)).sum())


def _full(C: int, K: int, V: int) -> Fraction:
    """The crossing with attention that is not causal."""
    return C + Fraction(2 * K * V, K + V)


def _judge(evidence: Evidence) -> Verdict:
    """At the length that is stated the two counts are equal, or of two neighbours one is on each side."""
    stated = [Fraction(x) for x in evidence["crossings"]]
    known = Hypothesis("a length a row", len(stated), len(stated) == len(SIZES))

    def conclude() -> Verdict:
        wrong = 0
        for (C, K, V), T in zip(SIZES, stated, strict=True):
            below, above = int(T), int(T) + 1
            if not 1 <= T < 2**12:
                wrong += 1
                continue
            low = below * forward(C, K, V) - softmax(below, K, V)
            high = above * forward(C, K, V) - softmax(above, K, V)
            # Per token softmax grows by K + V a step, so a straight line gives the crossing.
            per_token = Fraction(low, below) - (T - below) * (K + V)
            wrong += not (per_token == 0 and low >= 0 > high)
        status = Status.HOLDS if wrong == 0 else Status.VIOLATED
        return Verdict(status, float(wrong), 0.0, 0.0, remark=f"{len(SIZES)} rows")

    return under([known], conclude)


def _nothing(task: Task) -> Evidence:
    return {}


CROSSOVER = Claim(
    id="qin2024-lightning.crossover-of-counts",
    title="Counted in operations, chunks overtake causal softmax attention at a few hundred tokens",
    statement=r"$T^* = 2C + \frac{4 K V}{K + V} - 1$: 383 tokens for $C = 64, K = V = 128$",
    citation="Qin et al., arXiv 2405.17381 (linear against quadratic attention), own count",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact counts of pairs at the lengths around it; the control crosses attention that is not causal",
    instance=_nothing,
    witness=lambda _: {"crossings": [crossing(*row) for row in SIZES]},
    control=lambda _: {"crossings": [_full(*row) for row in SIZES]},
    judge=_judge,
)

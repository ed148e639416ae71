r"""How long a grid of thread blocks (CTAs) takes on so many multiprocessors (SMs)."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from .counts import Counts

MOST_SIMULATED = 100_000
"""CTAs up to which every one is placed; beyond, a wave is so small a share that bounds are enough."""


class Makespan(NamedTuple):
    """The time until the last SM is done, and the least any order could take."""

    time: float
    floor: float


def makespan(durations: np.ndarray, sms: int) -> Makespan:
    """Place CTAs in launch order, each on the SM that is free first.

    The result lies between max(total / SMs, longest) and total / SMs + longest (Graham 1969). Over
    100 000 CTAs the middle of these bounds is given.

    >>> makespan(np.array([3.0, 3.0, 2.0, 2.0, 2.0]), 2)
    Makespan(time=7.0, floor=6.0)
    """
    if not durations.size:
        return Makespan(0.0, 0.0)
    longest, total = float(durations.max()), float(durations.sum())
    floor = max(total / sms, longest)
    if durations.size > MOST_SIMULATED and longest > float(durations.min()):
        return Makespan((floor + total / sms + longest) / 2, floor)
    return Makespan(float(durations[last_sm(durations, sms)].sum()), floor)


def last_sm(durations: np.ndarray, sms: int) -> np.ndarray:
    """The indices of the CTAs on the SM that is done last, in launch order.

    >>> last_sm(np.array([3.0, 3.0, 2.0, 2.0, 2.0]), 2).tolist()
    [0, 2, 4]
    """
    if durations.min() == durations.max():
        return np.arange(0, durations.size, sms)
    free = [(0.0, sm) for sm in range(min(sms, durations.size))]
    placed = []
    for duration in durations.tolist():
        at, sm = free[0]
        placed.append(sm)
        heapq.heapreplace(free, (at + duration, sm))
    return np.flatnonzero(np.array(placed) == max(free)[1])


def visits_in_order(counts: Counts, copies: int = 1) -> np.ndarray:
    """KV tiles that each CTA visits, in launch order, for `copies` heads and batch entries.

    Query tiles that hold padding alone come last.
    """
    visits = np.ones(1, dtype=np.int64)
    for factor in counts.histogram_factors:
        row = np.concatenate([np.tile(np.asarray(g.visited), g.many) for g in factor.groups])
        visits = np.multiply.outer(visits, row).ravel()
    visits = visits + counts.extra_tiles
    if padding := counts.padded_q_tiles - counts.q_tiles:
        each = (counts.padded_visited - counts.visited) / padding
        visits = np.concatenate([visits, np.full(padding, each)])
    return np.tile(visits, copies)

"""Where a run went: to the optimal tokens, to a locally optimal selection, or to neither."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from ..instances.data import TokenData
from .measures import margins


class Outcome(StrEnum):
    """What a run selects."""

    GLOBAL = "global"
    LOCAL = "local"
    NEITHER = "neither"


def selected(data: TokenData, w: np.ndarray) -> tuple[np.ndarray, float]:
    """The tokens of the largest logits (n,), and the smallest margin of any of them over another."""
    keys = data.queries @ w.T
    a = np.where(data.mask, (data.tokens @ keys[..., None])[..., 0], -np.inf)
    chosen = a.argmax(1)
    found = margins(data, chosen, w)
    return chosen, float(found.min()) if found.size else np.inf


def locally_optimal(data: TokenData, selection: np.ndarray, w_mm: np.ndarray, slack: float) -> bool:
    """Whether every support token of `w_mm` (margin at most 1 + slack) scores below its α_i."""
    n = data.shape[0]
    others = data.mask.copy()
    others[np.arange(n), selection] = False
    support = np.zeros_like(others)
    support[others] = margins(data, selection, w_mm) <= 1 + slack
    best = data.scores[np.arange(n), selection][:, None]
    return bool((data.scores < best)[support].all())


def classify(
    data: TokenData, w: np.ndarray, w_mm: np.ndarray | None, slack: float, settled: float = 7.0
) -> Outcome:
    """GLOBAL or LOCAL where attention has settled on one token of each sample, else NEITHER.

    `w_mm` is the max-margin solution of the selection of W (`selected`), scaled to margins of at
    least 1, or None where that is infeasible; `slack` its error in margins. Settled means that every
    margin of W is at least `settled`: 7 puts a softmax weight of at least 0.999 on one token against
    one other. LOCAL needs the selection to be locally optimal: a plateau on the way is NEITHER.
    """
    chosen, least = selected(data, w)
    if least < settled or w_mm is None:
        return Outcome.NEITHER
    if (chosen == data.optimal).all():
        return Outcome.GLOBAL
    return Outcome.LOCAL if locally_optimal(data, chosen, w_mm, slack) else Outcome.NEITHER

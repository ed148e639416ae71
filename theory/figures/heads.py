"""A ReLU network on top of attention: how well each max-margin solution predicts the trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..dynamics import Objective, ReluHead, correlation, descend
from ..instances import TokenData, relu_network
from ..svm import Infeasible, Instance, att_svm
from .drawing import DARK, GREY, LIGHT, figure, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEPT, _GONE = 1e-3, 1e-6


def _predictions(
    data: TokenData, w: np.ndarray, s: np.ndarray
) -> tuple[float, float, float] | None:
    """1 - correlation of W with W^fin + R W^mm, with W^mm, and with the solution of single tokens.

    None where the softmax is not decided (a weight between 1e-6 and 1e-3), keeps every token, or
    cannot be separated.
    """
    if ((s > _GONE) & (s <= _KEPT)).any() or not (s <= _GONE).any():
        return None
    n, d = data.queries.shape
    best, kept = s.argmax(1), s > _KEPT
    kept[np.arange(n), best] = False
    shared = [np.flatnonzero(row).tolist() for row in kept]
    instance = Instance(data.ragged(), data.queries, best, equal=shared)
    try:
        many, single = att_svm(instance), att_svm(data.ragged(), data.queries, best)
    except ArithmeticError:
        return None
    if isinstance(many, Infeasible) or isinstance(single, Infeasible):
        return None
    i, t = np.nonzero(kept)
    gaps = data.tokens[i, best[i]] - data.tokens[i, t]
    rows = (gaps[:, :, None] * data.queries[i][:, None, :]).reshape(len(i), d * d)
    finite = np.linalg.lstsq(rows, np.log(s[i, best[i]] / s[i, t]), rcond=None)[0].reshape(d, d)
    scale = ((w - finite) * many.W).sum() / (many.W**2).sum()
    guesses = (finite + scale * many.W, many.W, single.W)
    return tuple(1 - float(correlation(w, guess)) for guess in guesses)  # type: ignore[return-value]


def nonlinear_head(
    d: Sequence[int] = (4, 6, 8), seeds: int = 120, steps: int = 2000, n: int = 3, tokens: int = 4
) -> Figure:
    """1 - correlation of trained W with three predictions against d, for a random ReLU network.

    Note that the finite part is the component of W itself among the kept tokens, by its definition, so
    adding it can hardly do worse. Runs whose softmax is not decided are left out (the numbers in the
    labels are what is left); bars are 1.96 standard errors.
    """
    found = np.full((3, len(d), seeds), np.nan)
    for i, size in enumerate(d):
        drawn = [relu_network(n, tokens, size, seed) for seed in range(seeds)]
        sets = [data for data, _ in drawn]
        objective = Objective.of(sets, head=ReluHead(np.stack([weights for _, weights in drawn])))
        start = 0.01 * np.random.default_rng(size).standard_normal((seeds, size, size))
        (w,) = descend(objective, start, steps, 0.1).final
        s = objective.attention(w).weights()
        for k, data in enumerate(sets):
            if (one := _predictions(data, w[k], s[k])) is not None:
                found[:, i, k] = one
    made, (place,) = figure(5.2, 3.8)
    labels = ("finite + max-margin", "max-margin with equalities", "one token each")
    for values, label, colour in zip(found, labels, (DARK, LIGHT, GREY), strict=True):
        mean, error = spread(values)
        place.errorbar(range(len(d)), mean, error, label=label, color=colour, capsize=2)
    left = np.isfinite(found[0]).sum(1)
    ticks = [f"{size}\n({count} runs)" for size, count in zip(d, left, strict=True)]
    place.set_xticks(range(len(d)), ticks)
    place.set(
        yscale="log", xlabel="d", ylabel="1 - correlation with W", title=f"n = {n}, T = {tokens}"
    )
    place.legend(fontsize=8)
    return made

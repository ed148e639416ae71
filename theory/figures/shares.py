"""How often descent finds the optimal tokens, a locally optimal selection, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..dynamics import Objective, Outcome, classify, descend
from ..dynamics.classify import selected
from ..instances import sphere
from ..svm import Infeasible, att_svm
from .drawing import DARK, GREY, LIGHT, figure, wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def counts(n: int, tokens: int, d: int, seeds: int, steps: int) -> dict[Outcome, int]:
    """Outcomes of normalised descent (step 0.1, small random start) over `seeds` data sets."""
    sets = [sphere(n, tokens, d, seed) for seed in range(seeds)]
    start = 0.01 * np.random.default_rng(seeds).standard_normal((seeds, d, d))
    (w,) = descend(Objective.of(sets), start, steps, 0.1).final
    found = dict.fromkeys(Outcome, 0)
    for data, each in zip(sets, w, strict=True):
        chosen, _ = selected(data, each)
        try:
            solution = att_svm(data.ragged(), data.queries, chosen)
            w_mm = None if isinstance(solution, Infeasible) else solution.W
        except ArithmeticError:  # neither a solution nor a certificate: a margin below rounding
            w_mm = None
        found[classify(data, each, w_mm, slack=1e-6)] += 1
    return found


def shares(
    d: Sequence[int] = (2, 4, 6, 10, 20, 40),
    n: Sequence[int] = (2, 4, 6, 8),
    tokens: Sequence[int] = (3, 6, 9, 12),
    seeds: int = 40,
    steps: int = 2000,
) -> Figure:
    """Shares of global, local and unsettled runs against d (n 4, T 6), n (T 6, d 8) and T (n 4, d 8).

    Local means settled on a selection whose support tokens all score below it; a plateau is neither.
    Bars are 95 % score intervals.
    """
    panels = (
        ("d", d, [(4, 6, size) for size in d], "n = 4, T = 6"),
        ("n", n, [(size, 6, 8) for size in n], "T = 6, d = 8"),
        ("T", tokens, [(4, size, 8) for size in tokens], "n = 4, d = 8"),
    )
    colours = {Outcome.GLOBAL: DARK, Outcome.LOCAL: LIGHT, Outcome.NEITHER: GREY}
    made, axes = figure(11, 3.4, 3)
    for (name, sizes, shapes, title), place in zip(panels, axes, strict=True):
        found = [counts(*shape, seeds=seeds, steps=steps) for shape in shapes]
        for outcome, colour in colours.items():
            hits = np.array([each[outcome] for each in found])
            low, high = wilson(hits, np.full(len(hits), seeds))
            share = hits / seeds
            bars = np.maximum([share - low, high - share], 0)
            place.errorbar(sizes, share, bars, label=outcome.value, color=colour, capsize=2)
        place.set(xlabel=name, ylabel="share of runs", ylim=(-0.03, 1.03), title=title)
    axes[0].legend(fontsize=8)
    return made

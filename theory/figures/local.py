"""Local convergence: the correlation of trained weights with certified max-margin solutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..dynamics import Objective, correlation, descend
from ..dynamics.classify import selected
from ..dynamics.trajectory import spaced
from ..instances import sphere
from ..svm import Infeasible, att_svm
from .drawing import DARK, LIGHT, figure, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def local_convergence(
    n: int = 6, tokens: int = 8, d: int = 10, seeds: int = 12, steps: int = 1000
) -> Figure:
    """Correlation of W, and of K Qᵀ, with the Frobenius and nuclear solutions of what each run selects.

    Normalised descent with step 0.1 from small random weights, over `seeds` data sets; bars are 1.96
    standard errors; the title names the largest relative duality gap.
    """
    sets = [sphere(n, tokens, d, seed) for seed in range(seeds)]
    objective = Objective.of(sets)
    rng = np.random.default_rng(seeds)
    at = spaced(steps, 16)
    starts = {
        "W": 0.01 * rng.standard_normal((seeds, d, d)),
        "(K, Q)": tuple(0.1 * rng.standard_normal((2, seeds, d, d))),
    }
    made, axes = figure(9, 3.6, 2)
    worst = 0.0
    for (name, start), place in zip(starts.items(), axes, strict=True):
        w = descend(objective, start, steps, 0.1, record=at).weights()
        found = np.full((2, len(at), seeds), np.nan)
        for s, data in enumerate(sets):
            chosen, _ = selected(data, w[-1, s])
            for k, norm in enumerate(("frobenius", "nuclear")):
                solution = att_svm(data.ragged(), data.queries, chosen, norm=norm)
                if not isinstance(solution, Infeasible):
                    found[k, :, s] = correlation(w[:, s], solution.W)
                    worst = max(worst, float(solution.relative_gap))
        labels = (r"$W^{mm}$, Frobenius", r"$W^{mm}_\star$, nuclear")
        for values, label, colour in zip(found, labels, (DARK, LIGHT), strict=True):
            mean, error = spread(values)
            place.errorbar(at, mean, error, label=label, color=colour, capsize=2)
        place.set(xscale="log", xlabel="step", ylabel="correlation", title=f"trained: {name}")
        place.legend(loc="lower right", fontsize=8)
    made.suptitle(
        f"n = {n}, T = {tokens}, d = {d}, {seeds} data sets; relative gaps below {worst:.1e}",
        fontsize=9,
    )
    return made

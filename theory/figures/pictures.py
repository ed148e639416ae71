"""Trajectories in the plane, with the max-margin directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..dynamics import Objective, descend
from ..dynamics.classify import selected
from ..instances import picture
from ..svm import Infeasible, att_svm
from .drawing import DARK, GREY, LIGHT, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trajectories(seed: int = 0, starts: int = 12, steps: int = 400) -> Figure:
    """p = W z of two samples in the plane, from several starts, and the directions of what is selected.

    Circles are optimal tokens, dots the others, each scaled by the length of the pictures. Solid rays are
    the certified max-margin directions of the optimal tokens, dashed ones of other selections that
    runs end in; p ends on one of them.
    """
    made, axes = figure(9, 4.4, 2)
    for tokens, place in zip((3, 5), axes, strict=True):
        data = picture(tokens, seed)
        rng = np.random.default_rng([seed, tokens])
        begin = 4.0 * rng.standard_normal((starts, 2, 2))
        run = descend(Objective.of([data] * starts), begin, steps, 0.1, record=range(steps + 1))
        p = run.weights()[..., 0]  # all queries are e_1
        far = float(np.linalg.norm(p[-1], axis=-1).max())
        rays: dict[tuple[int, ...], np.ndarray] = {}
        for each in run.weights()[-1]:
            chosen, _ = selected(data, each)
            solution = att_svm(data.ragged(), data.queries, chosen)
            if not isinstance(solution, Infeasible):
                rays[tuple(chosen.tolist())] = solution.W[:, 0]
        for chosen, ray in rays.items():
            best = chosen == tuple(data.optimal.tolist())
            end = 1.1 * far * ray / np.linalg.norm(ray)
            style = "-" if best else "--"
            label = "max-margin, optimal tokens" if best else "max-margin, other selection"
            place.plot([0, end[0]], [0, end[1]], style, color=LIGHT, linewidth=2, label=label)
        for k in range(starts):
            place.plot(*p[:, k].T, color=DARK, linewidth=1)
            place.plot(*p[0, k], ".", color=DARK)
        scale = 0.35 * far
        for i in range(2):
            place.scatter(*(scale * data.tokens[i].T), s=18, color=GREY)
            place.scatter(
                *(scale * data.tokens[i, data.optimal[i]]), s=80, color="none", ec="black"
            )
        place.set(
            xlabel="$p_1$", ylabel="$p_2$", title=f"n = 2, T = {tokens}, d = 2", aspect="equal"
        )
        handles, labels = place.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        place.legend(unique.values(), unique.keys(), fontsize=7)
    return made

"""Ranks of max-margin solutions against d, and what an absolute tolerance makes of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..instances import sphere
from ..svm import Infeasible, Instance, att_svm
from .drawing import DARK, GREY, LIGHT, figure, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_GAP = 1e-5  # points further from optimal are left out


def _rank(w: np.ndarray, tolerance: float) -> int:
    return int((np.linalg.svd(w, compute_uv=False) > tolerance).sum())


def ranks(
    d: Sequence[int] = (5, 6, 8, 10, 15),
    n: Sequence[int] = (5, 10),
    tokens: int = 5,
    seeds: int = 5,
) -> Figure:
    """Ranks of Frobenius and nuclear solutions of feasible draws against d, for each n.

    Solid lines are ranks of certified points, to 1e-9 of the largest singular value; the dashed line is
    the rank of SCS's solution at absolute tolerance 1e-7 (where cvxpy is installed), which is noise.
    Bars are 1.96 standard errors.
    """
    with_scs = all(importlib.util.find_spec(name) for name in ("cvxpy", "scs"))
    made, axes = figure(4.6 * len(n), 3.8, len(n))
    worst = 0.0
    for count, place in zip(n, axes, strict=True):
        found = np.full((3, len(d), seeds), np.nan)
        for i, size in enumerate(d):
            for seed in range(seeds):
                data = sphere(count, tokens, size, seed)
                instance = Instance(data.ragged(), data.queries, data.optimal)
                try:
                    pair = [att_svm(instance, norm=norm) for norm in ("frobenius", "nuclear")]
                except ArithmeticError:
                    continue
                for k, solution in enumerate(pair):
                    if not isinstance(solution, Infeasible) and solution.relative_gap <= _GAP:
                        top = float(np.linalg.norm(solution.W, 2))
                        found[k, i, seed] = _rank(solution.W, 1e-9 * top)
                        worst = max(worst, float(solution.relative_gap))
                if with_scs and not isinstance(pair[0], Infeasible):
                    other = att_svm(instance, norm="nuclear", solver="cvxpy:scs")
                    if not isinstance(other, Infeasible):
                        found[2, i, seed] = _rank(other.W, 1e-7)
        rows = (
            ("Frobenius, certified", DARK, "-"),
            ("nuclear, certified", LIGHT, "-"),
            ("nuclear, SCS at 1e-7", GREY, "--"),
        )
        for values, (label, colour, style) in zip(found, rows, strict=True):
            if np.isfinite(values).any():
                mean, error = spread(values)
                place.errorbar(
                    d, mean, error, label=label, color=colour, linestyle=style, capsize=2
                )
        place.set(xlabel="d", ylabel="rank", title=f"n = {count}, T = {tokens}")
    axes[0].legend(fontsize=8)
    made.suptitle(f"relative gaps below {worst:.1e}", fontsize=9)
    return made

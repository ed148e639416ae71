"""When some W separates any selection: exact rational witnesses, and exact certificates that none does."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from .evidence import solved
from .problem import need

Rows = list[list[Fraction]]

_SIZES = {Budget.SMOKE: (3, 4, 4), Budget.DEFAULT: (5, 6, 6), Budget.FULL: (10, 11, 12)}
_BELOW = {Budget.SMOKE: (6, 4, 4), Budget.DEFAULT: (8, 4, 5), Budget.FULL: (10, 5, 6)}


def _solve(matrix: Rows, right: list[Fraction]) -> list[Fraction]:
    """One solution of a system of independent rows, by exact elimination; free unknowns are zero."""
    size, table = len(matrix[0]), [[*row, b] for row, b in zip(matrix, right, strict=True)]
    pivots: list[int] = []
    for i, row in enumerate(table):
        pivot = next((j for j in range(size) if row[j]), None)
        if pivot is None:
            raise ArithmeticError("the rows depend on one another: not generic data")
        pivots.append(pivot)
        table[i] = row = [x / row[pivot] for x in row]
        for k, other in enumerate(table):
            if k != i and other[pivot]:
                table[k] = [x - other[pivot] * y for x, y in zip(other, row, strict=True)]
    found = [Fraction(0)] * size
    for row, pivot in zip(table, pivots, strict=True):
        found[pivot] = row[-1]
    return found


def _integers(self_attention: bool, sizes: dict) -> Callable[[Task], Evidence]:
    def instance(task: Task) -> Evidence:
        rng = task.rng()
        n, tokens, d = sizes[task.budget]
        x = rng.integers(-9, 10, (n, tokens, d))
        z = x[:, 0] if self_attention else rng.integers(-9, 10, (n, d))
        return {"tokens": x, "queries": z, "selection": rng.integers(0, tokens, n)}

    return instance


def _fractions(array: np.ndarray) -> Rows:
    return [[Fraction(int(x)) for x in row] for row in np.asarray(array)]


def _separate(drawn: Evidence) -> Evidence:
    """W = Σ u_i w_iᵀ with (x_iα - x_it)ᵀu_i = 1 for all t and w_iᵀz_j = 1 where i = j, else 0."""
    queries = _fractions(drawn["queries"])
    n, d = len(queries), len(queries[0])
    w = [[Fraction(0)] * d for _ in range(d)]
    for i, (x, chosen) in enumerate(zip(drawn["tokens"], drawn["selection"], strict=True)):
        gaps = _fractions(np.delete(x[chosen] - x, chosen, axis=0))
        u = _solve(gaps, [Fraction(1)] * len(gaps))
        dual = _solve(queries, [Fraction(int(i == j)) for j in range(n)])
        w = [[w[a][b] + u[a] * dual[b] for b in range(d)] for a in range(d)]
    return {**drawn, "W": w}


def _separate_in_floats(drawn: Evidence) -> Evidence:
    """Any W with positive margins; a float64 matrix stands for exact dyadic rationals."""
    from ..instances import TokenData

    scale = 1 / 9
    x, z = drawn["tokens"] * scale, drawn["queries"] * scale
    data = TokenData(x, z, np.zeros(x.shape[:2]))
    w = solved(data, drawn["selection"])["primal"]
    return {**drawn, "W": [[Fraction(float(entry)) * 2 for entry in row] for row in w]}


def _contradict(drawn: Evidence) -> Evidence:
    """Sample 1 repeats sample 0 and selects another token: λ = 1 on the two opposite rows."""
    x, z, chosen = (np.array(drawn[name]) for name in ("tokens", "queries", "selection"))
    x[1], z[1] = x[0], z[0]
    chosen[0], chosen[1] = 0, 1
    n, tokens, _ = x.shape
    dual = np.zeros((n, tokens), dtype=np.int64)
    dual[0, 1] = dual[1, 0] = 1
    return {"tokens": x, "queries": z, "selection": chosen, "dual": dual}


def _rows(evidence: Evidence) -> list[tuple[int, int, list[int], list[int]]]:
    """(i, t, x_iα - x_it, z_i) for every t other than α_i, in Python integers."""
    tokens, queries = np.asarray(evidence["tokens"]), np.asarray(evidence["queries"])
    chosen = np.asarray(evidence["selection"])
    n, most, d = tokens.shape
    need(tokens.dtype.kind == queries.dtype.kind == chosen.dtype.kind == "i", "integers are needed")
    need(queries.shape == (n, d) and chosen.shape == (n,), "the shapes disagree")
    need((chosen >= 0).all() and (chosen < most).all(), "selection is out of range")
    found = []
    for i in range(n):
        for t in range(most):
            if t != chosen[i]:
                gap = (tokens[i, chosen[i]] - tokens[i, t]).tolist()
                found.append((i, t, gap, queries[i].tolist()))
    return found


def _judge(above: bool) -> Callable[[Evidence], Verdict]:
    """Exact: a W with positive margins proves feasibility, a λ with A*λ = 0 refutes it (Gordan)."""

    def judge(evidence: Evidence) -> Verdict:
        rows = _rows(evidence)
        n, most, d = np.asarray(evidence["tokens"]).shape
        met = (d >= max(most - 1, n)) == above
        hypothesis = Hypothesis(f"d against max(T - 1, n) = {max(most - 1, n)}", d, bool(met))

        def conclude() -> Verdict:
            if "W" in evidence:
                w = evidence["W"]
                least = min(
                    sum(a * sum(w[p][q] * b for q, b in enumerate(z)) for p, a in enumerate(gap))
                    for _, _, gap, z in rows
                )
                need(least > 0, "W does not separate")
                return Verdict(Status.HOLDS if above else Status.VIOLATED, float(least), None, 0.0)
            dual = np.asarray(evidence["dual"])
            need(dual.shape == (n, most) and dual.dtype.kind == "i", "the dual point is not one")
            weights = [int(dual[i, t]) for i, t, _, _ in rows]
            need(min(weights) >= 0 and sum(weights) > 0, "the dual point is not one")
            for p in range(d):
                for q in range(d):
                    total = sum(
                        k * row[2][p] * row[3][q] for k, row in zip(weights, rows, strict=True)
                    )
                    need(total == 0, "the dual point is no certificate")
            return Verdict(Status.VIOLATED if above else Status.HOLDS, 0.0, None, 0.0)

        return under([hypothesis], conclude)

    return judge


def _claim(name: str, title: str, statement: str, **rest) -> Claim:
    fields = {
        "level": Level.ENCLOSED,
        "expected": Status.HOLDS,
        "citation": "Tarzanagh et al. 2023, arXiv 2308.16898, feasibility of Att-SVM; own wording",
        "bound_rule": "exact rationals: margins above zero, or Gordan's alternative",
        "witness": _separate,
        "control": _contradict,
        "judge": _judge(above=True),
    }
    return Claim(
        id=f"tarzanagh2023-svm.{name}", title=title, statement=statement, **(fields | rest)
    )


_BOUND = r"$d \geq \max(T - 1, n) \Rightarrow \exists W: (x_{i\alpha_i} - x_{it})^T W z_i \geq 1$"

CLAIMS: tuple[Claim, ...] = (
    _claim(
        "feasible",
        "Any selection of generic tokens can be separated where d is at least max(T - 1, n)",
        _BOUND,
        instance=_integers(False, _SIZES),
    ),
    _claim(
        "feasible-self-attention",
        "The same where the query is the first token of each sample",
        _BOUND + r", also for $z_i = x_{i1}$",
        instance=_integers(True, _SIZES),
    ),
    _claim(
        "feasible-only-above",
        "Below that dimension no selection can be separated (some can: the bound is sufficient only)",
        r"$d < \max(T - 1, n) \Rightarrow \forall W \exists i, t: (x_{i\alpha_i} - x_{it})^T W z_i \leq 0$",
        instance=_integers(False, _BELOW),
        expected=Status.VIOLATED,
        witness=_separate_in_floats,
        judge=_judge(above=False),
    ),
)

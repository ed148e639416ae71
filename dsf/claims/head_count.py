r"""How many heads a linear recurrence asks for: the dimension of the span of its lag operators.

A factorised map has W_ij(X) = Σ_h α_ij^h(X) V_h with H fixed maps V_h. All its W_ij lie in the span of
the V_h, so a recurrence with W_ij = C A^{i-j} B needs at least dim span {C A^t B} heads; and a basis of
that span, with coefficients that depend on the lag, is enough.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from .exact import Matrix, rank

_MODES = {Budget.SMOKE: 3, Budget.DEFAULT: 5, Budget.FULL: 7}
_WIDTH = 3
_CITATION = "Ghodsi, arXiv 2512.15115v1, abstract (head-count theorem), own wording"


def _draw(task: Task) -> Evidence:
    """Distinct poles in sixteenths, and integer maps B (n, 3) and C (3, n) without zero rows or columns."""
    rng, modes = task.rng(), _MODES[task.budget]
    poles = [Fraction(int(x), 16) for x in rng.choice(np.arange(1, 16), modes, replace=False)]
    b, c = rng.integers(1, 10, (modes, _WIDTH)), rng.integers(1, 10, (_WIDTH, modes))
    return {"poles": poles, "b": b, "c": c}


def _lags(poles: list[Fraction], b: np.ndarray, c: np.ndarray, length: int) -> list[list[Fraction]]:
    """vec(C A^t B) for t = 0 … length - 1, A diagonal."""
    rows = []
    for t in range(length):
        gains = [p**t for p in poles]
        rows.append(
            [
                sum(
                    (int(c[i, s]) * gains[s] * int(b[s, j]) for s in range(len(poles))), Fraction(0)
                )
                for i in range(c.shape[0])
                for j in range(b.shape[1])
            ]
        )
    return rows


def _heads(drawn: Evidence, drop: int = 0) -> Evidence:
    """A head per mode: V_s = C e_s e_sᵀ B with coefficient λ_s^lag; the control leaves the last one out."""
    poles, b, c = list(drawn["poles"]), np.asarray(drawn["b"]), np.asarray(drawn["c"])
    length, kept = 2 * len(poles) + 1, len(poles) - drop
    maps = [
        [Fraction(int(c[i, s]) * int(b[s, j])) for i in range(_WIDTH) for j in range(_WIDTH)]
        for s in range(kept)
    ]
    weights = [[poles[s] ** t for s in range(kept)] for t in range(length)]
    return {**drawn, "maps": maps, "weights": weights}


def _operators(evidence: Evidence) -> Matrix:
    poles, b, c = list(evidence["poles"]), np.asarray(evidence["b"]), np.asarray(evidence["c"])
    return _lags(poles, b, c, 2 * len(poles) + 1)


def _judge_heads(evidence: Evidence) -> Verdict:
    """The heads reproduce every lag operator, and are as many as these span dimensions."""
    operators, maps, weights = _operators(evidence), evidence["maps"], evidence["weights"]
    wrong = 0
    for row, gains in zip(operators, weights, strict=True):
        for place, value in enumerate(row):
            found = sum((g * v[place] for g, v in zip(gains, maps, strict=True)), Fraction(0))
            wrong += found != value
    dimension = rank(operators)
    status = Status.HOLDS if wrong == 0 and len(maps) == dimension else Status.VIOLATED
    remark = f"{len(maps)} heads, {wrong} entries of lag operators missed, dimension {dimension}"
    return Verdict(status, float(len(maps)), float(dimension), float(dimension), remark=remark)


HEADS_SUFFICE = Claim(
    id="ghodsi2025.as-many-heads-as-dimensions",
    title="A recurrence is a sum of as many heads as its lag operators span dimensions, and of no fewer",
    statement=(
        r"$C A^{i-j} B = \sum_{h=1}^{H} \alpha^h_{i-j} V_h, \quad "
        r"H = \mathrm{dim}\, \mathrm{span}\, \{C A^t B : 0 \leq t < T\}$"
    ),
    citation=_CITATION,
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact rationals: every lag operator, and the rank of all of them; the control has a head less",
    instance=_draw,
    witness=_heads,
    control=lambda drawn: _heads(drawn, drop=1),
    judge=_judge_heads,
)


def _all_modes(drawn: Evidence) -> Evidence:
    return dict(drawn)


def _one_mode(drawn: Evidence) -> Evidence:
    return {"poles": drawn["poles"][:1], "b": drawn["b"][:1], "c": drawn["c"][:, :1]}


def _judge_single(evidence: Evidence) -> Verdict:
    """More than one dimension: no scalar weights of one shared map reproduce the lag operators."""
    dimension = rank(_operators(evidence))
    status = Status.HOLDS if dimension > 1 else Status.VIOLATED
    return Verdict(status, -float(dimension), None, -2.0, remark=f"dimension {dimension}")


ONE_HEAD_IS_NOT_ENOUGH = Claim(
    id="ghodsi2025.one-head-is-not-enough",
    title="One head, one shared map with scalar weights, cannot be a recurrence with several modes",
    statement=r"$C A^t B \neq \alpha_t V$ for some $t$: $\mathrm{dim}\, \mathrm{span}\, \{C A^t B\} \geq 2$",
    citation=f"{_CITATION} (interaction rank gap)",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact rank of the stacked lag operators; the control has one mode",
    instance=_draw,
    witness=_all_modes,
    control=_one_mode,
    judge=_judge_single,
)

_REACH = {Budget.SMOKE: 8, Budget.DEFAULT: 11, Budget.FULL: 14}


def _distances(task: Task) -> Evidence:
    return {"doublings": _REACH[task.budget], "pole": Fraction(int(task.rng().integers(8, 16)), 16)}


def _attends(drawn: Evidence) -> Evidence:
    """A logit of log 2 · (e + 1) for the token 2^e steps back, and 0 for those after it."""
    return {"exponents": list(range(1, drawn["doublings"] + 2))}


def _decays(drawn: Evidence) -> Evidence:
    return {"exponents": list(range(1, drawn["doublings"] + 2)), "pole": drawn["pole"]}


def _judge_reach(evidence: Evidence) -> Verdict:
    """The weight of the token t = 2^e steps back, for e = 0, 1, …, of attention or of a mode λ^t."""
    exponents = [int(x) for x in evidence["exponents"]]
    few = 0 < len(exponents) <= 24 and all(0 <= x <= 64 for x in exponents)
    pole = evidence.get("pole")

    def conclude() -> Verdict:
        if pole is None:
            weights = [Fraction(2**x, 2**x + 2**e) for e, x in enumerate(exponents)]
        else:
            weights = [Fraction(pole) ** (2**e) for e in range(len(exponents))]
        least = min(weights)
        status = Status.HOLDS if least >= Fraction(1, 2) else Status.VIOLATED
        return Verdict(status, -float(least), None, -0.5)

    return under([Hypothesis("distances", len(exponents), few)], conclude)


ATTENTION_REACHES = Claim(
    id="ghodsi2025.attention-reaches-any-distance",
    title="Some input gives attention a weight of one half at any distance; a stable mode gives none",
    statement=r"$\max_X \Phi_{i,\,i-t}(X) \geq \frac{1}{2}$ for all $t = 1, 2, 4, \ldots$, unlike $\lambda^t$",
    citation="Ghodsi, arXiv 2512.15115v1, abstract (gradient highway), own wording: the path through the weight",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact rationals: logits in log 2 times integers; the control is a decaying mode",
    instance=_distances,
    witness=_attends,
    control=_decays,
    judge=_judge_reach,
)

CLAIMS = (HEADS_SUFFICE, ONE_HEAD_IS_NOT_ENOUGH, ATTENTION_REACHES)

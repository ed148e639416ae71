r"""Aaren: softmax of one fixed query at every prefix, as a scan, as chunks of a scalar decay, and with one state."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.claims.exact import hankel_ranks
from dsf.claims.rows import Identities, identity
from dsf.verify.judges import under

from .online_softmax import Piece, merged, real, softmax

_PAPER = "Feng et al., arXiv 2405.13956, section 3, own wording"
_TOKENS = 4


@cache
def _scan(true: bool) -> Identities:
    """Hillis and Steele's scan under free references, one a merge; the control misses the last doubling."""
    import sympy

    scores, values = real("s", _TOKENS), real("v", _TOKENS)
    row: list[Piece] = [(s, sympy.Integer(1), v) for s, v in zip(scores, values, strict=True)]
    step, level = 1, 0
    while step < (_TOKENS if true else _TOKENS // 2):
        references = real(f"m{level}_", _TOKENS)
        row = [
            merged(row[t - step], row[t], references[t]) if t >= step else row[t]
            for t in range(_TOKENS)
        ]
        step, level = 2 * step, level + 1
    return {
        f"prefix {t + 1}": (row[t][2] / row[t][1], softmax(scores[: t + 1], values[: t + 1]))
        for t in range(_TOKENS)
    }


@cache
def _chunk(true: bool) -> Identities:
    """S_t = e^{m_{t-1} - m_t} S_{t-1} + e^{s_t - m_t} [v_t, 1] on one key; the control does not decay."""
    import sympy

    from dsf.symbolic import Step, unroll

    scores, values, m = real("s", _TOKENS), real("v", _TOKENS), real("m", _TOKENS)
    one, steps, tokens = sympy.eye(1), [], []
    for t in range(_TOKENS):
        decay = sympy.exp(m[t - 1] - m[t]) if t and true else sympy.Integer(1)
        steps.append(Step(decay * one, sympy.exp(scores[t] - m[t]) * one, one))
        tokens.append(sympy.Matrix([[values[t], 1]]))
    outputs: list[Any] = unroll(steps, tokens)[0]
    return {
        f"prefix {t + 1}": (y[0] / y[1], softmax(scores[: t + 1], values[: t + 1]))
        for t, y in enumerate(outputs)
    }


SYMBOLIC = (
    identity(
        "feng2024-attention.scan-is-softmax-of-every-prefix",
        "A prefix scan of pieces is attention with a fixed query at every prefix, under any references",
        r"$(m_1, 1, v_1) \oplus \cdots \oplus (m_t, 1, v_t) = (m, u, w): \quad "
        r"w / u = \mathrm{softmax}(s_1, \ldots, s_t) v$ for $t = 1, \ldots, T$",
        _PAPER,
        _scan,
        rule="exact algebra over free scores, values and references: four tokens; the control stops a doubling early",
    ),
    identity(
        "feng2024-attention.chunks-of-a-scalar-decay",
        "It is a chunk kernel's recurrence: one key, a decay and a write that no maximum lets exceed one",
        r"$S_t = e^{m_{t-1} - m_t} S_{t-1} + e^{s_t - m_t} [v_t, 1], \quad y_t = S_t^v / S_t^1 = "
        r"\mathrm{softmax}(s_1, \ldots, s_t) v$",
        f"{_PAPER}; as a scalar decay: own",
        _chunk,
        rule="exact algebra over free scores, values and references: four tokens; the control does not decay",
    ),
)

_LENGTHS = {Budget.SMOKE: 8, Budget.DEFAULT: 16, Budget.FULL: 32}


def _draw(task: Task) -> Evidence:
    """e^s as integers: one a token, and one a token and query for the control."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    return {"fixed": rng.integers(1, 100, length), "own": rng.integers(1, 100, (length, length))}


def _one_query(drawn: Evidence) -> Evidence:
    return {"weights": np.broadcast_to(drawn["fixed"], drawn["own"].shape).copy()}


def _own_queries(drawn: Evidence) -> Evidence:
    return {"weights": drawn["own"]}


def _judge_state(evidence: Evidence) -> Verdict:
    """The largest rank of Φ[i:, :i] over the cuts, Φ_tj = e_tj / Σ_{l ≤ t} e_tl for j ≤ t."""
    weights = np.asarray(evidence["weights"])
    shaped = weights.ndim == 2 and weights.shape[0] == weights.shape[1] and 3 < len(weights) <= 64
    positive = bool(shaped and weights.dtype.kind == "i" and (weights > 0).all())

    def conclude() -> Verdict:
        rows = [[Fraction(int(x)) for x in row] for row in weights]
        phi = [
            [x / sum(row[: t + 1]) if j <= t else Fraction(0) for j, x in enumerate(row)]
            for t, row in enumerate(rows)
        ]
        most = max(hankel_ranks(phi))
        status = Status.HOLDS if most == 1 else Status.VIOLATED
        return Verdict(
            status, float(most), 1.0, 1.0, remark=f"{len(phi)} tokens, {len(phi) - 1} cuts"
        )

    square = Hypothesis("tokens", len(weights), shaped)
    return under([square, Hypothesis("e^s positive integers", positive, positive)], conclude)


ONE_STATE = Claim(
    id="feng2024-attention.one-state-is-enough",
    title="Attention with one fixed query needs one state at every cut; with a query per token it needs more",
    statement=r"$\max_i \mathrm{rank}\, \Phi[i:, :i] = 1, \quad \Phi_{tj} = e^{s_j} / \sum_{l \leq t} e^{s_l}$",
    citation=f"{_PAPER}: constant memory; ranks: own",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact ranks of rational blocks at every cut; the control scores each token by a query of its own",
    instance=_draw,
    witness=_one_query,
    control=_own_queries,
    judge=_judge_state,
)


def _large(task: Task) -> Evidence:
    return {"scores": task.rng().integers(90, 200, 8)}


def power_of_e(exponent: Fraction) -> tuple[Fraction, Fraction]:
    """Bounds of e^x for rational x: 2.7 < e < 3, to the whole powers around x.

    >>> power_of_e(Fraction(2)) == (Fraction(729, 100), 9)
    True
    """
    below, above = math.floor(exponent), math.ceil(exponent)
    low, high = Fraction(27, 10), Fraction(3)
    return (low if below >= 0 else high) ** below, (high if above >= 0 else low) ** above


def _judge_finite(evidence: Evidence) -> Verdict:
    """Bounds of Σ e^s for integer scores: beyond 2^128 the sum has no float32."""
    scores = [int(x) for x in np.asarray(evidence["scores"])]
    few = 0 < len(scores) <= 4096 and all(abs(s) <= 4096 for s in scores)

    def conclude() -> Verdict:
        bounds = [power_of_e(Fraction(s)) for s in scores]
        least, most = (sum(ends, Fraction(0)) for ends in zip(*bounds, strict=True))
        remark = f"largest score {max(scores)}"
        if least >= 2**128:
            return Verdict(Status.VIOLATED, float(max(scores)), remark=remark)
        status = Status.HOLDS if most < 2**127 else Status.INCONCLUSIVE
        return Verdict(status, float(max(scores)), remark=remark)

    return under([Hypothesis("scores", len(scores), few)], conclude)


WITHOUT_REFERENCE = Claim(
    id="feng2024-attention.sums-without-reference-stay-finite",
    title="Running sums of e^s need no running maximum (they leave float32 at scores of 90)",
    statement=r"$\sum_j e^{s_j} < 2^{128}$, the first number beyond float32",
    citation=f"Refutes a hope that is not the paper's; {_PAPER}: why pieces carry a maximum",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rationals: 2.7 < e < 3; the control has scores less their maximum",
    instance=_large,
    witness=lambda drawn: dict(drawn),
    control=lambda drawn: {"scores": drawn["scores"] - drawn["scores"].max()},
    judge=_judge_finite,
)

CLAIMS = (ONE_STATE, WITHOUT_REFERENCE)

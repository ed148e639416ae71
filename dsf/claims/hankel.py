r"""T2: how many states attention needs, as exact ranks of Hankel blocks Φ[i:, :i].

Softmax with logits in log 2 · ℤ has weights 2^n, so its ranks are those of rational matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from .exact import Matrix, dot, hankel_ranks, rationals

_LENGTHS = {Budget.SMOKE: 12, Budget.DEFAULT: 20, Budget.FULL: 36}
_KEYS = 2


def _draw(task: Task) -> Evidence:
    """Queries and keys in a general position: exponents that are pairwise different dot products."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    queries = np.stack([rng.permutation(length) + 1, rng.integers(1, 4, length)], 1)
    keys = np.stack([rng.permutation(length) + 1, rng.integers(1, 4, length)], 1)
    return {"q": queries, "k": keys}


def _with_kernel(kernel: str) -> Callable[[Evidence], Evidence]:
    return lambda drawn: {"q": drawn["q"], "k": drawn["k"], "kernel": kernel}


def _weights(evidence: Evidence) -> Matrix:
    """Normalised causal weights in exact rationals."""
    queries, keys = (rationals(evidence[name].tolist()) for name in ("q", "k"))
    kernels: dict[str, Callable[[Fraction], Fraction]] = {
        "exponential": lambda s: Fraction(2) ** int(s),
        "linear": lambda s: s,
    }
    kernel = kernels[evidence["kernel"]]
    rows = []
    for i, query in enumerate(queries):
        row = [kernel(dot(query, key)) if j <= i else Fraction(0) for j, key in enumerate(keys)]
        total = sum(row, Fraction(0))
        rows.append([x / total for x in row])
    return rows


def _small_exponents(evidence: Evidence) -> Hypothesis:
    largest = int(np.abs(evidence["q"]).max() * np.abs(evidence["k"]).max() * _KEYS)
    return Hypothesis("largest exponent", largest, largest <= 4096)


def _judge_linear(evidence: Evidence) -> Verdict:
    def conclude() -> Verdict:
        largest = max(hankel_ranks(_weights(evidence)))
        status = Status.HOLDS if largest == _KEYS else Status.VIOLATED
        return Verdict(status, float(largest), float(_KEYS), float(_KEYS))

    return under([_small_exponents(evidence)], conclude)


def _judge_softmax(evidence: Evidence) -> Verdict:
    def conclude() -> Verdict:
        weights = _weights(evidence)
        length = len(weights)
        ranks = hankel_ranks(weights)
        missing = sum(min(i, length - i) - r for i, r in enumerate(ranks, 1))
        status = Status.VIOLATED if missing else Status.HOLDS
        remark = f"largest rank {max(ranks)} with keys of dimension {_KEYS}"
        return Verdict(status, float(missing), 0.0, 0.0, remark=remark)

    return under([_small_exponents(evidence)], conclude)


LINEAR_ATTENTION_RANK = Claim(
    id="sieber2024.t2-linear-attention-rank",
    title="Linear attention needs as many states per channel as its keys have dimensions",
    statement=r"$\max_i \; \mathrm{rank}\, \Phi_{[i:, :i]} = d_{qk}$",
    citation="Sieber et al., arXiv 2405.15731v3, section 3 (state expansion n of linear attention), own wording",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact ranks of rational matrices",
    instance=_draw,
    witness=_with_kernel("linear"),
    control=_with_kernel("exponential"),
    judge=_judge_linear,
)

SOFTMAX_RANK = Claim(
    id="sieber2024.t2-softmax-rank",
    title="Softmax attention needs as many states as it has tokens, whatever the dimension of its keys",
    statement=r"$\mathrm{rank}\, \Phi_{[i:, :i]} = \min(i, T - i)$ for every cut $i$",
    citation="Finite form of softmax attention's infinite state, Sieber et al., arXiv 2405.15731v3, section 3",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact ranks of rational matrices: logits in log 2 times integers",
    instance=_draw,
    witness=_with_kernel("exponential"),
    control=_with_kernel("linear"),
    judge=_judge_softmax,
)

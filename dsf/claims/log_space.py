r"""Two ways to run h_i = a_i h_{i-1} + b_i in parallel that lose it: logarithms, and dividing by products."""

from __future__ import annotations

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

_LENGTHS = {Budget.SMOKE: 1024, Budget.DEFAULT: 4096, Budget.FULL: 65536}
_CITATION = "Heinsen, arXiv 2311.06281 (two prefix sums in log space), own wording"
_U = 2.0**-24


def _draw(task: Task) -> Evidence:
    """Gates in (1/2, 1) and inputs in (1/10, 1), float32."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    draw = {"a": rng.uniform(0.5, 1.0, length), "b": rng.uniform(0.1, 1.0, length)}
    return {name: x.astype(np.float32) for name, x in draw.items()}


def _in_logs(drawn: Evidence) -> Evidence:
    """log h = G + logcumsumexp(log b - G), G = cumsum(log a), all in float32."""
    a, b = (np.asarray(drawn[n]) for n in "ab")
    g = np.cumsum(np.log(a), dtype=np.float32)
    h = np.exp(g + np.logaddexp.accumulate((np.log(b) - g).astype(np.float32)))
    return {**drawn, "h": h.astype(np.float32)}


def _in_a_tree(drawn: Evidence) -> Evidence:
    """The same by pairs (a, b) doubled in distance (Hillis and Steele), in float32."""
    a, h = (np.array(drawn[n]) for n in "ab")
    step = 1
    while step < len(a):
        h[step:] = a[step:] * h[:-step] + h[step:]
        a[step:] = a[step:] * a[:-step]
        step *= 2
    return {**drawn, "h": h}


def _exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """h in float64, one step after another: 2^29 times finer than what is judged."""
    state, found = 0.0, []
    for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        state = x * state + y
        found.append(state)
    return np.array(found)


def _relative(evidence: Evidence) -> tuple[float, np.ndarray, np.ndarray]:
    a, b, h = (np.asarray(evidence[n]) for n in "abh")
    exact = _exact(a, b)
    worst = float(np.max(np.abs(h.astype(np.float64) - exact) / exact))
    return worst, a, b


def _positive(evidence: Evidence) -> Hypothesis:
    least = min(float(np.min(np.asarray(evidence[n]))) for n in "ab")
    largest = float(np.max(np.asarray(evidence["a"])))
    return Hypothesis("gates in (0, 1] and inputs positive", least, least > 0 and largest <= 1)


def _judge_precision(evidence: Evidence) -> Verdict:
    """Relative error against n u / (1 - n u), n = 3 ⌈log₂ T⌉: what a tree of positive pairs cannot exceed."""

    def conclude() -> Verdict:
        worst, a, _ = _relative(evidence)
        n = 3 * int(np.ceil(np.log2(max(2, len(a))))) * _U
        slack = 4 * len(a) * 2.0**-53
        return within(worst, n / (1 - n) + slack, error=slack)

    return under([_positive(evidence)], conclude)


LOG_SPACE_LOSES = Claim(
    id="heinsen2023.log-space-is-as-exact-as-a-tree",
    title="A scan in log space is as exact as a tree of products (it is not)",
    statement=(
        r"$|\hat{h}_i - h_i| \leq \frac{n u}{1 - n u} h_i, \; n = 3 \lceil \log_2 T \rceil$ for "
        r"$\hat{h} = \exp(G + \mathrm{logcumsumexp}(\log b - G)), \; G = \mathrm{cumsum}(\log a)$"
    ),
    citation=f"Refutes a hope that is not the paper's; {_CITATION}",
    level=Level.CERTIFIED,
    expected=Status.VIOLATED,
    bound_rule="positive paths through a tree: 3 roundings a level (Higham 2002, lemma 3.1); "
    "the control is that tree",
    instance=_draw,
    witness=_in_logs,
    control=_in_a_tree,
    judge=_judge_precision,
)


def _judge_growth(evidence: Evidence) -> Verdict:
    """Relative error against u |Σ log a|: it must be within a factor of 32 of it, from below and above."""

    def conclude() -> Verdict:
        worst, a, _ = _relative(evidence)
        predicted = _U * float(np.abs(np.log(a.astype(np.float64)).sum()))
        verdict = within(abs(np.log2(worst / predicted)), 5.0) if worst > 0 else within(64.0, 5.0)
        remark = f"relative error {worst:.2e}, predicted {predicted:.2e}"
        return Verdict(verdict.status, verdict.measured, 0.0, verdict.bound, remark=remark)

    return under([_positive(evidence)], conclude)


LOG_SPACE_GROWTH = Claim(
    id="heinsen2023.log-space-error-grows-with-the-logs",
    title="In log space the relative error is about the rounding of the sum of the log-gates",
    statement=r"$2^{-5} \leq \max_i \frac{|\hat{h}_i - h_i|}{h_i} \, / \, (u\, |\sum_i \log a_i|) \leq 2^5$",
    citation=f"Own prediction: a log of size |G| is rounded to u |G|; {_CITATION}",
    level=Level.MEASURED,
    expected=Status.HOLDS,
    bound_rule="a factor of 32 either way; the control is a tree of products, whose error does not grow",
    instance=_draw,
    witness=_in_logs,
    control=_in_a_tree,
    judge=_judge_growth,
)


def _long(drawn: Evidence) -> Evidence:
    return {"a": drawn["a"], "b": drawn["b"]}


def _short(drawn: Evidence) -> Evidence:
    return {"a": drawn["a"][:64], "b": drawn["b"][:64]}


def _judge_quotient(evidence: Evidence) -> Verdict:
    """P = cumprod(a), h = P · cumsum(b / P) in float32, computed here; measured: entries not finite."""
    a, b = (np.asarray(evidence[n]).astype(np.float32) for n in "ab")

    def conclude() -> Verdict:
        with np.errstate(all="ignore"):
            products = np.cumprod(a, dtype=np.float32)
            h = products * np.cumsum(b / products, dtype=np.float32)
        bad = np.nonzero(~np.isfinite(h))[0]
        status = Status.VIOLATED if len(bad) else Status.HOLDS
        remark = f"first at step {bad[0]} of {len(h)}" if len(bad) else f"{len(h)} steps"
        return Verdict(status, float(len(bad)), None, 0.0, remark=remark)

    return under([_positive(evidence)], conclude)


QUOTIENT_OVERFLOWS = Claim(
    id="heinsen2023.dividing-by-products-stays-finite",
    title="Dividing by cumulative products gives finite states wherever the states are finite (it does not)",
    statement=r"$P_i \sum_{j \leq i} b_j / P_j < \infty$ in float32, $P = \mathrm{cumprod}(a), \; 1/2 < a_i < 1$",
    citation=f"The linear form of the two prefix sums; {_CITATION}",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="the judge's own float32 arithmetic; the control has 64 steps",
    instance=_draw,
    witness=_long,
    control=_short,
    judge=_judge_quotient,
)

CLAIMS = (LOG_SPACE_LOSES, LOG_SPACE_GROWTH, QUOTIENT_OVERFLOWS)

r"""What rounding does to a long recurrence: bounds that hold, one that says nothing, a state that stalls."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

_LENGTHS = {Budget.SMOKE: 512, Budget.DEFAULT: 2048, Budget.FULL: 8192}
_CHANNELS, _U = 32, 2.0**-24
_HIGHAM = "Higham 2002, Accuracy and Stability of Numerical Algorithms, own wording"


def _draw(task: Task) -> Evidence:
    """Gates of memories from 2 to 10^4 steps, one a channel, and signed inputs, float32."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    memory = np.logspace(0.3, 4, _CHANNELS)
    a = np.exp(-rng.uniform(0, 2, (length, _CHANNELS)) / memory)
    return {
        "a": a.astype(np.float32),
        "x": rng.standard_normal((length, _CHANNELS)).astype(np.float32),
    }


def _run(drawn: Evidence, coarse: bool = False) -> Evidence:
    """h in float32, one step after another; the control keeps its state in bfloat16."""
    a, x = (np.asarray(drawn[n]) for n in "ax")
    state, found = np.zeros(a.shape[1], dtype=np.float32), []
    for gate, entering in zip(a, x, strict=True):
        state = gate * state + entering
        state = _bfloat16(state) if coarse else state
        found.append(state)
    return {**drawn, "h": np.stack(found)}


def _bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to eight bits, to nearest even."""
    bits = x.astype(np.float32).view(np.uint32)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)


def running_bound(a: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h in float64 and E_i = a (1 + u) E_{i-1} + u |a h_{i-1}| + u |h_i| + …, step by step (…).

    The computed ĥ_i = (a ĥ_{i-1} (1 + δ) + x) (1 + δ'), so |ĥ - h| obeys
    E_i = (1 + u) ((1 + u) a E_{i-1} + u a |h_{i-1}|) + u |h_i|.
    """
    state, error = np.zeros(a.shape[1]), np.zeros(a.shape[1])
    states, errors = [], []
    for gate, entering in zip(a.astype(np.float64), x.astype(np.float64), strict=True):
        carried = gate * state
        state = carried + entering
        error = (1 + _U) * ((1 + _U) * gate * error + _U * np.abs(carried)) + _U * np.abs(state)
        states.append(state)
        errors.append(error)
    return np.stack(states), np.stack(errors)


def _gates(evidence: Evidence) -> Hypothesis:
    a = np.asarray(evidence["a"])
    return Hypothesis("gates in [0, 1]", float(a.max()), bool((a >= 0).all() and (a <= 1).all()))


def _judge_running(evidence: Evidence) -> Verdict:
    """The largest share |ĥ - h| / E that is used."""
    a, x, h = (np.asarray(evidence[n]) for n in "axh")

    def conclude() -> Verdict:
        exact, bound = running_bound(a, x)
        own = 2.0**-28  # the reference's own running bound is 2^-29 of this one
        share = np.abs(h.astype(np.float64) - exact) / bound
        return within(float(share.max()), 1.0, error=own)

    return under([_gates(evidence)], conclude)


RUNNING_BOUND = Claim(
    id="higham2002.running-error-bound",
    title="The running error bound of a gated recurrence holds in float32, and not for a bfloat16 state",
    statement=(
        r"$|\hat{h}_i - h_i| \leq E_i, \quad E_i = (1+u)((1+u) a_i E_{i-1} + u\, a_i |h_{i-1}|) + u |h_i|$"
    ),
    citation=f"{_HIGHAM}, section 3.3 (running error analysis)",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="running error analysis, two roundings a step; measured is the largest share used",
    instance=_draw,
    witness=_run,
    control=lambda drawn: _run(drawn, coarse=True),
    judge=_judge_running,
)


def _judge_gamma(evidence: Evidence) -> Verdict:
    """γ_{2T} Σ|paths| over the observed error of the longest memory; at least a hundred times too large."""
    a, x, h = (np.asarray(evidence[n]) for n in "axh")

    def conclude() -> Verdict:
        exact, _ = running_bound(a, x)
        sizes, _ = running_bound(a, np.abs(x))
        nu = 2 * len(a) * _U
        observed = float(np.max(np.abs(h.astype(np.float64) - exact) / sizes))
        loose = nu / (1 - nu) / observed
        return within(-loose, -100.0)

    return under([_gates(evidence)], conclude)


GAMMA_IS_LOOSE = Claim(
    id="higham2002.constants-say-little-of-long-recurrences",
    title="The a priori constant of a long recurrence is a hundred times what is observed, or more",
    statement=r"$\gamma_{2T} \geq 100\, \max_i \frac{|\hat{h}_i - h_i|}{\sum_j a_i \cdots a_{j+1} |x_j|}$",
    citation=f"{_HIGHAM}, section 3.1 (constants γ) against their use for recurrences",
    level=Level.MEASURED,
    expected=Status.HOLDS,
    bound_rule="a factor of 100; the control keeps its state in bfloat16, whose errors reach the constant",
    instance=_draw,
    witness=_run,
    control=lambda drawn: _run(drawn, coarse=True),
    judge=_judge_gamma,
)


def rounded(x: Fraction, bits: int) -> Fraction:
    """To `bits` significant bits, to nearest even, exactly."""
    if not x:
        return x
    unit = Fraction(1)
    while abs(x) >= unit * 2**bits:
        unit *= 2
    while abs(x) < unit * 2 ** (bits - 1):
        unit /= 2
    return round(x / unit) * unit  # Python rounds halves to even


def _judge_counter(evidence: Evidence) -> Verdict:
    """h ← round(h + 1), T times: the state after T steps, exactly, against T."""
    bits, steps = int(evidence["bits"]), int(evidence["steps"])
    few = Hypothesis("steps", steps, 0 < steps <= 4096 and 1 <= bits <= 64)

    def conclude() -> Verdict:
        state = Fraction(0)
        for _ in range(steps):
            state = rounded(state + 1, bits)
        status = Status.HOLDS if state == steps else Status.VIOLATED
        return Verdict(status, float(state), float(steps), float(steps))

    return under([few], conclude)


COUNTER_STALLS = Claim(
    id="higham2002.a-bfloat16-state-counts",
    title="A state kept in bfloat16 counts its tokens (it stops at 256)",
    statement=r"$h_i = \mathrm{fl}(h_{i-1} + 1) \; \Rightarrow \; h_T = T$ for $T = 1024$ and eight bits",
    citation=f"{_HIGHAM}, section 2.1 (floating-point numbers)",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rounding of rationals; the control has the 24 bits of float32",
    instance=lambda task: {"steps": 1024},
    witness=lambda drawn: {**drawn, "bits": 8},
    control=lambda drawn: {**drawn, "bits": 24},
    judge=_judge_counter,
)

CLAIMS = (RUNNING_BOUND, GAMMA_IS_LOOSE, COUNTER_STALLS)

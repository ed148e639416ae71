r"""Lightning attention's fixed decays: two rules for their rates, and two ways to run them.

The rate of head h of H in layer l of L is (8h/H)(1 - l/L) on paper and 2^{-8h/H} (1 - l/(L - 1) + 10^{-5}) in the
code, λ = e^{-rate}.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

from dsf.certificate import Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.claims.rows import Identities, difference, identity
from dsf.verify.judges import under

from .aaren import power_of_e

_FORMULA = "TransNormerLLM, Qin et al., arXiv 2307.14995, equation 2, own wording"
_CODE = "OpenNLPLab/lightning-attention, lightning_attn/utils (slopes of ALiBi), own wording"
_ROBUST = (
    "TransNormerLLM, Qin et al., arXiv 2307.14995, robust inference and its appendix, own wording"
)


def _rates() -> tuple[Any, Any, Any, Any, Any, Any]:
    import sympy

    h, heads, layer, layers = sympy.symbols("h H l L", positive=True)
    paper = 8 * h / heads * (1 - layer / layers)
    code = 2 ** (-8 * h / heads) * (1 - layer / (layers - 1) + sympy.Rational(1, 10**5))
    return h, heads, layer, layers, paper, code


@cache
def _formula(true: bool) -> Identities:
    """λ_h = λ_1^h in every layer, and λ = 1 in layer L; the control is the code's rule for 8 heads, 12 layers."""
    import sympy

    h, heads, layer, layers, paper, code = _rates()
    rate, last = paper, layers
    if not true:
        rate, last, layers = code.subs({heads: 8, layers: 12}), 11, 12
    first = rate.subs(h, 1)
    return {
        "powers": (sympy.exp(-rate.subs(h, 2)), sympy.exp(-first) ** 2),
        "powers of any head": (sympy.exp(-rate), sympy.exp(-first) ** h),
        "last layer": (sympy.exp(-rate.subs(layer, last)), sympy.Integer(1)),
    }


@cache
def _rules(true: bool) -> Identities:
    """The code's slopes as its progression 2^{-8/H}, 2^{-16/H}, …; the refuted claim has the paper's rate."""
    import sympy

    h, heads, layer, layers, paper, code = _rates()
    factor = 1 - layer / (layers - 1) + sympy.Rational(1, 10**5)
    start = 2 ** (-8 / heads)
    other = start * start ** (h - 1) * factor if true else paper
    model = {heads: 8, layers: 12, layer: 0}
    return {
        f"head {n} of 8": (code.subs({**model, h: n}), other.subs({**model, h: n}))
        for n in range(1, 9)
    }


@cache
def _factored(true: bool) -> Identities:
    """Decays split into λ^t at the query and λ^{-t} at the key; the control splits them the other way round."""
    import sympy

    from .symbols import Symbols

    steps = 4
    decay = sympy.Symbol("lambda", positive=True)
    x = Symbols.of(steps, 2, 1)
    x = replace(x, a=decay * sympy.ones(*x.a.shape), state=sympy.zeros(*x.state.shape))
    expected, _ = x.run()
    sign = 1 if true else -1
    grown = sympy.diag(*(decay ** (-sign * (t + 1)) for t in range(steps))) * x.k
    fallen = sympy.diag(*(decay ** (sign * (t + 1)) for t in range(steps))) * x.q
    plain = replace(x, q=fallen, k=grown, a=sympy.ones(*x.a.shape))
    return {"outputs": (plain.run()[0], expected)}


def _judge_growth(evidence: Evidence) -> Verdict:
    """Bounds of λ^{-T} = e^{rate T}: beyond 2^128 the last key has no float32."""
    rate, steps = Fraction(evidence["rate"]), int(evidence["steps"])
    known = Hypothesis("rate > 0, steps", steps, rate > 0 and 0 < steps * rate <= 2**16)

    def conclude() -> Verdict:
        least, most = power_of_e(rate * steps)
        if least >= 2**128:
            return Verdict(Status.VIOLATED, float(rate * steps), remark=f"e^{rate * steps}")
        status = Status.HOLDS if most < 2**127 else Status.INCONCLUSIVE
        return Verdict(status, float(rate * steps), remark=f"e^{float(rate * steps):g}")

    return under([known], conclude)


def _steps(task: Task) -> Evidence:
    return {"steps": 1024}


LIGHTNING = (
    identity(
        "qin2024-lightning.rates-on-paper",
        "On paper head h decays as the h-th power of the first, and the last layer does not decay",
        r"$\lambda_{h,l} = e^{-\frac{8h}{H} (1 - \frac{l}{L})}: \quad "
        r"\lambda_{h,l} = \lambda_{1,l}^h, \; \lambda_{h,L} = 1$",
        _FORMULA,
        _formula,
        rule="exact algebra over free h, H, l and L; the control is the code's rule",
    ),
    difference(
        "qin2024-lightning.code-has-the-rates-on-paper",
        "The code's rates are not those on paper",
        r"$2^{-8h/H} (1 - \frac{l}{L - 1} + 10^{-5}) = \frac{8h}{H} (1 - \frac{l}{L})$ for $H = 8, L = 12, l = 0$",
        f"{_CODE}; {_FORMULA}",
        _rules,
        rule="exact rationals, eight heads of the first of twelve layers; the control is the code's own progression",
    ),
    identity(
        "qin2024-lightning.factored-decays",
        "Decays split between queries and keys give the recurrence's outputs",
        r"$(\lambda^t q_t)^T \sum_{s \leq t} \lambda^{-s} k_s v_s^T = q_t^T S_t, \quad "
        r"S_t = \lambda S_{t-1} + k_t v_t^T$",
        _ROBUST,
        _factored,
        rule="exact algebra over free symbols: four steps, two keys; the control splits the other way round",
    ),
    Claim(
        id="qin2024-lightning.factored-decays-stay-finite",
        title="Split decays can be run in float32 (a head with rate one leaves it after 90 tokens)",
        statement=r"$\lambda^{-T} < 2^{128}$, the first number beyond float32, for rate 1 and T = 1024",
        citation=f"Refutes a hope that is not the paper's; {_ROBUST}: why the state itself decays",
        level=Level.ENCLOSED,
        expected=Status.VIOLATED,
        bound_rule="exact rationals: 2.7 < e < 3; the control has the code's slowest rate, 1/256",
        instance=_steps,
        witness=lambda drawn: {**drawn, "rate": Fraction(1)},
        control=lambda drawn: {**drawn, "rate": Fraction(1, 256)},
        judge=_judge_growth,
    ),
)

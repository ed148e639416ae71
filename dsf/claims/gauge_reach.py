r"""What a gauge can change and what it cannot, with counterexamples; T6 and what is provable of T8."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import counterexample, under

from .exact import Matrix, hankel_ranks, rationals
from .rows import identity

_SIEBER = "Sieber et al., arXiv 2405.15731v3, own wording"
_LENGTHS = {Budget.SMOKE: 6, Budget.DEFAULT: 10, Budget.FULL: 20}
_STATES = 2


def _any_transition(true: bool) -> Mapping[str, tuple[Any, Any]]:
    """G_i = Π_{l<=i} μ_l/λ_l gives every scalar system the transitions μ; the control forgets λ."""
    import sympy

    from dsf.symbolic import Step

    from . import book

    steps = 3
    lam, mu, b, c = (book.scalars(n, steps, nonzero=True) for n in ("lambda", "mu", "b", "c"))
    gauge = [sympy.Integer(1)]
    for old, new in zip(lam, mu, strict=True):
        gauge.append(gauge[-1] * (new / old if true else new))

    def system(decays: list[Any], scale: list[Any]) -> list[Step]:
        rows = zip(decays, b, c, scale, strict=True)
        return [
            Step(sympy.Matrix([[a]]), sympy.Matrix([[g * x]]), sympy.Matrix([[y / g]]))
            for a, x, y, g in rows
        ]

    return book.compare(
        book.outputs(system(lam, [sympy.Integer(1)] * steps)), book.outputs(system(mu, gauge[1:]))
    )


def _telescopes(true: bool) -> Mapping[str, tuple[Any, Any]]:
    """Λ_i … Λ_{j+1} of a normaliser in the state; the control has S6's decays, which keep what is between."""
    import sympy

    eta = sympy.symbols("eta0:5", positive=True)
    a = sympy.Symbol("a", positive=True)
    steps = sympy.symbols("Delta0:5", positive=True)
    ratios = [eta[i - 1] / eta[i] if true else sympy.exp(-a * steps[i]) for i in range(1, 5)]
    ends = eta[0] / eta[4] if true else sympy.exp(-a * (steps[4] - steps[0]))
    return {"product": (sympy.Mul(*ratios), ends)}


def _qlstm(true: bool) -> Mapping[str, tuple[Any, Any]]:
    """qLSTM against S6 with N = 1, A = -1, Δ = softplus(-f), b = σ(ı)/Δ, c = σ(o); the control ties b to Δ."""
    import sympy

    from . import book

    f, i, o, x = (book.scalars(name, 2) for name in ("f", "i", "o", "x"))
    cell = state = sympy.Integer(0)
    found = []
    for gate, enter, leave, token in zip(f, i, o, x, strict=True):
        step = sympy.log(1 + sympy.exp(-gate))
        b = book.sigmoid(enter) / step if true else book.sigmoid(enter)
        cell = book.sigmoid(gate) * cell + book.sigmoid(enter) * token
        state = sympy.exp(-step) * state + step * b * token
        found.append((book.sigmoid(leave) * cell, book.sigmoid(leave) * state))
    return {f"y{n + 1}": pair for n, pair in enumerate(found)}


# -- counterexamples and exact ranks -------------------------------------------------------------------


def _diagonal(task: Task) -> Evidence:
    """A diagonal system of two states in eighths, and two gauges of powers of two."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    a, b, c = (rng.integers(1, 8, (length, _STATES)) for _ in range(3))
    return {"a": a, "b": b, "c": c, "exponents": rng.integers(-3, 4, (length + 1, _STATES))}


def _moving(drawn: Evidence) -> Evidence:
    exponents = np.array(drawn["exponents"])
    exponents[0], exponents[1] = 0, 4  # the first step alone grows by 16
    return {**drawn, "exponents": exponents}


def _resting(drawn: Evidence) -> Evidence:
    exponents = np.array(drawn["exponents"])
    exponents[:] = exponents[0]
    return {**drawn, "exponents": exponents}


def _growing(drawn: Evidence) -> Evidence:
    exponents = np.arange(len(drawn["exponents"]))
    return {**drawn, "exponents": np.stack([exponents] * _STATES, 1)}


def _returning(drawn: Evidence) -> Evidence:
    exponents = np.array(drawn["exponents"])
    exponents[-1] = exponents[0]
    return {**drawn, "exponents": exponents}


def _gauged(evidence: Evidence) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Transitions of both gauges, diagonal, and Φ of both, exactly."""
    a, b, c = ([[x / 8 for x in row] for row in rationals(evidence[n].tolist())] for n in "abc")
    scale = [[Fraction(2) ** int(e) for e in row] for row in evidence["exponents"].tolist()]
    moved = [
        [after * x / before for after, x, before in zip(scale[i + 1], row, scale[i], strict=True)]
        for i, row in enumerate(a)
    ]
    gains = [[g * x for g, x in zip(scale[i + 1], row, strict=True)] for i, row in enumerate(b)]
    reads = [[x / g for g, x in zip(scale[i + 1], row, strict=True)] for i, row in enumerate(c)]
    return a, moved, _phi(a, b, c), _phi(moved, gains, reads)


def _phi(a: Matrix, b: Matrix, c: Matrix) -> Matrix:
    length = len(a)
    rows = [[Fraction(0)] * length for _ in range(length)]
    for j in range(length):
        state = list(b[j])
        for i in range(j, length):
            if i > j:
                state = [x * y for x, y in zip(a[i], state, strict=True)]
            rows[i][j] = sum((x * y for x, y in zip(c[i], state, strict=True)), Fraction(0))
    return rows


def _same_map(evidence: Evidence) -> tuple[Hypothesis, tuple[Matrix, Matrix, Matrix, Matrix]]:
    found = _gauged(evidence)
    same = found[2] == found[3]
    return Hypothesis("both gauges have the same Φ", same, same), found


def _judge_radius(evidence: Evidence) -> Verdict:
    """The largest eigenvalue of any step, in both gauges."""
    same, (own, moved, _, _) = _same_map(evidence)
    return under([same], lambda: counterexample(max(map(max, own)), max(map(max, moved))))


def _judge_growth(evidence: Evidence) -> Verdict:
    """The product of all transitions on the first state, in both gauges."""
    same, (own, moved, _, _) = _same_map(evidence)

    def product(rows: Matrix) -> Fraction:
        total = Fraction(1)
        for row in rows:
            total *= row[0]
        return total

    return under([same], lambda: counterexample(product(own), product(moved)))


SPECTRAL_RADIUS_IS_A_GAUGE = Claim(
    id="sieber2024.gauge-spectral-radius",
    title="The largest eigenvalue of a step belongs to the map, not to its gauge (it does not)",
    statement=r"$\max_i \rho(G_i \Lambda_i G_{i-1}^{-1}) = \max_i \rho(\Lambda_i)$ for every gauge $G$",
    citation=f"Refutes a reading of the eigenvalues in {_SIEBER}",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rationals; the control is a gauge that is constant in time",
    instance=_diagonal,
    witness=_moving,
    control=_resting,
    judge=_judge_radius,
)

GROWTH_IS_A_GAUGE = Claim(
    id="sieber2024.gauge-growth",
    title="The growth of transition products is the same in every gauge (only in bounded ones)",
    statement=(
        r"$\tilde{\lambda}_T \cdots \tilde{\lambda}_1 = \lambda_T \cdots \lambda_1$ for every gauge $G$ "
        r"of a diagonal system"
    ),
    citation=f"Reach of gauges, {_SIEBER}; bounded ones: Lyapunov transformations",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rationals, a gauge that doubles with every step; the control returns to where it began",
    instance=_diagonal,
    witness=_growing,
    control=_returning,
    judge=_judge_growth,
)


def _mixed(task: Task) -> Evidence:
    """A system of integers, and a unimodular gauge, exactly invertible, at every cut."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    a = rng.integers(-2, 3, (length, _STATES, _STATES))
    b, c = (rng.integers(-3, 4, (length, _STATES)) for _ in range(2))
    shear = rng.integers(1, 4, (length + 1, 2))
    gauge = [np.array([[1, s], [0, 1]]) @ np.array([[1, 0], [t, 1]]) for s, t in shear]
    inverse = [np.array([[1, 0], [-t, 1]]) @ np.array([[1, -s], [0, 1]]) for s, t in shear]
    return {"a": a, "b": b, "c": c, "gauge": np.array(gauge), "inverse": np.array(inverse)}


def _moved(drawn: Evidence, forget: bool = False) -> Evidence:
    """Both systems; the control forgets the gauge before the step."""
    gauge, inverse = drawn["gauge"], drawn["inverse"]
    before = np.stack([np.eye(_STATES, dtype=int)] * len(gauge)) if forget else inverse
    return {
        **{name: drawn[name] for name in "abc"},
        "moved_a": gauge[1:] @ drawn["a"] @ before[:-1],
        "moved_b": (gauge[1:] @ drawn["b"][..., None])[..., 0],
        "moved_c": (drawn["c"][:, None] @ inverse[1:])[:, 0],
    }


def _judge_ranks(evidence: Evidence) -> Verdict:
    """Φ and the ranks of its blocks, exactly; the eigenvalues of the steps must differ somewhere."""
    own, moved = (
        _integer_map(*(np.asarray(evidence[p + n]) for n in "abc")) for p in ("", "moved_")
    )
    traces = [np.trace(np.asarray(evidence[n]), axis1=1, axis2=2) for n in ("a", "moved_a")]
    other = int((traces[0] != traces[1]).sum())

    def conclude() -> Verdict:
        wrong = sum(
            x != y for r, s in zip(own, moved, strict=True) for x, y in zip(r, s, strict=True)
        )
        ranks = [hankel_ranks(x) for x in (own, moved)]
        wrong += sum(x != y for x, y in zip(*ranks, strict=True))
        status = Status.VIOLATED if wrong else Status.HOLDS
        return Verdict(status, float(wrong), 0.0, 0.0, remark=f"ranks {ranks[0]}")

    return under([Hypothesis("steps with another trace", other, other > 0)], conclude)


def _integer_map(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Matrix:
    length = len(a)
    rows = [[Fraction(0)] * length for _ in range(length)]
    for j in range(length):
        state = [int(x) for x in b[j]]
        for i in range(j, length):
            if i > j:
                state = [sum(int(x) * y for x, y in zip(row, state, strict=True)) for row in a[i]]
            rows[i][j] = Fraction(sum(int(x) * y for x, y in zip(c[i], state, strict=True)))
    return rows


HANKEL_RANKS_ARE_NO_GAUGE = Claim(
    id="sieber2024.gauge-hankel-ranks",
    title="A gauge that changes the eigenvalues of steps changes neither the map nor its ranks",
    statement=r"$\mathrm{rank}\, \tilde{\Phi}_{[i:, :i]} = \mathrm{rank}\, \Phi_{[i:, :i]}, \; \tilde{\Phi} = \Phi$",
    citation=_SIEBER,
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact integers, unimodular gauges",
    instance=_mixed,
    witness=_moved,
    control=lambda drawn: _moved(drawn, forget=True),
    judge=_judge_ranks,
)

CLAIMS = (
    identity(
        "sieber2024.gauge-reaches-any-transition",
        "A gauge gives a scalar system any transitions that do not vanish",
        r"$G_i = \prod_{l \leq i} \mu_l / \lambda_l \; \Rightarrow \; \tilde{\lambda}_i = \mu_i, \; \tilde{y}_i = y_i$",
        _SIEBER,
        _any_transition,
        rule="exact algebra over free symbols, three steps",
    ),
    identity(
        "sieber2024.t8-normaliser-telescopes",
        "Transitions of a normaliser forget nothing between two times: their product knows its ends alone",
        r"$\prod_{l=j+1}^{i} \frac{\eta_{l-1}}{\eta_l} = \frac{\eta_j}{\eta_i}$",
        f"What is exact behind the paper's comparison of normalisers, whose effect it measures; {_SIEBER}",
        _telescopes,
        rule="exact algebra over free symbols, four steps",
    ),
    identity(
        "sieber2024.t6-qlstm-is-s6-with-own-gates",
        "qLSTM is S6 with one state whose input gate is not tied to its step",
        r"$\Delta_i = \mathrm{softplus}(-f_i), \; A = -1, \; b_i = \sigma(\imath_i) / \Delta_i, \; "
        r"c_i = \sigma(o_i) \; \Rightarrow \; y_i = \sigma(o_i) c_i^{\mathrm{qLSTM}}$",
        _SIEBER,
        _qlstm,
        rule="exact algebra over free gates, one channel and two steps",
    ),
    SPECTRAL_RADIUS_IS_A_GAUGE,
    GROWTH_IS_A_GAUGE,
    HANKEL_RANKS_ARE_NO_GAUGE,
)

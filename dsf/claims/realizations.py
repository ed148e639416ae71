r"""Realizations of causal maps: the least state, Hankel singular values, and what truncation costs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from .exact import Matrix, hankel_ranks, rationals
from .states import attention_matrix, matrix_of

_DEWILDE = "Dewilde and van der Veen 1998, Time-Varying Systems and Computations, own wording"
_SANDBERG = "Sandberg and Rantzer 2004, IEEE Trans. Automatic Control 49(2), own wording"
_ROUNDINGS = 2.0**-36  # of a Frobenius norm: sweeps over up to 2^8 steps, SVDs of up to 2^8 rows

# -- the least state ----------------------------------------------------------------------------------

_RANKS = {Budget.SMOKE: 8, Budget.DEFAULT: 14, Budget.FULL: 24}


def _draw_exact(task: Task) -> Evidence:
    """A sum of two gated outer products, switched on and off: ranks that change in time."""
    rng, length = task.rng(), _RANKS[task.budget]
    phi = np.zeros((length, length), dtype=np.int64)
    for _ in range(3):
        q, k = rng.integers(-3, 4, (2, length))
        on = np.sort(rng.integers(0, length, 2))
        k[: on[0]], q[on[1] + 1 :] = 0, 0
        phi += np.tril(np.outer(q, k))
    return {"phi": phi}


def _minimal(drawn: Evidence) -> Evidence:
    from dsf.analysis import exact_realization

    r = exact_realization(drawn["phi"].tolist())
    return {**drawn, "A": list(r.A), "B": list(r.B), "C": list(r.C), "D": list(r.D)}


def _one_state_less(drawn: Evidence) -> Evidence:
    """The last state of the fullest cut left out."""
    found = dict(_minimal(drawn))
    A, B, C = ([list(x) for x in found[name]] for name in "ABC")
    at = max(range(len(B)), key=lambda i: len(B[i]))
    A[at], B[at] = A[at][:-1], B[at][:-1]
    if at + 1 < len(A):
        A[at + 1], C[at + 1] = [row[:-1] for row in A[at + 1]], C[at + 1][:-1]
    return {**found, "A": A, "B": B, "C": C}


def _multiplied_out(evidence: Evidence) -> Matrix:
    columns: Matrix = []
    rows = []
    D = evidence["D"]
    for i, (a, b, c) in enumerate(zip(*(evidence[n] for n in "ABC"), strict=True)):
        row = [_dot(c, x) for x in columns]
        rows.append([*row, Fraction(D[i]), *[Fraction(0)] * (len(D) - i - 1)])
        columns = [[_dot(line, x) for line in a] for x in columns] + [[Fraction(x) for x in b]]
    return rows


def _dot(x: Any, y: Any) -> Fraction:
    return sum((Fraction(a) * b for a, b in zip(x, y, strict=True)), Fraction(0))


def _judge_minimal(evidence: Evidence) -> Verdict:
    """Multiplied out it is Φ, and its states at every cut are as many as the block has rank."""
    phi = rationals(np.asarray(evidence["phi"]).tolist())
    found = _multiplied_out(evidence)
    wrong = sum(x != y for r, s in zip(phi, found, strict=True) for x, y in zip(r, s, strict=True))
    orders, ranks = [len(b) for b in evidence["B"]][:-1], hankel_ranks(phi)
    excess = sum(abs(n - r) for n, r in zip(orders, ranks, strict=True))
    status = Status.VIOLATED if wrong or excess else Status.HOLDS
    remark = f"states {orders}; {wrong} entries of the map missed"
    return Verdict(status, float(wrong + excess), 0.0, 0.0, remark=remark)


MINIMAL_STATE = Claim(
    id="dewilde1998.minimal-state",
    title="A causal map has a recurrence with as many states at a cut as its Hankel block has rank",
    statement=(
        r"$\Phi_{ij} = C_i A_{i-1} \cdots A_{j+1} B_j$ for $j < i$ with "
        r"$n_i = \mathrm{rank}\, \Phi_{[i:, :i]}$ states at every cut $i$"
    ),
    citation=f"{_DEWILDE}, chapter 3",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact rationals: the recurrence multiplied out, and ranks by elimination",
    instance=_draw_exact,
    witness=_minimal,
    control=_one_state_less,
    judge=_judge_minimal,
)

# -- singular values from both sides -------------------------------------------------------------------

_LENGTHS = {Budget.SMOKE: 16, Budget.DEFAULT: 48, Budget.FULL: 128}
_STATES, _KEYS = 4, 4


def _draw_system(task: Task) -> Evidence:
    """Transitions 0.95 times rotations of four states, one token and one output per step."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    turn = np.linalg.qr(rng.standard_normal((length, _STATES, _STATES)))[0]
    b, c = rng.standard_normal((2, length, _STATES))
    return {"A": 0.95 * turn, "B": b, "C": c, "D": rng.standard_normal(length)}


def _values(drawn: Evidence, late: bool = False) -> Evidence:
    """Hankel singular values from square roots of the two Gramians; the control reads one step late."""
    import torch

    from dsf.analysis import hankel
    from dsf.coupling import OuterCoupling
    from dsf.structure import Dense
    from dsf.system import System

    a, b, c = (torch.from_numpy(np.array(drawn[n]))[None, :, None] for n in "ABC")
    timing = "after" if late else "before"
    system = System(Dense(a), OuterCoupling(b), OuterCoupling(c), timing=timing)
    return {**drawn, "values": hankel(system).values[0, 0]}


def _judge_values(evidence: Evidence) -> Verdict:
    """Against SVDs of the blocks of Φ; measured: the largest difference."""
    phi, values = matrix_of(evidence), np.asarray(evidence["values"], dtype=np.float64)
    length = len(phi)
    worst = 0.0
    for cut in range(1, length):
        sizes = np.linalg.svd(phi[cut:, :cut], compute_uv=False)[: values.shape[1]]
        full = np.pad(sizes, (0, values.shape[1] - len(sizes)))
        worst = max(worst, float(np.abs(full - values[cut]).max()))
    return within(worst, _ROUNDINGS * float(np.linalg.norm(phi)))


HANKEL_FROM_GRAMIANS = Claim(
    id="dewilde1998.hankel-values-from-gramians",
    title="Square roots of the two Gramians have the singular values of the map's Hankel blocks",
    statement=r"$\sigma_k(U_i L_i) = \sigma_k(\Phi_{[i:, :i]}), \quad L_i L_i^H = W_c(i), \; U_i^H U_i = W_o(i)$",
    citation=f"{_DEWILDE}, chapter 4",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="2^-36 of the Frobenius norm of the map, for the rounding of both sides",
    instance=_draw_system,
    witness=_values,
    control=lambda drawn: _values(drawn, late=True),
    judge=_judge_values,
)

# -- truncation ---------------------------------------------------------------------------------------


def _draw_attention(task: Task) -> Evidence:
    rng, length = task.rng(), _LENGTHS[task.budget]
    return {
        "q": rng.standard_normal((length, _KEYS)),
        "k": rng.standard_normal((length, _KEYS)),
        "order": int(rng.integers(2, 7)),
    }


def _truncated(method: str, spoil: float = 1.0) -> Callable[[Evidence], Evidence]:
    def truncate(drawn: Evidence) -> Evidence:
        from dsf.analysis import truncation
        from dsf.analysis.compression import compress

        r, _ = compress(attention_matrix(drawn, np.exp))
        kept = {"sequential": truncation.sequential, "balanced": truncation.balanced}[method](
            r, lambda _, sizes: min(drawn["order"], len(sizes))
        )
        small, width = kept.realization, drawn["order"]
        most = max(len(x) for x in kept.dropped)
        A = [np.pad(a, [(0, width - n) for n in a.shape]) for a in small.A]
        return {
            **drawn,
            "A": np.stack(A),
            "B": np.stack([np.pad(b[:, 0], (0, width - len(b))) for b in small.B]),
            "C": spoil * np.stack([np.pad(c[0], (0, width - c.shape[1])) for c in small.C]),
            "D": np.array([d[0, 0] for d in small.D]),
            "dropped": np.stack([np.pad(x, (0, most - len(x))) for x in kept.dropped]),
        }

    return truncate


def _judge_pythagoras(evidence: Evidence) -> Verdict:
    """| ‖Φ - Φ̂‖_F - (Σ of squares of what was dropped)^{1/2} |."""
    phi = attention_matrix(evidence, np.exp)
    error = float(np.linalg.norm(phi - matrix_of(evidence)))
    dropped = float(np.linalg.norm(np.asarray(evidence["dropped"])))
    verdict = within(abs(error - dropped), _ROUNDINGS * float(np.linalg.norm(phi)))
    return Verdict(verdict.status, error, dropped, dropped, remark=verdict.remark)


PYTHAGORAS = Claim(
    id="dewilde1998.sequential-truncation-is-orthogonal",
    title="What sequential truncation drops at different cuts adds up in squares, exactly",
    statement=r"$\|\Phi - \hat{\Phi}\|_F^2 = \sum_i \sum_{k > n_i} \sigma_k(M_i)^2$",
    citation="Derived in dsf.analysis.truncation; sequential SVDs of Hankel blocks as in "
    "Dewilde and van der Veen 1998",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="2^-36 of the Frobenius norm of the map; the control is balanced truncation",
    instance=_draw_attention,
    witness=_truncated("sequential"),
    control=_truncated("balanced"),
    judge=_judge_pythagoras,
)


def _blocks(phi: np.ndarray) -> list[np.ndarray]:
    """Singular values of the Hankel blocks of the inner cuts."""
    return [np.linalg.svd(phi[i:, :i], compute_uv=False) for i in range(1, len(phi))]


def _judge_by(bound_of: Callable[[list[np.ndarray], int], float]) -> Callable[[Evidence], Verdict]:
    """‖Φ - Φ̂‖₂ against a bound from the singular values of Φ's own blocks and the states kept."""

    def judge(evidence: Evidence) -> Verdict:
        phi, order = attention_matrix(evidence, np.exp), np.asarray(evidence["A"]).shape[1]
        slack = _ROUNDINGS * float(np.linalg.norm(phi))
        found = _blocks(phi)
        floor = max(float(x[order]) for x in found if len(x) > order)
        error = float(np.linalg.norm(phi - matrix_of(evidence), 2))
        states = Hypothesis("states", order, order == evidence["order"])
        return under(
            [states], lambda: within(error, bound_of(found, order), predicted=floor, error=slack)
        )

    return judge


def _root_of_squares(found: list[np.ndarray], order: int) -> float:
    return float(np.sqrt(sum(float(x[order]) ** 2 for x in found if len(x) > order)))


def _runs(found: list[np.ndarray], order: int) -> float:
    """The smaller of Σ_i σ_{n+1}(i) and twice the sum over states k > n and monotone runs of max σ_k."""
    most = max(map(len, found))
    values = np.stack([np.pad(x, (0, most - len(x))) for x in found])[:, order:]
    total = 0.0
    for line in values.T:
        turns = np.nonzero(np.diff(np.sign(np.diff(line))))[0] + 2
        total += sum(float(run.max()) for run in np.split(line, turns) if run.size)
    return min(2 * total, float(values[:, 0].sum()))


def _largest(found: list[np.ndarray], order: int) -> float:
    return (1 + 1e-6) * max(float(x[order]) for x in found if len(x) > order)


SEQUENTIAL_BOUND = Claim(
    id="dewilde1998.sequential-truncation-bound",
    title="Sequential truncation errs by at most the root of the squares of the first values dropped",
    statement=r"$\|\Phi - \hat{\Phi}\|_2 \leq (\sum_i \sigma_{n+1}(\Phi_{[i:, :i]})^2)^{1/2}$",
    citation="Derived in dsf.analysis.truncation; no hypothesis",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="singular values in float64 of the map's own blocks; predicted: the floor of Eckart and Young",
    instance=_draw_attention,
    witness=_truncated("sequential"),
    control=_truncated("sequential", spoil=-1e3),
    judge=_judge_by(_root_of_squares),
)

BALANCED_BOUND = Claim(
    id="sandberg2004.balanced-truncation-by-runs",
    title="Time-varying balanced truncation errs by at most twice the sum over dropped states and runs",
    statement=(
        r"$\|\Phi - \hat{\Phi}\|_2 \leq \min\{\sum_i \sigma_{n+1}(i), \; "
        r"2 \sum_{k > n} \sum_{\mathrm{runs}} \max_{i \in \mathrm{run}} \sigma_k(i)\}$, runs monotone in $i$"
    ),
    citation=f"{_SANDBERG}; derived in dsf.analysis.truncation",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="singular values in float64 of the map's own blocks",
    instance=_draw_attention,
    witness=_truncated("balanced"),
    control=_truncated("balanced", spoil=-1e3),
    judge=_judge_by(_runs),
)


def _two_tokens(drawn: Evidence) -> Evidence:
    """Two tokens have one inner cut, where the error is the value dropped."""
    short = {"q": drawn["q"][:2], "k": drawn["k"][:2], "order": 0}
    phi = attention_matrix(short, np.exp)
    empty = {"A": np.zeros((2, 0, 0)), "B": np.zeros((2, 0)), "C": np.zeros((2, 0))}
    return {**short, **empty, "D": np.diagonal(phi).copy()}


LARGEST_IS_NO_BOUND = Claim(
    id="sandberg2004.largest-value-dropped",
    title="Balanced truncation errs by no more than the largest Hankel singular value dropped (it errs by more)",
    statement=r"$\|\Phi - \hat{\Phi}\|_2 \leq (1 + 10^{-6}) \max_i \sigma_{n+1}(\Phi_{[i:, :i]})$",
    citation=f"Refutes the lower bound as an upper one; {_SANDBERG}",
    level=Level.CERTIFIED,
    expected=Status.VIOLATED,
    bound_rule="singular values in float64 of the map's own blocks; the control has a single cut",
    instance=_draw_attention,
    witness=_truncated("balanced"),
    control=_two_tokens,
    judge=_judge_by(_largest),
)

CLAIMS = (MINIMAL_STATE, HANKEL_FROM_GRAMIANS, PYTHAGORAS, SEQUENTIAL_BOUND)
SANDBERG2004 = (BALANCED_BOUND, LARGEST_IS_NO_BOUND)

r"""Where the delta rule contracts, exactly, and what an erase along another direction can do."""

from __future__ import annotations

from fractions import Fraction

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from .exact import Matrix, Vector, dot

_SIZES = {Budget.SMOKE: 3, Budget.DEFAULT: 5, Budget.FULL: 8}
_STEPS = 6
_CITATION = "Schlag et al., arXiv 2102.11174, section 4.2 (delta rule), own wording"


def _draw(task: Task) -> Evidence:
    """Keys of small integers, and strengths β with β ‖k‖² on a grid over [-1, 3]."""
    rng, size = task.rng(), _SIZES[task.budget]
    keys = rng.integers(-3, 4, (_STEPS, size))
    keys[:, 0] = rng.integers(1, 4, _STEPS)
    others = keys.copy()
    others[:, -1] += rng.integers(1, 3, _STEPS)
    grid = [Fraction(n, 4) for n in range(-4, 13)]
    inside = [Fraction(int(n), 8) for n in rng.integers(1, 17, _STEPS)]
    return {"keys": keys.tolist(), "others": others.tolist(), "grid": grid, "inside": inside}


def _fractions(rows: list[list[int]]) -> Matrix:
    return [[Fraction(int(x)) for x in row] for row in rows]


def _erase(strength: Fraction, key: Vector, along: Vector) -> Matrix:
    """I - β k pᵀ."""
    return [
        [Fraction(int(i == j)) - strength * a * b for j, b in enumerate(along)]
        for i, a in enumerate(key)
    ]


def contracts(matrix: Matrix) -> bool:
    """True where I - MᵀM is positive semidefinite: exact elimination with diagonal pivots."""
    size = len(matrix)
    columns = list(zip(*matrix, strict=True))
    rest = [
        [Fraction(int(i == j)) - dot(list(columns[i]), list(columns[j])) for j in range(size)]
        for i in range(size)
    ]
    while rest:
        if any(rest[i][i] < 0 for i in range(len(rest))):
            return False
        pivot = next((i for i in range(len(rest)) if rest[i][i] > 0), None)
        if pivot is None:  # a zero diagonal: semidefinite only where all is zero
            return not any(map(any, rest))
        row = rest[pivot]
        keep = [i for i in range(len(rest)) if i != pivot]
        rest = [[rest[i][j] - rest[i][pivot] * row[j] / row[pivot] for j in keep] for i in keep]
    return True


def _along_the_key(drawn: Evidence) -> Evidence:
    return {"keys": drawn["keys"], "along": drawn["keys"], "grid": drawn["grid"]}


def _along_another(drawn: Evidence) -> Evidence:
    return {"keys": drawn["keys"], "along": drawn["others"], "grid": drawn["grid"]}


def _judge_region(evidence: Evidence) -> Verdict:
    """‖I - β k pᵀ‖₂ <= 1 exactly where 0 <= β kᵀp <= 2; measured: the grid points that disagree."""
    wrong, seen = 0, 0
    pairs = zip(_fractions(evidence["keys"]), _fractions(evidence["along"]), strict=True)
    for key, along in pairs:
        product = dot(key, along)
        for level in evidence["grid"] if product else ():
            wrong += contracts(_erase(level / product, key, along)) != (0 <= level <= 2)
            seen += 1
    status = Status.VIOLATED if wrong else Status.HOLDS
    return Verdict(status, float(wrong), 0.0, 0.0, remark=f"{seen} transitions")


STABILITY_REGION = Claim(
    id="schlag2021.stability-region",
    title="The delta rule contracts exactly where its strength times the key's squared length is in [0, 2]",
    statement=r"$\|I - \beta k k^T\|_2 \leq 1 \; \Leftrightarrow \; 0 \leq \beta \|k\|^2 \leq 2$",
    citation=_CITATION,
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact elimination of I - ΛᵀΛ in rationals, on a grid over both edges",
    instance=_draw,
    witness=_along_the_key,
    control=_along_another,
    judge=_judge_region,
)


def _inside(drawn: Evidence) -> Evidence:
    return {"keys": drawn["keys"], "levels": drawn["inside"]}


def _outside(drawn: Evidence) -> Evidence:
    return {"keys": drawn["keys"], "levels": [*drawn["inside"][:-1], Fraction(400)]}


def _judge_product(evidence: Evidence) -> Verdict:
    """Λ_T … Λ_1 of the given β ‖k‖² contracts."""
    keys, levels = _fractions(evidence["keys"]), evidence["levels"]
    size = len(keys[0])
    product: Matrix = [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]
    for key, level in zip(keys, levels, strict=True):
        erase = _erase(level / dot(key, key), key, key)
        columns = [list(x) for x in zip(*product, strict=True)]
        product = [[dot(row, column) for column in columns] for row in erase]
    worst = max(max(levels) - 2, -min(levels), Fraction(0))
    status = Status.HOLDS if contracts(product) else Status.VIOLATED
    remark = f"{len(keys)} factors, at most {float(worst)} outside of the region"
    return Verdict(status, None, None, None, remark=remark)


PRODUCTS_CONTRACT = Claim(
    id="schlag2021.products-contract",
    title="Products of delta-rule transitions inside their region are no longer than 1",
    statement=r"$\|\Lambda_T \cdots \Lambda_1\|_2 \leq 1$ where $0 \leq \beta_i \|k_i\|^2 \leq 2$ for all $i$",
    citation=_CITATION,
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact elimination of I - ΨᵀΨ in rationals; the control has one strength far outside",
    instance=_draw,
    witness=_inside,
    control=_outside,
    judge=_judge_product,
)


def _two_erases(task: Task) -> Evidence:
    reach = 2 + task.seed % 7
    return {"reach": reach}


def _crossed(drawn: Evidence) -> Evidence:
    """Two erases with kᵀp = 1: idempotent each, growing together."""
    r = drawn["reach"]
    return {"keys": [[1, r], [1, 0]], "along": [[1, 0], [1, r]]}


def _parallel(drawn: Evidence) -> Evidence:
    return {"keys": [[1, 0], [0, 1]], "along": [[1, 0], [0, 1]]}


def _judge_pair(evidence: Evidence) -> Verdict:
    """ρ(Λ₂Λ₁) <= 1 for 2 × 2 factors, by |det| <= 1 and |trace| <= 1 + det (Schur and Cohn)."""
    keys, along = _fractions(evidence["keys"]), _fractions(evidence["along"])
    inside = all(0 <= dot(k, p) <= 2 for k, p in zip(keys, along, strict=True))

    def conclude() -> Verdict:
        (a, b), (c, d) = _erase(Fraction(1), keys[0], along[0])
        (e, f), (g, h) = _erase(Fraction(1), keys[1], along[1])
        trace = e * a + f * c + g * b + h * d
        det = (a * d - b * c) * (e * h - f * g)
        stable = abs(det) <= 1 and abs(trace) <= 1 + det
        status = Status.HOLDS if stable else Status.VIOLATED
        remark = f"trace {trace} and determinant {det} of the product of two steps"
        return Verdict(status, float(abs(trace)), None, float(1 + det), remark=remark)

    return under(
        [Hypothesis("each factor has spectral radius 1 or less", inside, inside)], conclude
    )


OTHER_ERASES_CAN_GROW = Claim(
    id="schlag2021.erasing-along-other-keys",
    title="Steps of spectral radius 1 that erase along any direction make bounded products (they need not)",
    statement=r"$\rho(\Lambda_2 \Lambda_1) \leq 1$ where $\Lambda_i = I - k_i p_i^T, \; 0 \leq p_i^T k_i \leq 2$",
    citation=f"Refutes an extension of the region of {_CITATION}",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact trace and determinant; the control erases along its keys",
    instance=_two_erases,
    witness=_crossed,
    control=_parallel,
    judge=_judge_pair,
)

CLAIMS = (STABILITY_REGION, PRODUCTS_CONTRACT, OTHER_ERASES_CAN_GROW)

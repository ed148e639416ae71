r"""The delta rule in chunks: a product of reflections as one triangular inverse, and how the inverse is formed.

With A = I + tril(diag(β) (K Kᵀ ∘ M), -1), W = A⁻¹ diag(β) (c ∘ K) and U = A⁻¹ diag(β) V,

    U' = U - W S,   Y = c ∘ (Q S) + (Q Kᵀ ∘ M) U',   S' = c_C S + Kᵀ (e ∘ U').
"""

from __future__ import annotations

from functools import cache
from typing import Any

from dsf.claims.rows import Identities, difference, identity

_DELTA = "Yang et al., arXiv 2406.06484 (WY form of the delta rule), own wording"
_GATED = "Yang, Kautz, Hatamizadeh, arXiv 2412.06464 (gated WY form), own wording"
_KDA = "Kimi team, arXiv 2510.26692 (decays per key in the WY form), own wording"


def _recurrence(x: Any, beta: Any) -> tuple[Any, Any]:
    """S_t = (I - β k kᵀ) diag(a) S_{t-1} + β k vᵀ, step by step: outputs and the last state."""
    import sympy

    from dsf.symbolic import Step, unroll

    steps, tokens = [], []
    for t in range(x.steps):
        key, decay = x.k.row(t).T, sympy.diag(*x.a.row(t))
        erase = (sympy.eye(key.rows) - beta[t] * key * key.T) * decay
        steps.append(Step(erase, beta[t] * key, x.q.row(t)))
        tokens.append(x.v.row(t))
    outputs, last = unroll(steps, tokens, x.state)
    return sympy.Matrix.vstack(*outputs), last


def _pairs(x: Any, left: Any, *, diagonal: bool) -> Any:
    """Σ_d left_id k_jd a_id … a_{j+1,d} for i > j, and for i = j where asked."""
    import sympy

    from .symbols import between, tabulated

    def entry(i: int, j: int) -> Any:
        if i < j or (i == j and not diagonal):
            return sympy.Integer(0)
        keys = range(x.k.cols)
        return sympy.Add(*(left[i, d] * x.k[j, d] * between(x.a, i, j, d) for d in keys))

    return tabulated(x.steps, x.steps, entry)


def _inverse(strict: Any) -> Any:
    """(I + N)⁻¹ by substitution, row by row: no sum over powers."""
    import sympy

    found = sympy.eye(strict.rows)
    for i in range(strict.rows):
        for j in range(i):
            found[i, j] = -sum(strict[i, k] * found[k, j] for k in range(j, i))
    return found


def _chunk(x: Any, beta: Any, *, decayed: bool, inverse: bool) -> tuple[Any, Any]:
    """The chunk in WY form; the controls leave the decays out of W, or the inverse out of both."""
    import sympy

    from .symbols import between, tabulated

    ones = tabulated(x.steps, x.k.cols, lambda t, d: between(x.a, t, -1, d))
    late = tabulated(x.steps, x.k.cols, lambda t, d: between(x.a, x.steps - 1, t, d))
    strength = sympy.diag(*beta)
    solve = _inverse(strength * _pairs(x, x.k, diagonal=False)) if inverse else sympy.eye(x.steps)
    seen = x.k.multiply_elementwise(ones) if decayed else x.k
    fresh = solve * strength * x.v - solve * strength * seen * x.state
    outputs = x.q.multiply_elementwise(ones) * x.state + _pairs(x, x.q, diagonal=True) * fresh
    whole = sympy.diag(*ones.row(x.steps - 1))
    return outputs, whole * x.state + x.k.multiply_elementwise(late).T * fresh


def _sides(per_key: bool, steps: int, *, decayed: bool = True, inverse: bool = True) -> Identities:
    from .symbols import Symbols, matrix

    x = Symbols.of(steps, 2, 1, per_key=per_key)
    beta = matrix("b", steps, 1)
    outputs, last = _chunk(x, beta, decayed=decayed, inverse=inverse)
    expected, state = _recurrence(x, beta)
    return {"outputs": (outputs, expected), "state": (last, state)}


@cache
def _scalar(true: bool) -> Identities:
    return _sides(False, 3, decayed=true)


@cache
def _per_key(true: bool) -> Identities:
    return _sides(True, 3, decayed=true)


@cache
def _without_inverse(true: bool) -> Identities:
    return _sides(False, 2, inverse=true)


def _strict(size: int) -> Any:
    """A free strictly lower matrix."""
    import sympy

    from .symbols import tabulated

    return tabulated(
        size, size, lambda i, j: sympy.Symbol(f"n{i}_{j}", real=True) if i > j else sympy.Integer(0)
    )


@cache
def _powers(true: bool) -> Identities:
    """(1 + x) (1 - x) (1 + x²) (1 + x⁴) … = 1 - x^C, and N^C = 0; the control has a factor less."""
    import sympy

    x = sympy.Symbol("x", real=True)
    found = {}
    for size in (2, 4, 8, 16, 32, 64):
        product, power = (1 + x) * (1 - x), 2
        while power < (size if true else size // 2):
            product, power = product * (1 + x**power), 2 * power
        found[f"powers, {size} steps"] = (product, 1 - x**size)
    strict, eye = _strict(4), sympy.eye(4)
    found["nilpotent"] = (strict**4, 0 * eye)
    found["4 steps"] = ((eye + strict) * (eye - strict) * (eye + strict**2), eye)
    return found


@cache
def _inverse_gradient(true: bool) -> Identities:
    """The gradient of ⟨G, (I + N)⁻¹⟩ in the free entries of N; the control does not transpose."""
    import sympy

    from .symbols import matrix, pairing

    strict, weights = _strict(3), matrix("g", 3, 3)
    inverse = _inverse(strict)
    loss = pairing(weights, inverse)
    side = inverse.T if true else inverse
    rule = -side * weights * side
    return {
        f"n{i}{j}": (sympy.diff(loss, strict[i, j]), rule[i, j]) for i in range(3) for j in range(i)
    }


CLAIMS = (
    identity(
        "yang2024.wy-with-decays",
        "The gated delta rule over a chunk is its WY form with one triangular inverse",
        r"$A = I + \mathrm{tril}(\mathrm{diag}(\beta) (K K^T \odot M), -1), \quad "
        r"U' = A^{-1} \mathrm{diag}(\beta) (V - c \odot (K S))$"
        "\n"
        r"$Y = c \odot (Q S) + (Q K^T \odot M) U', \quad S' = c_C S + K^T (e \odot U')$",
        _GATED,
        _scalar,
        rule="exact algebra over free symbols: three steps, two keys; the control's erased keys do not decay",
    ),
    identity(
        "yang2024.wy-with-decays-per-key",
        "The same with a decay per key, whose products stand inside the sums over keys",
        r"$A_{ij} = \beta_i \sum_d k_{id} k_{jd} \, a_{id} \cdots a_{j+1,d}$ for $i > j$, "
        r"$\; U' = A^{-1} \mathrm{diag}(\beta) (V - (c \odot K) S)$",
        _KDA,
        _per_key,
        rule="exact algebra over free symbols: three steps, two keys; the control's erased keys do not decay",
    ),
    difference(
        "yang2024.wy-without-the-inverse",
        "Without the inverse a chunk of the delta rule forgets what its own steps wrote",
        r"$U' = \mathrm{diag}(\beta) (V - c \odot (K S))$",
        f"{_DELTA}: what the triangular inverse is for",
        _without_inverse,
    ),
    identity(
        "yang2024.inverse-by-nilpotent-powers",
        "The triangular inverse is a product of log C factors, since its strict part is nilpotent",
        r"$(I + N)^{-1} = (I - N)(I + N^2)(I + N^4) \cdots (I + N^{C/2}), \quad N^C = 0$",
        f"{_DELTA}: the inverse without a loop over steps",
        _powers,
        rule="exact algebra: powers of x to 64 steps, a free strictly lower matrix of 4; the control has a factor less",
    ),
    identity(
        "yang2024.inverse-gradient",
        "The gradient of the triangular inverse is two products with it",
        r"$\frac{\partial}{\partial N} \langle G, A^{-1} \rangle = -A^{-T} G A^{-T}$ below the diagonal, $A = I + N$",
        f"{_DELTA}: backward of the WY form",
        _inverse_gradient,
        rule="exact algebra over a free strictly lower matrix of three steps; the control does not transpose",
    ),
)

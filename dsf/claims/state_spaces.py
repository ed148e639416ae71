"""Claims about discretised state spaces: S4, LRU, Mamba-3, and the buckets of log-linear attention."""

from __future__ import annotations

from typing import Any

from .rows import Identities, difference, identity

_T = 3


def _mamba3_parts(steps: int = _T) -> tuple[Any, ...]:
    from . import book

    return (
        book.vectors("q", steps),
        book.vectors("k", steps),
        book.scalars("d", steps),
        book.scalars("A", steps),
    )


def _euler(true: bool) -> Identities:
    """λ = 1 without rotation against SSD (one A); the control has λ = 0."""
    import sympy

    from . import book

    q, k, d, _ = _mamba3_parts()
    A = sympy.Symbol("A", real=True)
    share = [sympy.Integer(1 if true else 0)] * _T
    steps = book.mamba3(q, k, d, [A] * _T, share, [sympy.Integer(0)] * _T)
    return book.compare(book.outputs(steps), book.outputs(book.ssd(d, A, k, q)))


def _mask(true: bool) -> Identities:
    """Φ = (q kᵀ) ⊙ (L M): L 1-semiseparable in α, M of two bands, γ on the diagonal and β/α below it."""
    import sympy

    from . import book

    q, k, d, A = _mamba3_parts()
    share = book.scalars("l", _T)
    log_alpha = [x * y for x, y in zip(d, A, strict=True)]

    def semiseparable(i: int, j: int) -> Any:
        return sympy.exp(sympy.Add(*log_alpha[j + 1 : i + 1])) if j <= i else sympy.Integer(0)

    def band(i: int, j: int) -> Any:
        if i == j:
            return share[i] * d[i]
        below = (1 - share[i]) * d[i] * (sympy.exp(log_alpha[i]) if true else 1)
        return below if i == j + 1 else sympy.Integer(0)

    def weight(i: int, j: int) -> Any:
        mask = sympy.Add(*(semiseparable(i, m) * band(m, j) for m in range(_T)))
        return (q[i].T * k[j])[0] * mask

    steps = book.mamba3(q, k, d, A, share, [sympy.Integer(0)] * _T)
    return book.compare(book.outputs(steps), book.weighted(weight, _T))


def _rotation(true: bool) -> Identities:
    """Turning the state back at every step against turning q and k by the sum of the angles."""
    import sympy

    from . import book

    steps = 2
    q, k, d, A = _mamba3_parts(steps)
    share, angle = book.scalars("l", steps), book.scalars("t", steps)
    total = [sympy.Add(*angle[: i + 1]) if true else angle[i] for i in range(steps)]
    turned_q, turned_k = (
        [book.rotation(a) * x for a, x in zip(total, vs, strict=True)] for vs in (q, k)
    )
    still = [sympy.Integer(0)] * steps
    return book.compare(
        book.outputs(book.mamba3(q, k, d, A, share, angle)),
        book.outputs(book.mamba3(turned_q, turned_k, d, A, share, still)),
    )


def _trapezoids(true: bool) -> Identities:
    """No decay, λ = ½, q = k = e₁: the sum of trapezoids Δ_i (v_{i-1} + v_i)/2; the control has λ = 1."""
    import sympy

    from . import book

    one = [sympy.Matrix([1, 0])] * _T
    d, zero, v = book.scalars("d", _T), [sympy.Integer(0)] * _T, book.scalars("v", _T)
    share = [sympy.Rational(1, 2) if true else sympy.Integer(1)] * _T
    areas = [d[i] * (v[i] + (v[i - 1] if i else 0)) / 2 for i in range(_T)]
    sums = [sympy.Add(*areas[: i + 1]) for i in range(_T)]
    return book.compare(book.outputs(book.mamba3(one, one, d, zero, share, zero)), sums)


def _bilinear(true: bool) -> Identities:
    """(I - Δ/2 𝒜)⁻¹ (I + Δ/2 𝒜) of 𝒜 = diag(a) - p pᵀ, as diagonal plus rank one; real poles."""
    import sympy

    step, p = sympy.Symbol("d", positive=True), sympy.Matrix(sympy.symbols("p0:2", real=True))
    poles = sympy.symbols("a0:2", negative=True)
    half, eye = step / 2, sympy.eye(2)
    matrix = sympy.diag(*poles) - p * p.T
    resolvent = sympy.diag(*(1 / (1 - half * a) for a in poles))
    weight = half / (1 + half * (p.T * resolvent * p)[0])
    low_rank = (2 if true else 1) * weight * resolvent * p * p.T * resolvent
    left = (eye - half * matrix) * (2 * resolvent - eye - low_rank)
    return {"(I - Δ/2 𝒜) Ā": (left, eye + half * matrix)}


def _without_rank(true: bool) -> Identities:
    """p = 0: the bilinear rule on the diagonal."""
    import sympy

    step, a = sympy.Symbol("d", positive=True), sympy.Symbol("a", negative=True)
    half = step / 2 if true else step
    return {"pole": (2 / (1 - step * a / 2) - 1, (1 + half * a) / (1 - half * a))}


def _plane(true: bool) -> Identities:
    """A dense 2 x 2 recurrence of rotation and scale is one complex pole a + ib."""
    import sympy

    a, b = sympy.symbols("a b", real=True)
    u = sympy.symbols("u0:3", real=True)
    dense, h, found, expected = sympy.Matrix([[a, -b], [b, a]]), sympy.zeros(2, 1), [], []
    real, imaginary = sympy.Integer(0), sympy.Integer(0)
    for x in u:
        h = dense * h + sympy.Matrix([x, 0])
        sign = -1 if true else 1
        real, imaginary = a * real + sign * b * imaginary + x, b * real + a * imaginary
        found += list(h)
        expected += [real, imaginary]
    return {f"h{i}": pair for i, pair in enumerate(zip(found, expected, strict=True))}


def _variance(true: bool) -> Identities:
    """γ² Σ_{j<T} |λ|^{2j} = 1 - |λ|^{2T} for γ² = 1 - |λ|²: unit variance in the limit."""
    import sympy

    size = sympy.Symbol("r", positive=True)
    gain = 1 - size ** (2 if true else 1)
    total = sympy.Add(*(gain * size ** (2 * j) for j in range(4)))
    return {"variance": (total, 1 - size**8)}


def _levels(scaled: bool) -> Any:
    """Log-linear attention over four tokens by its bucket recurrence, one key, unit or free scales."""
    import sympy

    from . import book

    steps, levels = 4, 3
    q, k, g, v = (book.scalars(name, steps) for name in "qkgv")
    scales = [
        [
            sympy.Symbol(f"l{i}_{level}", real=True) if scaled else sympy.Integer(1)
            for level in range(levels)
        ]
        for i in range(steps)
    ]
    buckets, found = [sympy.Integer(0)] * levels, []
    for t in range(steps):
        last = (t & -t).bit_length() - 1 if t else 0
        moved = list(buckets)
        if t:
            moved[last + 1] = sympy.Add(*buckets[: last + 2])
            moved[: last + 1] = [sympy.Integer(0)] * (last + 1)
        buckets = [sympy.exp(g[t]) * b for b in moved]
        buckets[0] += k[t] * v[t]
        found.append(q[t] * sympy.Add(*(s * b for s, b in zip(scales[t], buckets, strict=True))))

    def base(i: int, j: int) -> Any:
        return q[i] * k[j] * sympy.exp(sympy.Add(*g[j + 1 : i + 1]))

    return found, scales, base


def _unit_scales(true: bool) -> Identities:
    from . import book

    found, _, base = _levels(not true)
    return book.compare(found, book.weighted(base, 4))


def _fenwick(true: bool) -> Identities:
    """The level of a token j < i, from the binary digits of i: tokens 0 … 3 by hand."""
    from . import book

    found, scales, base = _levels(True)
    level = {(1, 0): 1, (2, 0): 2, (2, 1): 2, (3, 0): 2, (3, 1): 2, (3, 2): 1 if true else 2}

    def weight(i: int, j: int) -> Any:
        return scales[i][0 if i == j else level[i, j]] * base(i, j)

    return book.compare(found, book.weighted(weight, 4))


_MAMBA3 = "Lahoti et al., arXiv 2603.15569, own wording"
_S4 = "Gu, Goel, Ré, arXiv 2111.00396, appendix C.3, own wording"
_LRU = "Orvieto et al., arXiv 2303.06349, own wording"
_GUO = "Guo et al., arXiv 2506.04761, own wording"

LAHOTI2026 = (
    identity(
        "lahoti2026.euler-is-mamba2",
        "Mamba-3 with Euler's rule and no rotation is Mamba-2",
        r"$\lambda_i = 1, \; \theta_i = 0: \quad h_i = e^{\Delta_i A} h_{i-1} + \Delta_i k_i v_i^T$",
        _MAMBA3,
        _euler,
    ),
    difference(
        "lahoti2026.other-shares-are-mamba2",
        "Mamba-3 that weighs the last write alone is not Mamba-2",
        r"$\lambda_i = 0, \; \theta_i = 0: \quad h_i = e^{\Delta_i A} h_{i-1} + \Delta_i k_i v_i^T$",
        _MAMBA3,
        _euler,
    ),
    identity(
        "lahoti2026.mask-factors",
        "The mask of Mamba-3 is 1-semiseparable times a matrix of two bands",
        r"$y_i = \sum_{j} (q_i^T k_j) [L M]_{ij} v_j, \quad L_{ij} = \prod_{j < l \leq i} \alpha_l, \; "
        r"M_{ii} = \gamma_i, \; M_{i,i-1} = \beta_i$",
        _MAMBA3,
        _mask,
    ),
    identity(
        "lahoti2026.rotating-state-is-rotating-keys",
        "A rotating state is a state at rest under rotated queries and keys",
        r"$q_i^T h_i = (R(\Theta_i) q_i)^T S_i, \quad S_i = \alpha_i S_{i-1} + \ldots R(\Theta_i) k_i v_i^T, "
        r"\quad \Theta_i = \sum_{j \leq i} \theta_j$",
        _MAMBA3,
        _rotation,
    ),
    identity(
        "lahoti2026.half-is-the-trapezoid",
        "Without decay, a share of one half is the trapezoidal rule",
        r"$\lambda_i = \frac{1}{2}, \; A = 0: \quad y_i = \sum_{j \leq i} \Delta_j \frac{v_{j-1} + v_j}{2}$",
        _MAMBA3,
        _trapezoids,
    ),
)

GU2021 = (
    identity(
        "gu2021.bilinear-keeps-dplr",
        "The bilinear rule keeps a transition diagonal plus low rank",
        r"$(I - \frac{\Delta}{2} \mathcal{A})(2E - I - 2 w E p p^T E) = I + \frac{\Delta}{2} \mathcal{A}, \quad "
        r"E = (I - \frac{\Delta}{2} \mathrm{diag}(a))^{-1}, \; w = \frac{\Delta / 2}{1 + \frac{\Delta}{2} p^T E p}$",
        _S4,
        _bilinear,
        rule="exact algebra, two real poles",
    ),
    identity(
        "gu2021.without-low-rank",
        "S4 without its low rank is S4D",
        r"$p = 0: \quad \frac{2}{1 - \Delta a / 2} - 1 = \frac{1 + \Delta a / 2}{1 - \Delta a / 2}$",
        _S4,
        _without_rank,
        rule="exact algebra, one pole",
    ),
)

ORVIETO2023 = (
    identity(
        "orvieto2023.dense-plane-is-a-pole",
        "A dense recurrence of rotation and scale is one complex pole",
        r"$[[a, -b], [b, a]] h = (a + ib)(h_1 + i h_2)$",
        _LRU,
        _plane,
        rule="exact algebra, three steps in a plane",
    ),
    identity(
        "orvieto2023.input-normalisation",
        "The LRU's input factor keeps the variance below one",
        r"$\gamma^2 \sum_{j < T} |\lambda|^{2j} = 1 - |\lambda|^{2T}, \quad \gamma^2 = 1 - |\lambda|^2$",
        _LRU,
        _variance,
        rule="exact algebra, four steps",
    ),
)

GUO2025 = (
    identity(
        "guo2025.unit-scales",
        "Log-linear attention with unit scales is its base model",
        r"$\lambda_i^{(l)} = 1: \quad \sum_l (h_i^{(l)})^T q_i = h_i^T q_i$",
        _GUO,
        _unit_scales,
        rule="exact algebra, four tokens of one key",
    ),
    identity(
        "guo2025.buckets",
        "The bucket recurrence weighs every token by its Fenwick level",
        r"$y_i = \sum_{j \leq i} \lambda_i^{(l(i,j))} q_i k_j e^{\sum_{j < m \leq i} g_m} v_j$",
        _GUO,
        _fenwick,
        rule="exact algebra, four tokens of one key",
    ),
)

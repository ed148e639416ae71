"""Claims about decays shared by keys: linear attention, RetNet, SSD, S6, GLA and what is written as them."""

from __future__ import annotations

from typing import Any

from .rows import Identities, difference, identity

_T = 3


def _retnet_without_decay(true: bool) -> Identities:
    from . import book

    q, k = book.vectors("q", _T), book.vectors("k", _T)
    return book.compare(
        book.outputs(book.linear(q, k)), book.outputs(book.retnet(q, k, 1 if true else 2))
    )


def _retnet_is_ssd(true: bool) -> Identities:
    import sympy

    from . import book

    q, k = book.vectors("q", _T), book.vectors("k", _T)
    decay = sympy.Symbol("gamma", positive=True)
    rate = sympy.log(decay) * (1 if true else 2)
    steps = book.ssd([sympy.Integer(1)] * _T, rate, k, q)
    return book.compare(book.outputs(book.retnet(q, k, decay)), book.outputs(steps))


def _ssd_is_gla(true: bool) -> Identities:
    import sympy

    from . import book

    b, c, delta = book.vectors("b", _T), book.vectors("c", _T), book.scalars("d", _T)
    A = sympy.Symbol("A", real=True)
    keys = [d * x for d, x in zip(delta, b, strict=True)] if true else b
    logs = [sympy.ones(book.KEYS, 1) * d * A for d in delta]
    return book.compare(
        book.outputs(book.ssd(delta, A, b, c)), book.outputs(book.gla(c, keys, logs))
    )


def _ssd_is_masked_attention(true: bool) -> Identities:
    import sympy

    from . import book

    b, c, delta = book.vectors("b", _T), book.vectors("c", _T), book.scalars("d", _T)
    A = sympy.Symbol("A", real=True)

    def weight(i: int, j: int) -> Any:
        mask = sympy.exp(A * sympy.Add(*delta[j + 1 if true else j : i + 1]))
        return mask * (c[i].T * b[j])[0] * delta[j]

    return book.compare(book.outputs(book.ssd(delta, A, b, c)), book.weighted(weight, _T))


def _s6_two_channels(shared: bool) -> Identities:
    """The second channel of S6, whose own step is `shared` with the first or not, as SSD of the first."""
    import sympy

    from . import book

    b, c, delta = book.vectors("b", 2), book.vectors("c", 2), book.scalars("d", 2)
    own, x = (delta if shared else book.scalars("e", 2)), book.scalars("v", 2)
    rates = [sympy.Symbol("A", real=True)] * book.KEYS
    h, found = [sympy.Integer(0)] * book.KEYS, []
    for i in range(2):
        h = [sympy.exp(own[i] * A) * h[n] + own[i] * b[i][n] * x[i] for n, A in enumerate(rates)]
        found.append(sympy.Add(*(c[i][n] * h[n] for n in range(book.KEYS))))
    return book.compare(found, book.outputs(book.ssd(delta, rates[0], b, c)))


def _s6_constant(true: bool) -> Identities:
    """Constant Δ, b and c: Φ depends on i - j alone."""
    import sympy

    from dsf.symbolic import mixing_matrix

    from . import book

    delta = book.scalars("d", 1) * _T
    b, c = book.vectors("b", 1) * _T, book.vectors("c", 1) * _T
    if not true:
        delta = book.scalars("d", _T)
    phi = mixing_matrix(book.ssd(delta, sympy.Symbol("A", real=True), b, c))
    return {f"lag {i}": (phi[i, 0], phi[i + 1, 1]) for i in range(_T - 1)}


def _zero_order_hold(true: bool) -> Identities:
    """(e^{ΔA} - 1)/A and Δ e^{…} in their first two orders: Euler's rule is the first of them."""
    import sympy

    A, d = sympy.symbols("A d", positive=True)
    exact = (sympy.exp(d * A) - 1) / A
    return {"write": (exact, (sympy.exp(d * A) - 1) * d / (d * A) if true else d)}


def _hgrn2_is_gla(true: bool) -> Identities:
    import sympy

    from dsf.symbolic import Step

    from . import book

    q, raw, low = book.vectors("q", _T), book.vectors("f", _T), sympy.Symbol("l", positive=True)
    forget = [x.applyfunc(lambda z: low + (1 - low) * book.sigmoid(z)) for x in raw]
    ones = sympy.ones(book.KEYS, 1)
    own = [Step(sympy.diag(*f), ones - f, a.T) for f, a in zip(forget, q, strict=True)]
    keys = [ones - f if true else f for f in forget]
    logs = [f.applyfunc(sympy.log) for f in forget]
    return book.compare(book.outputs(own), book.outputs(book.gla(q, keys, logs)))


def _rwkv6_is_gla(true: bool) -> Identities:
    """Read before the update with a bonus; the control reads after it."""
    import sympy

    from . import book

    r, k, g = (book.vectors(name, _T) for name in "rkg")
    u, v = sympy.Matrix(book.scalars("u", book.KEYS)), book.scalars("v", _T)
    h, found = sympy.zeros(book.KEYS, 1), []
    for i in range(_T):
        new = k[i] * v[i]
        found.append((r[i].T * (h + sympy.diag(*u) * new))[0])
        h = sympy.diag(*g[i].applyfunc(sympy.exp)) * h + new
    steps, state, expected = book.gla(r, k, g), sympy.zeros(book.KEYS, 1), []
    for i, step in enumerate(steps):
        after = step.transition * state + step.write * v[i]
        direct = (r[i].T * sympy.diag(*u) * k[i])[0] * v[i]
        expected.append((step.read * (state if true else after))[0] + direct)
        state = after
    return book.compare(found, expected)


def _gla_as_attention(true: bool) -> Identities:
    """Cumulative decays b_i: weights (q_i ⊙ b_i)ᵀ (k_j / b_j)."""
    import sympy

    from . import book

    q, k, g = (book.vectors(name, _T) for name in "qkg")
    total = [sum(g[: i + 1], sympy.zeros(book.KEYS, 1)) for i in range(_T)]

    def weight(i: int, j: int) -> Any:
        gap = total[i] - (total[j] if true else g[j])
        faded = k[j].multiply_elementwise(gap.applyfunc(sympy.exp))
        return (q[i].T * faded)[0]

    return book.compare(book.outputs(book.gla(q, k, g)), book.weighted(weight, _T))


DAO2024 = (
    identity(
        "dao2024.retnet-is-ssd",
        "RetNet is SSD with steps of one and A = log γ",
        r"$\gamma h_{i-1} + k_i v_i^T = e^{\Delta A} h_{i-1} + \Delta k_i v_i^T, \quad \Delta = 1, \; A = \log \gamma$",
        "Dao and Gu, arXiv 2405.21060, own wording",
        _retnet_is_ssd,
    ),
    identity(
        "dao2024.ssd-is-gla",
        "SSD is gated linear attention with one gate for all key channels",
        r"$e^{\Delta_i A} h_{i-1} + \Delta_i b_i x_i^T = \mathrm{diag}(e^{g_i}) h_{i-1} + k_i x_i^T, "
        r"\quad g_i = \Delta_i A, \; k_i = \Delta_i b_i$",
        "Dao and Gu, arXiv 2405.21060, own wording",
        _ssd_is_gla,
    ),
    identity(
        "dao2024.ssd-is-masked-attention",
        "SSD is attention under a 1-semiseparable mask",
        r"$y_i = \sum_{j \leq i} e^{A \sum_{j < l \leq i} \Delta_l} (c_i^T b_j) \Delta_j x_j$",
        "Dao and Gu, arXiv 2405.21060 (structured state space duality), own wording",
        _ssd_is_masked_attention,
    ),
    identity(
        "dao2024.s6-with-shared-steps-is-ssd",
        "S6 whose channels share one step size and one A is SSD",
        r"$\Delta^c_i = \Delta_i, \; A^{c,n} = A \; \Rightarrow \; "
        r"h^c_i = e^{\Delta_i A} h^c_{i-1} + \Delta_i b_i x^c_i$",
        "Dao and Gu, arXiv 2405.21060, own wording",
        _s6_two_channels,
    ),
    difference(
        "dao2024.s6-with-own-steps-is-ssd",
        "S6 whose channels have steps of their own is not one scalar decay",
        r"$e^{\Delta^1_i A} = e^{\Delta^2_i A}$ for all $\Delta^1, \Delta^2$",
        "Dao and Gu, arXiv 2405.21060, own wording",
        _s6_two_channels,
    ),
)

GU2023 = (
    identity(
        "gu2023.constant-s6-is-a-convolution",
        "S6 with constant step, b and c mixes tokens by their distance alone",
        r"$\Phi_{i+1,j+1} = \Phi_{i,j}$ where $\Delta_i, b_i, c_i$ do not depend on $i$",
        "Gu and Dao, arXiv 2312.00752, section 3.1 (time-invariant models), own wording",
        _s6_constant,
    ),
    difference(
        "gu2023.euler-is-zero-order-hold",
        "Euler's rule for B is not the zero-order hold",
        r"$\frac{e^{\Delta A} - 1}{A} = \Delta$",
        "Gu and Dao, arXiv 2312.00752, equation 4 against the code's rule, own wording",
        _zero_order_hold,
    ),
)

YANG2023 = (
    identity(
        "yang2023.hgrn2-is-gla",
        "HGRN2 is gated linear attention with keys 1 - f",
        r"$\mathrm{diag}(f_i) h_{i-1} + (1 - f_i) v_i^T = \mathrm{diag}(e^{g_i}) h_{i-1} + k_i v_i^T, "
        r"\quad g = \log f, \; k = 1 - f$",
        "Yang et al., arXiv 2312.06635; HGRN2: arXiv 2404.07904, own wording",
        _hgrn2_is_gla,
    ),
    identity(
        "yang2023.rwkv6-is-gla-read-early",
        "RWKV-6 is gated linear attention read before its update, plus a feedthrough",
        r"$r_i^T (h_{i-1} + \mathrm{diag}(u) k_i v_i^T) = r_i^T h_{i-1} + (r_i^T \mathrm{diag}(u) k_i) v_i^T$",
        "Yang et al., arXiv 2312.06635; RWKV-6: arXiv 2404.05892, own wording",
        _rwkv6_is_gla,
    ),
    identity(
        "yang2023.gla-is-attention-with-cumulative-decays",
        "Gated linear attention has a parallel form with cumulative decays",
        r"$y_i = \sum_{j \leq i} \sum_c q_{ic} k_{jc} e^{G_{ic} - G_{jc}} v_j, \quad G_i = \sum_{l \leq i} g_l$",
        "Yang et al., arXiv 2312.06635 (parallel form), own wording",
        _gla_as_attention,
    ),
)

KATHAROPOULOS2020 = (
    identity(
        "katharopoulos2020.retnet-without-decay",
        "RetNet with decay one is linear attention without a normaliser",
        r"$\gamma = 1: \quad \gamma h_{i-1} + k_i v_i^T = h_{i-1} + k_i v_i^T$",
        "Katharopoulos et al., arXiv 2006.16236; RetNet: arXiv 2307.08621, own wording",
        _retnet_without_decay,
    ),
)

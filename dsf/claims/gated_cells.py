"""Claims about cells with one state per channel, fixed queries, and the LSTM that they come from."""

from __future__ import annotations

from typing import Any

from .rows import Identities, identity

_T = 3


def _weights_of_mingru(true: bool) -> Identities:
    """The weights of a minGRU's candidates add up to 1 - Π (1 - z_i)."""
    import sympy

    from dsf.symbolic import unroll

    from . import book

    z = [book.sigmoid(x) for x in book.scalars("z", _T)]
    steps = book.gates([1 - x for x in z], z)
    found = [y[0] for y in unroll(steps, [sympy.eye(1)] * _T)[0]]
    left_out = 0 if true else 1
    expected = [1 - sympy.Mul(*(1 - x for x in z[left_out : i + 1])) for i in range(_T)]
    return book.compare(found, expected)


def _minlstm(true: bool) -> Identities:
    """f/(f + i) with f = σ(f̃), i = σ(ĩ) as one sigmoid of log i - log f."""
    import sympy

    from . import book

    f, i = (book.sigmoid(sympy.Symbol(name, real=True)) for name in "fi")
    gate = book.sigmoid(sympy.log(i) - (sympy.log(f) if true else 0))
    return {"input": (i / (f + i), gate), "forget": (f / (f + i), 1 - gate)}


def _lstm(true: bool) -> Identities:
    """LSTM steps on scalars with gates of the input alone and without tanh; the control keeps the tanh."""
    import sympy

    from . import book

    forget, enter, out = (book.scalars(name, 2) for name in "fio")
    x, hidden = book.scalars("v", 2), sympy.Symbol("w", real=True)
    weight = sympy.Integer(0)  # of the hidden state in every gate
    cell, y, found = sympy.Integer(0), sympy.Integer(0), []
    squash = (lambda z: z) if true else sympy.tanh
    for t in range(2):
        gates = (book.sigmoid(g[t] + weight * hidden * y) for g in (forget, enter, out))
        f, i, o = gates
        cell = f * cell + i * squash(x[t])
        y = o * cell
        found.append(y)
    steps = book.gates(*([book.sigmoid(z) for z in g] for g in (forget, enter, out)))
    return book.compare(found, book.outputs(steps))


def _softmax_row(true: bool) -> Identities:
    """The running sums of e^{s_j} v_j and e^{s_j} against the last row of softmax(q kᵀ/√2)."""
    import sympy

    from . import book

    k, (q,) = book.vectors("k", _T), book.vectors("q", 1)
    v = book.scalars("v", _T)
    scores = [(q.T * x)[0] / sympy.sqrt(book.KEYS) for x in k]
    total = weight = sympy.Integer(0)
    for s, value in zip(scores, v, strict=True):
        total, weight = total + sympy.exp(s) * value, weight + sympy.exp(s)
    rest = [sympy.exp(s - scores[-1]) for s in scores]
    if not true:
        rest[0] = sympy.Integer(1)
    row = sympy.Add(*(w * x for w, x in zip(rest, v, strict=True))) / sympy.Add(*rest)
    return {"last row": (total / weight, row)}


def _merge(true: bool) -> Identities:
    """(m, u, w) ⊕ (m', u', w') rescaled to any common M: the quotient is that of the whole."""
    import sympy

    s, v = ([sympy.Symbol(f"{n}{i}", real=True) for i in range(4)] for n in "sv")
    m, n, top = sympy.symbols("m n M", real=True)

    def piece(at: slice, reference: Any) -> tuple[Any, Any]:
        gains = [sympy.exp(x - reference) for x in s[at]]
        return (
            sympy.Add(*gains),
            sympy.Add(*(g * x for g, x in zip(gains, v[at], strict=True))),
        )

    (u1, w1), (u2, w2) = piece(slice(0, 2), m), piece(slice(2, 4), n)
    a, b = sympy.exp(m - top), sympy.exp((n if true else m) - top)
    whole, weighted = piece(slice(0, 4), sympy.Integer(0))
    return {"quotient": ((a * w1 + b * w2) / (a * u1 + b * u2), weighted / whole)}


def _gauge(true: bool) -> Identities:
    """(G_i Λ_i G_{i-1}⁻¹, G_i B_i, C_i G_i⁻¹) has the outputs of (Λ_i, B_i, C_i)."""
    import sympy

    from dsf.symbolic import Step

    from . import book

    q, k, a = (book.vectors(name, 2) for name in "qka")
    scale = [sympy.diag(*sympy.symbols(f"s{i}_0:{book.KEYS}", positive=True)) for i in range(3)]
    own = [Step(sympy.diag(*x), b, c.T) for x, b, c in zip(a, k, q, strict=True)]
    moved = [
        Step(
            scale[i + 1] * s.transition * scale[i if true else i + 1].inv(),
            scale[i + 1] * s.write,
            s.read * scale[i + 1].inv(),
        )
        for i, s in enumerate(own)
    ]
    return book.compare(book.outputs(own), book.outputs(moved))


def _normalised(true: bool) -> Identities:
    """Normalised attention with η in the read-out, and in the state as η_{i-1}/η_i."""
    import sympy

    from dsf.symbolic import Step, scalar

    from . import book

    q, k, n = book.vectors("q", _T), book.vectors("k", _T), book.scalars("n", _T)
    eta = [sympy.exp(x) for x in n]
    at_read = [Step(sympy.eye(book.KEYS), b, a.T / e) for a, b, e in zip(q, k, eta, strict=True)]
    ratios = [eta[i - 1] / eta[i] if true else eta[i] / eta[i - 1] for i in range(1, _T)]
    in_state = [
        Step(scalar(r, book.KEYS), b / e, a.T)
        for r, a, b, e in zip([sympy.Integer(1), *ratios], q, k, eta, strict=True)
    ]
    return book.compare(book.outputs(at_read), book.outputs(in_state))


def _taylor_features(true: bool) -> Identities:
    """The monomials of degree <= 2 in two keys, weighted by 1/√(a!), against 1 + s + s²/2."""
    import sympy

    from . import book

    (q,), (k,) = book.vectors("q", 1), book.vectors("k", 1)
    half = sympy.sqrt(2) if true else sympy.Integer(1)

    def features(x: Any) -> list[Any]:
        return [sympy.Integer(1), *x, x[0] ** 2 / half, x[0] * x[1], x[1] ** 2 / half]

    s = (q.T * k)[0]
    found = sympy.Add(*(a * b for a, b in zip(features(q), features(k), strict=True)))
    return {"kernel": (found, 1 + s + s**2 / 2)}


def _even_taylor(true: bool) -> Identities:
    """Degrees 2 and 4 as sums of squares with a positive rest: weights never vanish."""
    import sympy

    s = sympy.Symbol("s", real=True)

    def taylor(degree: int) -> Any:
        return sympy.Add(*(s**p / sympy.factorial(p) for p in range(degree + 1)))

    last = 4 if true else 3
    return {
        "degree 2": (taylor(2), ((s + 1) ** 2 + 1) / 2),
        "degree 4": (taylor(last), ((s**2 + 2 * s + 2) ** 2 + 4 * (s + 2) ** 2 + 4) / 24),
    }


_SIEBER = "Sieber et al., arXiv 2405.15731v3, own wording"
_FENG = "Feng et al., arXiv 2410.01201, own wording"

FENG2024 = (
    identity(
        "feng2024.mingru-averages",
        "A minGRU averages its candidates, but for what it remembers of its start",
        r"$\sum_{j \leq i} z_j \prod_{j < l \leq i} (1 - z_l) = 1 - \prod_{j \leq i} (1 - z_j)$",
        _FENG,
        _weights_of_mingru,
        rule="exact algebra over free gates, three steps",
    ),
    identity(
        "feng2024.minlstm-is-mingru",
        "minLSTM is minGRU with the gate log i - log f",
        r"$\frac{i}{f + i} = \sigma(\log i - \log f), \quad \frac{f}{f + i} = 1 - \sigma(\log i - \log f)$",
        _FENG,
        _minlstm,
        rule="exact algebra over free gates",
    ),
)

VASWANI2017 = (
    identity(
        "vaswani2017.aaren-is-a-row-of-softmax",
        "Attention with a fixed query is a running sum",
        r"$\frac{\sum_{j \leq i} e^{s_j} v_j}{\sum_{j \leq i} e^{s_j}} = \mathrm{softmax}(s_1, \ldots, s_i) v, "
        r"\quad s_j = q^T k_j / \sqrt{K}$",
        "Vaswani et al., arXiv 1706.03762, equation 1; Aaren: arXiv 2405.13956, own wording",
        _softmax_row,
        rule="exact algebra over free symbols, three tokens of two keys",
    ),
    identity(
        "vaswani2017.softmax-rows-merge",
        "Pieces of a softmax row merge under any common reference",
        r"$(m, u, w) \oplus (m', u', w') = (M, e^{m - M} u + e^{m' - M} u', e^{m - M} w + e^{m' - M} w')$",
        "Aaren, arXiv 2405.13956 (parallel scan of attention), own wording",
        _merge,
        rule="exact algebra over free scores, two pieces of two tokens",
    ),
)

SIEBER2024 = (
    identity(
        "sieber2024.t6-lstm-without-recurrent-gates",
        "An LSTM whose gates see the input alone, without tanh, is qLSTM",
        r"$c_i = \sigma(f_i) c_{i-1} + \sigma(\imath_i) x_i, \quad y_i = \sigma(o_i) c_i$",
        _SIEBER,
        _lstm,
        rule="exact algebra over free gates, one channel and two steps",
    ),
    identity(
        "sieber2024.gauge-keeps-outputs",
        "A change of gauge keeps the outputs",
        r"$\tilde{\Lambda}_i = G_i \Lambda_i G_{i-1}^{-1}, \; \tilde{B}_i = G_i B_i, \; \tilde{C}_i = C_i G_i^{-1} "
        r"\; \Rightarrow \; \tilde{y}_i = y_i$",
        _SIEBER,
        _gauge,
    ),
    identity(
        "sieber2024.normalised-attention-gauge",
        "Normalised attention has its normaliser at the read-out or in the state",
        r"$\tilde{\Lambda}_i = \frac{\eta_{i-1}}{\eta_i} I, \; \tilde{B}_i = \frac{k_i}{\eta_i}, \; "
        r"\tilde{C}_i = q_i^T \; \Rightarrow \; \tilde{y}_i = \frac{1}{\eta_i} \sum_{j \leq i} q_i^T k_j v_j$",
        _SIEBER,
        _normalised,
    ),
    identity(
        "sieber2024.t3-symmetric-features",
        "Weighted monomials are features of the truncated exponential",
        r"$\phi(q)^T \phi(k) = \sum_{p \leq 2} \frac{(q^T k)^p}{p!}, \quad \phi_a(x) = x^a / \sqrt{a!}$",
        _SIEBER,
        _taylor_features,
        rule="exact algebra over free symbols, two keys",
    ),
    identity(
        "sieber2024.t3-even-truncations-are-positive",
        "Truncations of the exponential of degree 2 and 4 are positive",
        r"$1 + s + \frac{s^2}{2} = \frac{(s+1)^2 + 1}{2}, \quad "
        r"\sum_{p \leq 4} \frac{s^p}{p!} = \frac{(s^2 + 2s + 2)^2 + 4 (s + 2)^2 + 4}{24}$",
        _SIEBER,
        _even_taylor,
        rule="exact algebra, s real",
    ),
)

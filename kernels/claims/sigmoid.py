r"""Sigmoid attention: a sum over keys without statistics of a row.

y = Σ_j σ(s_j + b) v_j. Weights do not know of each other, so blocks of keys add up, and the derivative of a weight
is its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from dsf.claims.rows import Identities, difference, identity

from .online_softmax import real

_PAPER = "Ramapuram et al., arXiv 2409.04431v2"
_SECTION3 = f"{_PAPER}, section 3 (regularity), own wording"
_SECTION4 = f"{_PAPER}, section 4 (FlashSigmoid), own wording"
_BIAS = f"{_PAPER} (bias b = -log n), own wording"
_CODE = f"{_PAPER}; apple/ml-sigmoid-attention, flash_sigmoid/README.md, own wording"
_KEYS = 4


def _scores(count: int = _KEYS) -> tuple[list[Any], list[Any], Any]:
    import sympy

    return real("s", count), real("v", count), sympy.Symbol("b", real=True)


def _attention(scores: list[Any], values: list[Any], bias: Any) -> Any:
    import sympy

    from dsf.claims.book import sigmoid

    return sympy.Add(*(sigmoid(s + bias) * v for s, v in zip(scores, values, strict=True)))


@cache
def _tiling(true: bool) -> Identities:
    """Blocks of keys in turn, for every split; the control rescales as softmax would."""
    import sympy

    from .symbols import compositions, named_split, pieces

    scores, values, bias = _scores()
    m = [sympy.Integer(0)] * _KEYS if true else real("m", _KEYS)
    found = {}
    for lengths in compositions(_KEYS):
        total, last = sympy.Integer(0), m[0]
        for block, rows in enumerate(pieces(lengths)):
            fade = sympy.exp(last - m[block])
            total = fade * total + _attention(scores[rows], values[rows], bias)
            last = m[block]
        found[named_split(lengths)] = (total, _attention(scores, values, bias))
    return found


@cache
def _backward(true: bool) -> Identities:
    """dS = P ∘ (1 - P) ∘ dP against the derivative; the control subtracts ⟨dY, Y⟩ as softmax does."""
    import sympy

    from dsf.claims.book import sigmoid

    scores, _, bias = _scores(3)
    value, up = [real(f"v{c}_", 3) for c in range(2)], real("y", 2)
    loss = sympy.Add(
        *(d * _attention(scores, channel, bias) for d, channel in zip(up, value, strict=True))
    )
    found = {}
    for j, s in enumerate(scores):
        weight = sigmoid(s + bias)
        of_weight = sympy.Add(*(d * channel[j] for d, channel in zip(up, value, strict=True)))
        rule = weight * ((1 - weight) * of_weight if true else of_weight - loss)
        found[f"dS{j + 1}"] = (sympy.diff(loss, s), rule)
    found["db"] = (sympy.diff(loss, bias), sympy.Add(*(sympy.diff(loss, s) for s in scores)))
    return found


@cache
def _tanh(true: bool) -> Identities:
    import sympy

    from dsf.claims.book import sigmoid

    x = sympy.Symbol("x", real=True)
    form = (1 + sympy.tanh(x / 2 if true else x)) / 2
    slope = (1 - sympy.tanh(x / 2) ** 2) / 4
    return {"value": (form, sigmoid(x)), "slope": (slope, sigmoid(x) * (1 - sigmoid(x)))}


@cache
def _masks(true: bool) -> Identities:
    """Keys that are kept (w = 1) or masked (w = 0): the weight times w, against the score times w."""
    import sympy

    from dsf.claims.book import sigmoid

    scores, values, bias = _scores(3)
    found = {}
    for kept in range(4):
        keep = [int(j < kept) for j in range(3)]
        expected = _attention(scores[:kept], values[:kept], bias)
        terms = [
            w * sigmoid(s + bias) * v if true else sigmoid(w * s + bias) * v
            for w, s, v in zip(keep, scores, values, strict=True)
        ]
        found[f"{kept} of 3 keys"] = (sympy.Add(*terms), expected)
    return found


@cache
def _masked_weight(true: bool) -> Identities:
    """T keys of score 0 under b = -log T weigh T / (T + 1) together; under softmax's sum they would weigh 1."""
    import sympy

    from dsf.claims.book import sigmoid

    count = sympy.Symbol("T", positive=True)
    one = sigmoid(-sympy.log(count))
    return {
        "one key": (one, 1 / (1 + count) if true else 1 / count),
        "all keys": (count * one, 1 - 1 / (1 + count) if true else sympy.Integer(1)),
    }


@cache
def _row_sums(true: bool) -> Identities:
    """T σ(s - log T) = e^s - e^{2s} / (T + e^s): of order one for any T; the control leaves the bias out."""
    import sympy

    from dsf.claims.book import sigmoid

    count, s = sympy.Symbol("T", positive=True), sympy.Symbol("s", real=True)
    bias = -sympy.log(count) if true else 0
    weight = count * sigmoid(s + bias)
    return {"T weights": (weight, sympy.exp(s) - sympy.exp(2 * s) / (count + sympy.exp(s)))}


@cache
def _quarter(true: bool) -> Identities:
    """1/4 - σ (1 - σ) is a square, so slopes lie in [0, 1/4]; the control's constant is 1/2."""
    import sympy

    from dsf.claims.book import sigmoid

    x = sympy.Symbol("x", real=True)
    weight = sigmoid(x)
    bound = sympy.Rational(1, 4) if true else sympy.Rational(1, 2)
    return {"gap": (bound - weight * (1 - weight), (weight - sympy.Rational(1, 2)) ** 2)}


@cache
def _half(true: bool) -> Identities:
    """Softmax's Jacobian diag(p) - p pᵀ of two keys has eigenvalues 0 and 2 p (1 - p): 1/2 at p = 1/2.

    1/2 - 2 p (1 - p) = 2 (p - 1/2)². The control claims sigmoid's quarter.
    """
    import sympy

    p, x = sympy.symbols("p x", real=True)
    row = sympy.Matrix([p, 1 - p])
    jacobian = sympy.diag(*row) - row * row.T
    bound = sympy.Rational(1, 2) if true else sympy.Rational(1, 4)
    return {
        "eigenvalues": ((x * sympy.eye(2) - jacobian).det(), x * (x - 2 * p * (1 - p))),
        "gap": (bound - 2 * p * (1 - p), 2 * (p - sympy.Rational(1, 2)) ** 2),
    }


RAMAPURAM2024 = (
    identity(
        "ramapuram2024.tiling",
        "Blocks of keys add up without rescaling, for every split",
        r"$\sum_j \sigma(s_j + b) v_j = \sum_{\mathrm{blocks}} \sum_{j \in \mathrm{block}} \sigma(s_j + b) v_j$",
        _SECTION4,
        _tiling,
        rule="exact algebra over free scores, values and bias: every split of four keys; the control rescales",
    ),
    identity(
        "ramapuram2024.backward",
        "The gradient of a score needs its own weight alone, and that of the bias is their sum",
        r"$dS = P \odot (1 - P) \odot dP, \quad db = \sum_j dS_j, \quad dP = dY V^T$",
        _SECTION4,
        _backward,
        rule="exact algebra over free symbols: three keys, two value channels; the control subtracts softmax's product",
    ),
    identity(
        "ramapuram2024.tanh-form",
        "The sigmoid is one hyperbolic tangent, and so is its slope",
        r"$\sigma(x) = \frac{1}{2} (1 + \tanh \frac{x}{2}), \quad "
        r"\sigma (1 - \sigma) = \frac{1}{4} (1 - \tanh^2 \frac{x}{2})$",
        _CODE,
        _tanh,
        rule="exact algebra, x real; the control forgets the half inside",
    ),
    difference(
        "ramapuram2024.masking-scores-masks-keys",
        "A score set to zero does not mask its key: the weight σ(b) stays (mask the weight)",
        r"$\sum_j \sigma(w_j s_j + b) v_j = \sum_{j : w_j = 1} \sigma(s_j + b) v_j$ for $w_j \in \{0, 1\}$",
        f"{_SECTION4}; own: keys beyond a sequence are read as zeros, so their scores are zero",
        _masks,
        rule="exact algebra, and an enclosure of the difference at a rational point; the control masks weights",
    ),
    identity(
        "ramapuram2024.masked-scores-weigh",
        "T keys of score zero weigh T / (T + 1) together under b = -log T: almost a whole row of softmax",
        r"$\sigma(-\log T) = \frac{1}{T + 1}, \quad T \sigma(-\log T) = 1 - \frac{1}{T + 1}$",
        _BIAS,
        _masked_weight,
        rule="exact algebra, T positive; the control has weights of 1 / T",
    ),
    identity(
        "ramapuram2024.row-sums-of-order-one",
        "With b = -log T a row sums to the mean of e^s, up to the mean of e^{2s} over T",
        r"$T \sigma(s - \log T) = e^s - \frac{e^{2s}}{T + e^s}$",
        _BIAS,
        _row_sums,
        rule="exact algebra, s real and T positive, key by key; the control has no bias",
    ),
    identity(
        "ramapuram2024.slope-at-most-a-quarter",
        "A weight changes by at most a quarter of its score's change",
        r"$\frac{1}{4} - \sigma (1 - \sigma) = (\sigma - \frac{1}{2})^2 \geq 0$",
        f"{_SECTION3}: the part about weights as functions of scores",
        _quarter,
        rule="exact algebra: the gap is a square, and 0 at x = 0; the control's gap is not",
    ),
    identity(
        "ramapuram2024.softmax-slope-reaches-a-half",
        "Softmax's weights can change by half of their scores' change: two keys of equal score",
        r"$\det(x I - \mathrm{diag}(p) + p p^T) = x (x - 2 p_1 p_2), \quad "
        r"\frac{1}{2} - 2 p_1 p_2 = 2 (p_1 - \frac{1}{2})^2$",
        f"{_SECTION3}: the comparison with softmax, for two keys",
        _half,
        rule="exact algebra, p real; the control claims a quarter",
    ),
)

r"""Softmax in pieces: running sums under any reference, and their merge as a monoid.

A piece of a row is (m, u, w) = (reference, Σ e^{s - m}, Σ e^{s - m} v). References here are free symbols, so an
identity holds for the running maximum as for any other number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import Any

from dsf.claims.rows import Identities, difference, identity

_DAO = "Dao et al., arXiv 2205.14135 (FlashAttention), own wording"
_MILAKOV = "Milakov and Gimelshein, arXiv 1805.02867 (online normaliser); " + _DAO
_FLASH2 = "Dao, arXiv 2307.08691 (FlashAttention-2), own wording"
_AAREN = "Feng et al., arXiv 2405.13956, section 3 (prefix scan of attention), own wording"
_KEYS = 4

Piece = tuple[Any, Any, Any]


def real(name: str, count: int) -> list[Any]:
    import sympy

    return [sympy.Symbol(f"{name}{i}", real=True) for i in range(count)]


def piece(scores: Sequence[Any], values: Sequence[Any], reference: Any) -> Piece:
    import sympy

    gains = [sympy.exp(s - reference) for s in scores]
    weighted = [g * v for g, v in zip(gains, values, strict=True)]
    return reference, sympy.Add(*gains), sympy.Add(*weighted)


def merged(x: Piece, y: Piece, reference: Any) -> Piece:
    """x ⊕ y under a common reference."""
    import sympy

    left, right = sympy.exp(x[0] - reference), sympy.exp(y[0] - reference)
    return reference, left * x[1] + right * y[1], left * x[2] + right * y[2]


def softmax(scores: Sequence[Any], values: Sequence[Any]) -> Any:
    import sympy

    _, total, weighted = piece(scores, values, sympy.Integer(0))
    return weighted / total


@cache
def _tiling(true: bool) -> Identities:
    """Key blocks in turn, for every split of four keys; the control rescales the sum but not the output."""
    import sympy

    from .symbols import compositions, named_split, pieces

    scores, values, references = real("s", _KEYS), real("v", _KEYS), real("m", _KEYS)
    found = {}
    for lengths in compositions(_KEYS):
        m, total, weighted = references[0], sympy.Integer(0), sympy.Integer(0)
        for block, rows in enumerate(pieces(lengths)):
            new = references[block]
            fade = sympy.exp(m - new)
            _, u, w = piece(scores[rows], values[rows], new)
            total, weighted, m = fade * total + u, (fade if true else 1) * weighted + w, new
        found[named_split(lengths)] = (weighted / total, softmax(scores, values))
    return found


@cache
def _log_sum_exp(true: bool) -> Identities:
    """What the forward pass keeps of a row is m + log u, whatever m; the control keeps log u."""
    import sympy

    scores, m = real("s", 3), sympy.Symbol("m", real=True)
    _, total, _ = piece(scores, scores, m)
    kept = (m if true else 0) + sympy.log(total)
    found = {"log-sum-exp": (kept, sympy.log(sympy.Add(*map(sympy.exp, scores))))}
    weights = [sympy.exp(s - kept) for s in scores]
    found["weights add up to one"] = (sympy.Add(*weights), sympy.Integer(1))
    return found


@cache
def _merge_of_outputs(true: bool) -> Identities:
    """Two pieces' outputs weighted by e^L; the control averages them."""
    import sympy

    scores, values = real("s", _KEYS), real("v", _KEYS)
    halves = (slice(0, 2), slice(2, 4))
    outputs = [softmax(scores[rows], values[rows]) for rows in halves]
    logs = [sympy.log(sympy.Add(*map(sympy.exp, scores[rows]))) for rows in halves]
    weights = [sympy.exp(x) for x in logs] if true else [sympy.Integer(1)] * 2
    mixed = sympy.Add(*(w * y for w, y in zip(weights, outputs, strict=True)))
    return {"output": (mixed / sympy.Add(*weights), softmax(scores, values))}


@cache
def _backward(true: bool) -> Identities:
    """dS = P ∘ (dP - ⟨dY, Y⟩) against the derivative of the row; the control leaves the second term out."""
    import sympy

    scores, value = real("s", 3), [real(f"v{c}_", 3) for c in range(2)]
    up = real("y", 2)
    outputs = [softmax(scores, channel) for channel in value]
    loss = sympy.Add(*(d * y for d, y in zip(up, outputs, strict=True)))
    total = sympy.Add(*map(sympy.exp, scores))
    found = {}
    for j, s in enumerate(scores):
        of_weight = sympy.Add(*(d * channel[j] for d, channel in zip(up, value, strict=True)))
        rule = sympy.exp(s) / total * (of_weight - (loss if true else 0))
        found[f"dS{j + 1}"] = (sympy.diff(loss, s), rule)
    return found


def _ordered(order: Sequence[int], true: bool) -> tuple[Piece, Piece]:
    """(x ⊕ y) ⊕ z and x ⊕ (y ⊕ z) where the references rank as `order`; ⊕ takes the larger one."""
    import sympy

    m, u, w = real("m", 3), [sympy.Symbol(f"u{i}", positive=True) for i in range(3)], real("w", 3)
    x, y, z = zip(m, u, w, strict=True)

    def combine(left: Piece, right: Piece) -> Piece:
        ahead = order[m.index(left[0])] > order[m.index(right[0])]
        found = merged(left, right, left[0] if ahead else right[0])
        # The control fades the piece that came first alone, as if references only grew.
        fade = sympy.exp(left[0] - found[0])
        return found if true else (found[0], fade * left[1] + right[1], fade * left[2] + right[2])

    first = combine(combine(x, y), z)
    return first, combine(x, combine(y, z))


@cache
def _associative(true: bool) -> Identities:
    """All six orders of three references; the control rescales the first piece alone."""
    found = {}
    for order in permutations(range(3)):
        left, right = _ordered(order, true)
        for name, a, b in zip("muw", left, right, strict=True):
            found[f"{name}, order {''.join(map(str, order))}"] = (a, b)
    return found


@cache
def _neutral(true: bool) -> Identities:
    """(n, 0, 0) with n ≤ m changes nothing from either side; the control is (n, 1, 0)."""
    import sympy

    m, n, w = sympy.symbols("m n w", real=True)
    u = sympy.Symbol("u", positive=True)
    own, none = (m, u, w), (n, sympy.Integer(0 if true else 1), sympy.Integer(0))
    found = {}
    for side, result in (("left", merged(none, own, m)), ("right", merged(own, none, m))):
        for name, a, b in zip("muw", result, own, strict=True):
            found[f"{name}, {side}"] = (a, b)
    return found


_RULE = "exact algebra over free scores, values and references: {}"

DAO2022 = (
    identity(
        "dao2022.tiling",
        "Attention over blocks of keys with rescaled sums is softmax, for every split and any references",
        r"$u \leftarrow e^{m - m'} u + \sum_j e^{s_j - m'}, \; w \leftarrow e^{m - m'} w + \sum_j e^{s_j - m'} v_j: "
        r"\quad w / u = \mathrm{softmax}(s) v$",
        _MILAKOV,
        _tiling,
        rule=_RULE.format("every split of four keys; the control does not rescale the output"),
    ),
    identity(
        "dao2022.log-sum-exp",
        "One number a row is kept for the backward pass, and it does not depend on the reference",
        r"$m + \log \sum_j e^{s_j - m} = \log \sum_j e^{s_j}, \quad \sum_j e^{s_j - L} = 1$",
        _FLASH2,
        _log_sum_exp,
        rule=_RULE.format("three keys; the control keeps no reference"),
    ),
    identity(
        "dao2022.outputs-merge",
        "Outputs of two sets of keys merge by their log-sum-exps",
        r"$y = \frac{e^{L_1} y_1 + e^{L_2} y_2}{e^{L_1} + e^{L_2}}, \quad L_i = \log \sum_{j \in i} e^{s_j}$",
        f"{_DAO}: keys split between programs or machines",
        _merge_of_outputs,
        rule=_RULE.format("two sets of two keys; the control averages"),
    ),
    difference(
        "dao2022.outputs-average",
        "The mean of the outputs of two sets of keys is not attention over both",
        r"$y = \frac{1}{2} (y_1 + y_2)$",
        f"{_DAO}: why a row's statistics travel with its output",
        _merge_of_outputs,
    ),
    identity(
        "dao2022.backward",
        "The gradient of a row's scores needs the weights and one product of the output with its gradient",
        r"$dS = P \odot (dP - \langle dY, Y \rangle), \quad dP = dY V^T$",
        _DAO,
        _backward,
        rule=_RULE.format("three keys, two value channels; the control leaves out the product"),
    ),
)

MONOID = (
    identity(
        "feng2024-attention.merge-is-associative",
        "Merging pieces of a softmax row is associative, with the maximum as reference",
        r"$(x \oplus y) \oplus z = x \oplus (y \oplus z), \quad (m, u, w) \oplus (m', u', w') = "
        r"(M, e^{m - M} u + e^{m' - M} u', e^{m - M} w + e^{m' - M} w'), \; M = \max(m, m')$",
        _AAREN,
        _associative,
        rule="exact algebra in each of the six orders of three references; the control rescales the first piece alone",
    ),
    identity(
        "feng2024-attention.merge-has-an-identity",
        "An empty piece changes nothing: (n, 0, 0) with n no larger, so with n without bound below",
        r"$(m, u, w) \oplus (n, 0, 0) = (n, 0, 0) \oplus (m, u, w) = (m, u, w)$ for $n \leq m$",
        _AAREN,
        _neutral,
        rule="exact algebra over free m, u, w and n, M = m; the control has a weight of one",
    ),
)

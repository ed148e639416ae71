r"""The chunk form of a decaying state: attention within a chunk, the state between chunks.

With M_ij = a_i … a_{j+1} in a chunk, c_i = a_i … a_1 and e_i = a_C … a_{i+1}, S the state before it:

    Y = (Q Kᵀ ∘ M) V + c ∘ (Q S),   S' = c_C S + Kᵀ (e ∘ V).

The first product is taken from the left and the second from the right. Claims here are identities over free
symbols, for every way to split a short sequence into chunks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from dsf.claims.rows import Identities, difference, identity

_QIN = "Qin et al., arXiv 2401.04658 (intra-block and inter-block terms), own wording"
_RULE = "exact algebra over free symbols: every split of three steps, two keys"


def _decays(x: Any) -> tuple[Any, Any, Any]:
    """M (C, C) with zeros above the diagonal, c (C,) and e (C,), as matrices; one decay for all keys."""
    import sympy

    from .symbols import between, tabulated

    steps = range(x.steps)
    inside = tabulated(
        x.steps, x.steps, lambda i, j: between(x.a, i, j) if i >= j else sympy.Integer(0)
    )
    early = sympy.diag(*(between(x.a, i, -1) for i in steps))
    late = sympy.diag(*(between(x.a, x.steps - 1, i) for i in steps))
    return inside, early, late


def _chunk(x: Any, true: bool) -> tuple[Any, Any]:
    """Outputs and the state after one chunk; the control decays writes from the chunk's start."""
    from .symbols import hadamard

    inside, early, late = _decays(x)
    outputs = hadamard(x.q * x.k.T, inside) * x.v + early * x.q * x.state
    whole = early[x.steps - 1, x.steps - 1]
    return outputs, whole * x.state + x.k.T * (late if true else early) * x.v


def _constant(x: Any) -> Any:
    """The same sequence with one decay for all steps, Lightning attention's."""
    import sympy

    return replace(x, a=sympy.Symbol("lambda", positive=True) * sympy.ones(*x.a.shape))


def _splits(x: Any, true: bool) -> Identities:
    import sympy

    from .symbols import compositions, named_split, pieces

    expected, last = x.run()
    found = {}
    for lengths in compositions(x.steps):
        state, outputs = x.state, []
        for rows in pieces(lengths):
            part, state = _chunk(x.piece(rows, state), true)
            outputs.append(part)
        name = named_split(lengths)
        found[f"{name}: outputs"] = (sympy.Matrix.vstack(*outputs), expected)
        found[f"{name}: state"] = (state, last)
    return found


@cache
def _forward(true: bool) -> Identities:
    from .symbols import Symbols

    return _splits(_constant(Symbols.of(3, 2, 1)), true)


@cache
def _forward_of_gates(true: bool) -> Identities:
    from .symbols import Symbols

    return _splits(Symbols.of(3, 2, 1), true)


@cache
def _right_product_alone(true: bool) -> Identities:
    """Q (KᵀV) within a chunk, without the causal mask, against the recurrence; with chunks of one it holds."""
    from .symbols import Symbols, pieces

    x = _constant(Symbols.of(2, 2, 1))
    expected, _ = x.run()
    state, outputs = x.state, []
    for rows in pieces((1, 1) if true else (2,)):
        part = x.piece(rows, state)
        _, early, _ = _decays(part)
        _, after = _chunk(part, True)
        outputs += list(early * part.q * state + part.q * (after - early[-1, -1] * state))
        state = after
    return {f"y{i + 1}": (y, expected[i]) for i, y in enumerate(outputs)}


def _loss(x: Any) -> tuple[Any, Any, Any]:
    """⟨dY, Y⟩ + ⟨dS, S_T⟩ with free dY and dS: its gradient is any gradient."""
    from .symbols import matrix, pairing

    outputs, last = x.run()
    up, end = matrix("y", *outputs.shape), matrix("z", *last.shape)
    return pairing(up, outputs) + pairing(end, last), up, end


@cache
def _backward(true: bool) -> Identities:
    """Gradients of the recurrence, differentiated, against two walks over the chunks."""
    import sympy

    from .symbols import Symbols, compositions, gradient, hadamard, named_split, pieces

    x = Symbols.of(3, 2, 1)
    loss, up, end = _loss(x)
    expected = [gradient(loss, of) for of in (x.q, x.k, x.v, x.state)]
    found = {}
    for lengths in compositions(x.steps):
        states = [x.state]
        for rows in pieces(lengths):
            states.append(_chunk(x.piece(rows, states[-1]), True)[1])
        after, dq, dk, dv = end, [], [], []
        for rows, state in reversed(list(zip(pieces(lengths), states, strict=False))):
            part, do = x.piece(rows, state), up[rows, :]
            inside, early, late = _decays(part)
            pairs = hadamard(do * part.v.T, inside)
            dq.insert(0, pairs * part.k + early * do * state.T)
            dk.insert(0, pairs.T * part.q + (late if true else early) * part.v * after.T)
            reads = hadamard(part.q * part.k.T, inside)
            dv.insert(0, reads.T * do + late * part.k * after)
            after = early[-1, -1] * after + part.q.T * early * do
        walks = [*(sympy.Matrix.vstack(*part) for part in (dq, dk, dv)), after]
        for name, left, right in zip(("dq", "dk", "dv", "dS0"), walks, expected, strict=True):
            found[f"{named_split(lengths)}: {name}"] = (left, right)
    return found


LIGHTNING2 = (
    identity(
        "qin2024-lightning2.tiling",
        "Left product within a block and right product between blocks are the recurrence, for every split",
        r"$Y = (Q K^T \odot M) V + \Lambda Q S, \quad S' = \lambda^B S + (\lambda^B \Lambda^{-1} K)^T V, \quad "
        r"M_{ij} = \lambda^{i-j}, \; \Lambda = \mathrm{diag}(\lambda, \ldots, \lambda^B)$",
        _QIN,
        _forward,
        rule=_RULE,
    ),
    difference(
        "qin2024-lightning2.right-product-alone",
        "The right product alone is not causal within a block (only blocks of one step allow it)",
        r"$\lambda^i q_i^T S + q_i^T \sum_{j \leq B} \lambda^{B-j} k_j v_j^T = y_i$ for $i = 1, \ldots, B$",
        f"{_QIN}: why the block is computed by the left product",
        _right_product_alone,
        rule="exact algebra, and an enclosure of the difference at a rational point; the control has blocks of one",
    ),
    identity(
        "qin2024-lightning2.tiling-with-gates",
        "The same with a decay that depends on the step, as the kernel computes it",
        r"$Y = (Q K^T \odot M) V + c \odot (Q S), \quad S' = c_C S + K^T (e \odot V), \quad "
        r"M_{ij} = a_i \cdots a_{j+1}, \; c_i = a_i \cdots a_1, \; e_i = a_C \cdots a_{i+1}$",
        f"{_QIN}; decays by step: Yang et al., arXiv 2312.06635, chunk-wise form",
        _forward_of_gates,
        rule=_RULE,
    ),
    identity(
        "qin2024-lightning2.backward-tiling",
        "Gradients by two walks over blocks are those of the recurrence, for every split",
        r"$dQ = (dY V^T \odot M) K + c \odot (dY S^T), \quad dK = (dY V^T \odot M)^T Q + e \odot (V\, dS'^T)$"
        "\n"
        r"$dV = (Q K^T \odot M)^T dY + e \odot (K\, dS'), \quad dS = c_C\, dS' + Q^T (c \odot dY)$",
        _QIN,
        _backward,
        rule=_RULE + "; the loss is linear in outputs and last state with free weights",
    ),
)

"""The nuclear-norm program: interior points over a working set of rows, then a point of the rank that they show."""

from __future__ import annotations

import numpy as np

from . import interior
from .fixed_rank import polished, singular_spaces
from .instance import Array
from .interior import Rows, Stalled, State
from .program import Program

GAP = 1e-8  # the relative gap asked of the iteration; a hundredth of the aim, and the finish gains more
_LIMIT = 80
_ALL = 250  # rows up to which every row is in the working set
_NEAR = 0.1  # rows whose margin is this close to their bound join the working set
_FAR = 0.2  # rows beyond this may leave it


def solve(program: Program, W: Array, dual: Array) -> tuple[Array, Array]:
    """W (p, r) of low rank and y (M + E,) near the optimum, from a feasible W and multipliers λ ≥ 0."""
    if program.count <= _ALL:
        return solve_alike([program], [W], [dual])[0]
    equal = program.independent
    margins = program.apply(W)[: program.count]
    inside = np.flatnonzero(margins < 1.02 * program.sides[: program.count])
    rows = _rows([program], inside, [equal])
    state = interior.start(rows, W[None], _first(dual[inside], equal)[None])
    for _ in range(_LIMIT):
        inside, rows, state = _exchange(program, inside, equal, rows, state)
        if _done(rows, state)[0]:
            break
        try:
            state = interior.step(rows, state)
        except Stalled:
            break
    return _points(program, inside, equal, state, 0)


def alike(program: Program) -> tuple[int, ...] | None:
    """Programs with the same answer can be solved together; None where a program is too large for that."""
    if program.count > _ALL:
        return None
    return (*program.shape, program.count, len(program.independent))


def solve_alike(
    programs: list[Program], starts: list[Array], duals: list[Array]
) -> list[tuple[Array, Array]]:
    """`solve` of small programs of one shape at once, with all rows in the working set."""
    every, equals = np.arange(programs[0].count), [x.independent for x in programs]
    rows = _rows(programs, every, equals)
    first = np.stack([_first(y, e) for y, e in zip(duals, equals, strict=True)])
    state = interior.start(rows, np.stack(starts), first)
    found: list[tuple[Array, Array] | None] = [None] * len(programs)
    active = np.arange(len(programs))
    for count in range(_LIMIT + 1):
        done = _done(rows, state) | (count == _LIMIT)
        for place in np.flatnonzero(done).tolist():
            i = active[place]
            found[i] = _points(programs[i], every, equals[i], state, place)
        if done.all():
            break
        if done.any():
            active, state, rows = active[~done], state.only(~done), rows.only(~done)
        try:
            state = interior.step(rows, state)
        except Stalled:
            for place, i in enumerate(
                active.tolist()
            ):  # one of them has come to its end: each alone
                found[i] = _alone(programs[i], every, equals[i], rows, state, place)
            break
    return [x for x in found if x is not None]


def _alone(
    program: Program, every: Array, equal: Array, rows: Rows, state: State, place: int
) -> tuple[Array, Array]:
    rows, state = rows.only([place]), state.only([place])
    for _ in range(_LIMIT):
        if _done(rows, state)[0]:
            break
        try:
            state = interior.step(rows, state)
        except Stalled:
            break
    return _points(program, every, equal, state, 0)


def _first(dual: Array, equal: Array) -> Array:
    return np.concatenate([dual, np.zeros(len(equal))])


def _done(rows: Rows, state: State) -> Array:
    """Is the gap small, and does W meet its rows? (B,)"""
    short = rows.sides - rows.apply(state.W)
    short[:, : rows.count] += state.slack
    met = np.abs(short).max(1, initial=0.0) <= GAP
    return met & (state.gap <= GAP * state.value)


def _points(
    program: Program, inside: Array, equal: Array, state: State, place: int
) -> tuple[Array, Array]:
    y = np.zeros(len(program.left))
    y[np.concatenate([inside, equal])] = state.y[place]
    W, slack, lam = state.W[place], state.slack[place], state.y[place, : len(inside)]
    loose = lam < slack * lam.sum() / max(slack.sum(), 1.0)
    y[inside[loose]] = 0.0
    tight = np.concatenate([inside[~loose], equal])
    return polished(program, *singular_spaces(W, state.G[place]), W, tight), y


def _rows(programs: list[Program], inside: Array, equals: list[Array]) -> Rows:
    chosen = [np.concatenate([inside, equal]) for equal in equals]
    pairs = list(zip(programs, chosen, strict=True))
    return Rows(
        np.stack([x.left[k] for x, k in pairs]),
        np.stack([x.right[x.owner[k]] for x, k in pairs]),
        np.stack([x.sides[k] for x, k in pairs]),
        len(inside),
    )


def _exchange(
    program: Program, inside: Array, equal: Array, rows: Rows, state: State
) -> tuple[Array, Rows, State]:
    """Take in rows that come close to their bound, let go of those that are far from it and weigh nothing."""
    if program.count <= _ALL:
        return inside, rows, state
    over = program.apply(state.W[0])[: program.count] - program.sides[: program.count]
    relative = float(state.gap[0] / state.value[0])
    near = over < _NEAR * min(1.0, 10 * relative) + 1e-12
    near[inside] = False
    new = np.flatnonzero(near)
    lam, slack = state.y[0, : len(inside)], state.slack[0]
    light = (over[inside] > _FAR) & (lam < 1e-2 * lam.mean())
    stay = ~light if relative < 0.1 else np.ones(len(inside), dtype=bool)
    if not len(new) and stay.all():
        return inside, rows, state
    mu = float(state.gap[0]) / state.degree
    more = np.maximum(over[new], _FAR / 2)
    y = np.concatenate([lam[stay], 0.1 * mu / more, state.y[0, len(inside) :]])
    inside = np.concatenate([inside[stay], new])
    rows = _rows([program], inside, [equal])
    G = rows.adjoint(y[None])
    size = float(np.linalg.norm(G[0], 2))
    shrink = 1.0 if size < 1 else (1 - 1e-3) / size
    slack = np.concatenate([slack[stay], more])[None]
    return inside, rows, State(state.Y, slack, shrink * y[None], shrink * G)

"""Counts against brute force: random patterns in every mode, and planted bugs that must be seen."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytest
from gna import brute
from hypothesis import given, settings
from hypothesis import strategies as st

from dsf.errors import InvalidInput
from dsf.sim import Pattern, Tiling, axis_counts, block_sparsity, bounds, count, count_backward
from dsf.sim.axis import Axis


class Case(NamedTuple):
    """One row per axis: length, window, stride, dilation, causal, query tile, KV tile."""

    axes: tuple[tuple[int, int, int, int, bool, int, int], ...]
    dynamic: bool = False
    extra_keys: int = 0

    @property
    def columns(self) -> tuple[Any, ...]:
        return tuple(zip(*self.axes, strict=True))

    def pattern(self) -> Pattern:
        return Pattern(*self.columns[:5], extra_keys=self.extra_keys)

    def tiling(self) -> Tiling:
        return Tiling(*self.columns[5:], kv_tiling="dynamic" if self.dynamic else "static")


@st.composite
def axes(draw: st.DrawFn, longest: int) -> tuple[int, int, int, int, bool, int, int]:
    length = draw(st.integers(2, longest))
    window = draw(st.integers(2, length))
    stride = draw(st.integers(1, window))
    dilation = draw(st.integers(1, length // window))
    q, kv = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return length, window, stride, dilation, draw(st.booleans()), q, kv


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 3))
    longest = {1: 40, 2: 12, 3: 6}[rank]
    rows = tuple(draw(axes(longest)) for _ in range(rank))
    return Case(rows, draw(st.booleans()), draw(st.integers(0, 9)))


def law_counts(case: Case, brute_tiles: Any = brute.tiles) -> None:
    """Visited, worst, full, pairs and histogram are those of the mask itself."""
    layout, window, stride, dilation, causal, q, kv = case.columns
    counts = count(case.pattern(), case.tiling())
    truth = brute_tiles(layout, window, stride, dilation, causal, q, kv, case.dynamic)
    extra = -(-case.extra_keys // prod(kv))
    tokens = prod(layout)
    assert counts.q_tiles == brute.grid(layout, dilation, q)
    assert counts.kv_tiles == brute.grid(layout, dilation, kv) + extra
    assert counts.visited == truth.visited + extra * counts.q_tiles
    assert counts.most == truth.most + extra
    assert counts.full == truth.full + extra * counts.q_tiles
    assert counts.visible_pairs == truth.pairs + tokens * case.extra_keys
    assert counts.dense_pairs == tokens * (tokens + case.extra_keys)
    assert counts.histogram() == {n + extra: many for n, many in truth.histogram.items()}


def law_backward(case: Case) -> None:
    """The same where KV tiles stay and query tiles go by."""
    layout, window, stride, dilation, causal, q, kv = case.columns
    truth = brute.tiles(layout, window, stride, dilation, causal, q, kv, swap=True)
    counts = count_backward(case.pattern(), case.tiling())
    extra = -(-case.extra_keys // prod(kv))
    all_q = brute.grid(layout, dilation, q)
    assert counts.visited == truth.visited + extra * all_q
    assert counts.full == truth.full + extra * all_q
    assert counts.most == max(truth.most, all_q if extra else 0)
    assert (counts.q_tiles, counts.kv_tiles) == (all_q, brute.grid(layout, dilation, kv) + extra)


@settings(max_examples=1500)
@given(cases())
def test_counts_are_those_of_the_mask(case: Case) -> None:
    law_counts(case)


@settings(max_examples=500)
@given(cases())
def test_backward_counts_are_those_of_the_mask(case: Case) -> None:
    law_backward(case)


@settings(max_examples=300)
@given(axes(60), st.booleans())
def test_plain_integers_and_arrays_agree(axis: tuple, dynamic: bool) -> None:
    *fields, q, kv = axis
    for size, _ in Axis(*fields).groups:
        few = axis_counts._few(Axis(*fields), size, q, kv, dynamic)
        many = axis_counts._many(Axis(*fields), size, q, kv, dynamic)
        assert [list(map(int, row)) for row in many] == list(few)


@settings(max_examples=300)
@given(axes(60))
def test_single_and_many_intervals_agree(axis: tuple) -> None:
    made = Axis(*axis[:5])
    for size, _ in made.groups:
        start, end = made.intervals(np.arange(size), size)
        assert [made.interval(i, size) for i in range(size)] == list(
            zip(start.tolist(), end.tolist(), strict=True)
        )


@settings(max_examples=500)
@given(cases())
def test_order_of_the_bounds(case: Case) -> None:
    """flop >= mean >= worst where nothing is ragged, equal exactly where no mask is needed."""
    counts, causal = count(case.pattern(), case.tiling()), any(case.columns[4])
    found = bounds(counts)
    if not counts.ragged:
        tokens = prod(case.columns[0])
        assert (
            counts.visited * prod(case.columns[5]) * prod(case.columns[6]) >= counts.visible_pairs
        )
        assert found.flop >= found.mean_tile >= found.worst_tile
        assert counts.q_tiles * prod(case.columns[5]) == tokens
        if not causal:
            exact = block_sparsity(case.pattern(), case.tiling()).exact
            assert exact == (found.flop == found.mean_tile == found.worst_tile)


# A bug in the geometry that every stride-1 test would pass: even strides take the left middle.


def left_middle(i: int, n: int, w: int, s: int, causal: bool) -> range:
    leader = min(i // s * s + (s - 1) // 2, n - 1)
    centre = min(max(leader, w // 2), n - 1 - (w // 2 + w % 2 - 1))
    return range(centre - w // 2, centre - w // 2 + w)


PLANTED = {
    "left middle": ("window", left_middle, Case(((32, 8, 8, 1, False, 8, 8),))),
    "leader of a causal group": (
        "window",
        lambda i, n, w, s, causal: range(max(i - w + 1, 0), i + 1),
        Case(((24, 8, 4, 1, True, 4, 4),)),
    ),
    "window that shrinks at the edge": (
        "window",
        lambda i, n, w, s, causal: range(max(i - w // 2, 0), min(i + w - w // 2, n)),
        Case(((24, 8, 1, 1, False, 4, 4),)),
    ),
    "dilation ignored": (
        "axis_mask",
        lambda length, w, s, d, causal, real=brute.axis_mask: real(length, w, s, 1, causal),
        Case(((24, 8, 1, 2, False, 4, 4),)),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, bug, case = PLANTED[name]
    law_counts(case)
    monkeypatch.setattr(brute, place, bug)
    with pytest.raises(AssertionError):
        law_counts(case)


# The rules and their messages.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((10,), 1), "axis 0 of layout 10: window 1 .* nearest valid value is 2"),
        (((8, 10), (4, 11)), "axis 1 of layout 8x10: window 11 .* length 10; .* is 10"),
        (((8, 10), 4, (1, 5)), "axis 1 of layout 8x10: stride 5 .* window 4; .* is 4"),
        (((8, 10), 4, 0), "axis 0 of layout 8x10: stride 0 .* at least 1; .* is 1"),
        (((8, 10), 4, 1, (2, 3)), "axis 1 .* window 4 .* times dilation 3 .* is 3"),
        (((8, 10), 4, 1, (1, 30)), "axis 1 .* dilation 30 .* is 2"),
        (((8, 10), (4,)), "window must have 2 entries"),
        (((8, 10), 4, 1, 1, (True,)), "causal must be a bool, or 2 bools"),
        (((8, 10), 4, 1, 1, False, 6, 4), r"kv_heads 4 .* one of \[1, 2, 3, 6\]"),
        (((8, 10), True), "window must be an integer"),
        (((), 4), "layout must have at least one entry"),
    ],
)
def test_bad_patterns_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Pattern(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 0), (4, 4)), "q tile 4x0 .* nearest valid shape is 4x1"),
        (((4, 4), (4,)), "one entry per axis"),
        ((4, 4, "fixed"), "'static' or 'dynamic'"),
    ],
)
def test_bad_tilings_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Tiling(*arguments)


def test_a_tiling_of_another_rank_is_refused() -> None:
    with pytest.raises(InvalidInput, match="tiles 4/4 have 1 axes, the layout 8x8 has 2"):
        count(Pattern((8, 8), 4), Tiling(4, 4))


def test_scalars_repeat_and_none_is_the_default() -> None:
    assert Pattern((8, 8), 4, None, None, None) == Pattern((8, 8), (4, 4), (1, 1), (1, 1), False)
    assert Pattern(8, np.int64(4)) == Pattern((8,), (4,))

"""The geometry is NATTEN's: masks that its own builder wrote (`tests/natten_masks.py`) as fixtures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from gna import brute

from dsf.sim import Pattern, Tiling, block_sparsity, count
from dsf.sim.axis import Axis
from dsf.sim.axis_counts import count_axis
from dsf.sim.block_sparsity import natten_axis

FIXTURES = json.loads(Path(__file__).with_name("data").joinpath("natten_masks.json").read_text())
CASES = [[tuple(axis.values()) for axis in case["axes"]] for case in FIXTURES["cases"]]


def library_mask(axes: list[tuple]) -> np.ndarray:
    """From the intervals that the counts are made of."""
    found = np.ones((1, 1), dtype=bool)
    for fields in axes:
        axis = Axis(*fields)
        token = np.arange(axis.length)
        group, inner = token % axis.dilation, token // axis.dilation
        rows = np.zeros((axis.length, axis.length), dtype=bool)
        sizes = [size for size, many in axis.groups for _ in range(many)]
        for one, size in enumerate(sizes):
            queries = np.flatnonzero(group == one)
            start, end = axis.intervals(inner[queries], size)
            seen = (inner >= start[:, None]) & (inner < end[:, None]) & (group == one)
            rows[queries] = seen
        found = np.kron(found, rows)
    return found


def digest(mask: np.ndarray) -> str:
    return hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()


def test_the_fixtures_cover_what_they_should() -> None:
    axes = [axis for case in CASES for axis in case]
    assert len(CASES) == 400 and {len(case) for case in CASES} == {1, 2, 3}
    assert any(s % 2 == 0 and n % s for n, _, s, _, causal in axes if not causal)
    assert any(n % d for n, _, _, d, _ in axes if d > 1)
    assert {causal for *_, causal in axes} == {False, True}


@pytest.mark.parametrize(
    "oracle", [library_mask, lambda axes: brute.mask(*zip(*axes, strict=True))]
)
def test_masks_are_nattens(oracle) -> None:
    for axes, fixture in zip(CASES, FIXTURES["cases"], strict=True):
        assert digest(oracle(axes)) == fixture["sha256"], axes


def test_pairs_are_nattens() -> None:
    for axes, fixture in zip(CASES, FIXTURES["cases"], strict=True):
        assert Pattern(*zip(*axes, strict=True)).visible_pairs == fixture["pairs"], axes


def test_another_mask_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    window = brute.window
    monkeypatch.setattr(brute, "window", lambda i, n, w, s, c: window(i, n, w, 1, c))
    strided = next(axes for axes in CASES if all(s > 1 and 2 * w < n for n, w, s, _, _ in axes))
    fixture = FIXTURES["cases"][CASES.index(strided)]
    assert digest(brute.mask(*zip(*strided, strict=True))) != fixture["sha256"]


def test_the_predicate_is_sound_and_misses_what_is_documented() -> None:
    """All axes with 4 to 32 tokens and tiles of 2, 4, 8: never wrong to skip the mask."""
    exact = missed = cases = 0
    for length in range(4, 33):
        for window in range(2, length + 1):
            for stride in range(1, window + 1):
                axis = Axis(length, window, stride)
                for q in (2, 4, 8):
                    for kv in (2, 4, 8):
                        truth, said = count_axis(axis, q, kv).exact, natten_axis(axis, q, kv)
                        assert truth or not said, (axis, q, kv)
                        cases, exact, missed = cases + 1, exact + truth, missed + truth - said
    assert (cases, exact, missed) == (53505, 5774, 119)


@pytest.mark.parametrize(
    ("pattern", "tiling", "exact", "natten", "reasons"),
    [
        (Pattern(8, 6, 2), Tiling(4, 2), True, False, []),
        (Pattern(48, 24, 8), Tiling(8, 8), True, True, []),
        (Pattern(20, 4, 2), Tiling(2, 2), False, False, ["starts at 1, which is no multiple"]),
        (Pattern(20, 5, 5), Tiling(5, 4), False, False, ["ends at 5, within a KV tile of 4"]),
        (Pattern(48, 24, 1), Tiling(8, 8), False, False, ["different windows"]),
        (
            Pattern((48, 48), 24, 8, 1, (True, False)),
            Tiling((8, 8), (8, 8)),
            False,
            False,
            ["causal"],
        ),
        (Pattern((8, 8, 8, 8), 8), Tiling((4,) * 4, (4,) * 4), True, None, []),
    ],
    ids=str,
)
def test_verdicts_and_reasons(pattern, tiling, exact, natten, reasons) -> None:
    found = block_sparsity(pattern, tiling)
    assert (found.exact, found.natten) == (exact, natten)
    assert len(found.reasons) == len(reasons)
    assert all(part in reason for part, reason in zip(reasons, found.reasons, strict=True))
    assert exact == (count(pattern, tiling).partial == 0)


@pytest.mark.parametrize(
    ("pattern", "dense"),
    [
        (Pattern(16, 16), True),
        (Pattern(16, 16, causal=True), True),
        (Pattern(16, 16, extra_keys=3, causal=True), False),
        (Pattern(16, 16, extra_keys=3), True),
        (Pattern((16, 8), (16, 8)), True),
        (Pattern((16, 8), (16, 8), causal=(True, False)), False),
        (Pattern((16, 8), (16, 4)), False),
    ],
    ids=str,
)
def test_what_natten_hands_to_dense_attention(pattern, dense) -> None:
    assert pattern.runs_dense is dense

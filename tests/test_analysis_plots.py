"""Pictures show what was computed."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
from lawbook import analysis as laws
from lawbook.analysis import attention

from dsf.analysis import (
    gramians,
    hankel,
    lyapunov_spectrum,
    memory,
    plots,
    reduce,
    spectrum,
    state_sweep,
)
from dsf.mixers import gated_deltanet, linear_attention

PHI = attention(32, 3)
SYSTEM = linear_attention(*(laws.normal(i, 1, 32, 2, 3) for i in (1, 2)))


def test_hankel_values_are_those_found() -> None:
    found = hankel(PHI)
    axes = plots.hankel_values(found).axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == found.values.T.shape
    assert np.array_equal(shown[0], np.log10(np.maximum(found.values[:, 0] / found.norm, 1e-6)))
    assert np.array_equal(axes.lines[1].get_ydata(), found.rank(0.01))
    heads = hankel(SYSTEM)
    shown = np.asarray(plots.hankel_values(heads, (0, 1)).axes[0].images[0].get_array())
    assert shown.shape == (3, 33)


def test_states_needed_fall_with_the_error_allowed() -> None:
    lines = plots.states_needed({"a": hankel(PHI), "b": hankel(2 * PHI)}).axes[0].lines
    a, b = (np.asarray(line.get_ydata()) for line in lines)
    assert np.array_equal(a, b) and (np.diff(a) >= 0).all()


def test_gramians_reach_and_exponents() -> None:
    found = gramians(SYSTEM)
    (past, _) = plots.gramian_profile(found, (0, 1)).axes[0].lines
    traces = np.trace(found.reachability[0, 1], axis1=-2, axis2=-1)
    assert np.array_equal(np.asarray(past.get_ydata())[1:], traces[1:])
    profile = memory(PHI)
    line, dot, _ = plots.reach({"softmax": profile}).axes[0].lines
    assert np.asarray(line.get_ydata()).max() == 1
    assert dot.get_xdata()[0] == profile.horizon(0.01)
    q, k = (laws.normal(i, 1, 12, 1, 3) for i in (1, 2))
    delta = gated_deltanet(q, k / k.norm(dim=-1, keepdim=True), 0 * q[..., 0], 0 * q[..., 0])
    rates = lyapunov_spectrum(delta)
    bars = plots.exponents(rates).axes[0].patches
    assert [bar.get_height() for bar in bars] == rates.exponents[0, 0].tolist()


def test_the_plane_names_its_gauge() -> None:
    found = spectrum(SYSTEM, gauge="state")
    axes = plots.spectrum_plane(found, (0, 1)).axes[0]
    assert axes.get_title() == "gauge: normaliser in the state"
    points = np.asarray(axes.collections[0].get_offsets())
    assert np.array_equal(points[:, 0], found.eigenvalues[0, 1].real.ravel())


def test_a_comparison_shows_the_reduction() -> None:
    batch = np.stack([PHI, attention(32, 3, 5)])
    small = reduce(batch, order=6)
    panels = plots.comparison(batch, small, (1,)).axes
    shown = [np.asarray(axes.images[0].get_array()) for axes in panels[:3]]
    assert np.array_equal(shown[0], batch[1]) and np.array_equal(shown[2], shown[0] - shown[1])
    assert np.linalg.norm(shown[2], 2) <= small.bound[1]
    steps = plots.orders(small, (1,)).axes[0].lines[0]
    assert np.array_equal(steps.get_ydata(), small.orders[1])


def test_states_against_error_are_those_of_the_curves() -> None:
    length = 64
    figure = state_sweep.state_against_error(length)
    heads = state_sweep.random_head(length), state_sweep.patterned_head(length)
    for axes, head in zip(figure.axes, heads, strict=True):
        found = state_sweep.curves(head)
        for line, curve in zip(axes.lines, found, strict=False):
            assert line.get_label() == curve.name
            assert tuple(line.get_xdata()) == curve.states
            assert tuple(line.get_ydata()) == curve.errors
        taylor, features, reduced = found
        assert all(a >= b for a, b in zip(reduced.errors, reduced.errors[1:], strict=False))
        # With 32 states the reduction is closer than 64 random features and 45 of the Taylor map.
        assert reduced.errors[5] < min(taylor.errors[1], features.errors[4])


def test_curves_measure_what_they_say() -> None:
    head = state_sweep.random_head(40)
    phi = head.weights
    assert np.abs(phi.sum(1) - 1).max() <= 40 * np.finfo(float).eps and (np.triu(phi, 1) == 0).all()
    whole = np.tril(np.ones((40, 40)))
    uniform = whole / whole.sum(1, keepdims=True)
    first = state_sweep.taylor_curve(head, (0,))
    assert first.states == (1,)
    assert first.errors == (np.linalg.norm(phi - uniform) / np.linalg.norm(phi),)
    assert state_sweep.taylor_curve(head, (30,)).errors[0] <= 1e3 * np.finfo(float).eps


def test_the_committed_pictures_are_those_of_the_script() -> None:
    images = Path(__file__).parents[1] / "docs" / "images"
    drawn = runpy.run_path(str(images / "memory.py"))["figures"]()
    assert set(drawn) == {path.stem for path in images.glob("memory-*.svg")}
    page = (images.parent / "memory.md").read_text(encoding="utf-8")
    assert all(f"images/{name}.svg" in page for name in drawn)

"""Where exact outputs must lie: enclosures against integers, against each other, and against runs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from lawbook import exact, naive
from lawbook.exact import FACTORS, possible, problem
from lawbook.rows import ALL_ROWS
from lawbook.spanning import name_of, spanning

import dsf.rigour.contraction as certified
import dsf.rigour.enclosures as enclosures
from dsf import InvalidInput, error_bound, run
from dsf.forms import forms
from dsf.mixers import ARCHITECTURES, Draw, deltanet, retnet
from dsf.numerics import require_within
from dsf.registry import resolve
from dsf.rigour.contraction import certified_run
from dsf.rigour.enclosures import Enclosure, enclose
from dsf.rigour.rings import ring_of

INTEGERS = [
    row
    for row in spanning(FACTORS, possible)
    if row["timing"] != "end" and row["length"] <= 8 and row["dtype"] == "f64"
]


def law_encloses_integers(row, arithmetic: str) -> None:
    """On systems of small integers both arithmetics give the numbers of a loop in numpy, exactly."""
    given = problem(row)
    exact.within_range(given)
    system, tokens, state = given.laid_out()
    expected, _ = naive.run(system, tokens, state)
    found = enclose(system, tokens, state, arithmetic=arithmetic)  # type: ignore[arg-type]
    if system.normaliser is None:
        assert float(found.radius.max() if found.radius.numel() else 0) == 0.0
    limit = found.radius + torch.from_numpy(np.abs(expected)) * 2.0**-53  # η divides: one rounding
    require_within(torch.from_numpy(expected), found.midpoint, limit, name_of(row))


def law_run_is_inside(row, form, length: int, started: bool) -> None:
    """A run in float64 is within its bound of the exact outputs."""
    system, tokens, state = row.draw(length, seed=length)
    start = state if started else None
    found = enclose(system, tokens, start)
    outputs, _ = run(system, tokens, start, form=form)
    bound = error_bound(system, tokens, start, form=form).outputs
    error = found.error(outputs)
    require_within(error, torch.zeros_like(error), bound, f"{row.name}, {form.name}")


@pytest.mark.parametrize("row", INTEGERS, ids=name_of)
def test_integers_exactly(row) -> None:
    law_encloses_integers(row, "balls")
    if "complex" not in row["kind"]:
        law_encloses_integers(row, "rationals")


@pytest.mark.parametrize("row", ALL_ROWS, ids=lambda r: r.name)
def test_runs_are_within_their_bounds_of_the_exact_outputs(row) -> None:
    turn = ALL_ROWS.index(row)
    length = (7, 1, 0, 4)[turn % 4]
    for form in forms():
        if form.admits(row.draw(length)[0]):
            law_run_is_inside(row, form, length, bool(turn % 2))


@pytest.mark.parametrize("reference", ARCHITECTURES)
def test_architectures_are_within_their_bounds_of_the_exact_outputs(reference: str) -> None:
    architecture = resolve(reference)
    draw = Draw(torch.Generator().manual_seed(1), 1, 5, 2, 4, 3)
    sample = architecture.sample(draw)
    system = architecture.build(**sample.quantities)
    error = enclose(system, sample.tokens).error(run(system, sample.tokens, form="recurrent")[0])
    bound = error_bound(system, sample.tokens, form="recurrent").outputs
    require_within(error, torch.zeros_like(error), bound, architecture.name)


@pytest.mark.parametrize("row", ALL_ROWS, ids=lambda r: r.name)
def test_a_certified_run_meets_the_balls(row) -> None:
    system, tokens, state = row.draw(9, seed=2)
    channelwise = row.coupling in ("channel", "scaled")
    if channelwise or row.transition in ("elementwise", "discretised"):
        with pytest.raises(InvalidInput, match="use `enclose`"):
            certified_run(system, tokens, state)
        return
    law_certified_run_meets_the_balls(system, tokens, state)


def law_certified_run_meets_the_balls(system, tokens, state=None) -> None:
    """Two proved enclosures of one number have a point in common."""
    found, balls = certified_run(system, tokens, state), enclose(system, tokens, state)
    limit = found.radius + balls.radius
    require_within(found.midpoint, balls.midpoint, limit, "certified run")


def _delta(length: int, keys: int = 8, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    k = torch.randn(1, length, 1, keys, generator=draw, dtype=torch.float64)
    k = torch.nn.functional.normalize(k, dim=-1)
    strengths = 2 * torch.rand(1, length, 1, generator=draw, dtype=torch.float64)
    return deltanet(k, k, strengths), k


def test_balls_of_the_delta_rule_wrap_and_residuals_do_not() -> None:
    system, tokens = _delta(160, keys=4)
    naive_balls = enclose(system, tokens, bits=53).radius.amax((0, 2, 3))
    certified = certified_run(system, tokens).radius.amax((0, 2, 3))
    assert naive_balls[-1] > 1e6 * naive_balls[40]  # a constant number of bits per step
    assert certified[-1] < 8 * certified[40]  # linear at most
    assert enclose(system, tokens).radius.max() < 2.0**-48  # enough bits, and they are harmless


def test_a_certified_run_judges_other_forms_at_length() -> None:
    system, tokens = _delta(1500)
    found = certified_run(system, tokens)
    for form in ("recurrent", "chunkwise"):
        outputs, _ = run(system, tokens, form=form)
        bound = error_bound(system, tokens, form=form).outputs + found.radius
        require_within(outputs, found.midpoint, bound, form)


# -- planted bugs -------------------------------------------------------------------------------------


def test_a_transposed_transition_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def transposed(transition, memory):
        return (np.swapaxes(transition, -1, -2) * memory[:, None, :]).sum(-1)

    monkeypatch.setattr(enclosures, "_applied", transposed)
    row = next(r for r in ALL_ROWS if r.transition == "dense")
    with pytest.raises(AssertionError):
        law_run_is_inside(row, forms()[0], 7, True)


def test_states_that_are_off_are_covered_and_lost_residuals_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system, tokens = _delta(20)
    exact_states = certified._states

    def off(core):
        states = exact_states(core)
        states[:, 7] += 1e-9
        return states

    monkeypatch.setattr(certified, "_states", off)
    law_certified_run_meets_the_balls(system, tokens)
    nothing = lambda steps, states: np.zeros(len(states) - 1)  # noqa: E731
    monkeypatch.setattr("dsf.verify.contraction.residual_norms", nothing)
    with pytest.raises(AssertionError):
        law_certified_run_meets_the_balls(system, tokens)


def test_norms_taken_too_small_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at one step stays in a state that forgets nothing; a norm of 1e-3 says it is gone."""
    one = torch.ones(1, 12, 1, 2, dtype=torch.float64)
    system = deltanet(one, one, torch.zeros(1, 12, 1, dtype=torch.float64))
    exact_states = certified._states

    def off(core):
        states = exact_states(core)
        states[:, 3:] += 1e-9
        return states

    monkeypatch.setattr(certified, "_states", off)
    law_certified_run_meets_the_balls(system, one)
    small = lambda steps: np.full(len(steps.diagonal), 1e-3)  # noqa: E731
    monkeypatch.setattr("dsf.verify.contraction.transition_norms", small)
    with pytest.raises(AssertionError):
        law_certified_run_meets_the_balls(system, one)


def test_an_enclosure_next_to_the_truth_is_noticed() -> None:
    one = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    found = enclose(retnet(one, one, decay=one[0, 0, 0] / 3), one)
    moved = Enclosure(found.midpoint + 1e-12, found.radius)
    with pytest.raises(AssertionError):
        require_within(found.midpoint, moved.midpoint, moved.radius + found.radius, "moved")


# -- what is refused ----------------------------------------------------------------------------------


def test_refusals_say_why() -> None:
    one = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    system = retnet(one, one, decay=one[0, 0, 0] / 3)
    with pytest.raises(InvalidInput, match="'balls' or 'rationals'"):
        with ring_of("floats", False, 53):
            pass
    with pytest.raises(InvalidInput, match="finite"):
        enclose(system, one * torch.inf)
    gated = next(r for r in ALL_ROWS if r.transition == "log scalar" and r.coupling == "outer")
    drawn, tokens, _ = gated.draw(3)
    with pytest.raises(InvalidInput, match="no rational number"):
        enclose(drawn, tokens, arithmetic="rationals")
    turned = next(r for r in ALL_ROWS if r.transition == "complex scalar" and r.coupling == "outer")
    drawn, tokens, _ = turned.draw(3)
    with pytest.raises(InvalidInput, match="complex numbers"):
        enclose(drawn, tokens, arithmetic="rationals")


def test_without_flint_rationals_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    one = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    system = retnet(one, one, decay=one[0, 0, 0] / 4)
    with pytest.raises(InvalidInput, match=r"dsf-dynamics\[exact\]"):
        enclose(system, one)
    found = enclose(system, one, arithmetic="rationals")
    assert found.midpoint.flatten().tolist() == [1.0, 1.25, 1.3125] and not found.radius.any()

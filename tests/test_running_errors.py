"""The proof and the alarm: no error exceeds its bound, few exceed three standard deviations."""

from __future__ import annotations

import warnings

import pytest
import torch
from lawbook.rows import ALL_ROWS, cast, wide

import dsf.rigour.running as running
from dsf import error_bound, run
from dsf.forms import forms
from dsf.mixers import ARCHITECTURES, Draw, retnet
from dsf.numerics import FEW, BoundExceeded, Comparison, RoundingWarning, compare
from dsf.registry import resolve
from dsf.rigour.running import error_deviation

FORMS = {form.name: form for form in forms()}


def law_alarm_is_quiet(system, tokens, state, form, name: str) -> Comparison:
    """A float32 run against float64: within its bound, and typical."""
    system, tokens = system.map(lambda x: cast(x, torch.float32)), cast(tokens, torch.float32)
    start = None if state is None else state.map(lambda x: cast(x, torch.float32))
    exact, _ = run(
        system.map(wide), wide(tokens), None if start is None else start.map(wide), form="recurrent"
    )
    outputs, _ = run(system, tokens, start, form=form)
    bound = error_bound(system, tokens, start, form=form).outputs
    deviation = error_deviation(system, tokens, start, form=form).outputs
    assert deviation.shape == outputs.shape
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoundingWarning)
        return compare(wide(outputs), exact, bound, name, deviation)


@pytest.mark.parametrize("row", ALL_ROWS, ids=lambda r: r.name)
def test_every_structure_in_every_form(row) -> None:
    turn = ALL_ROWS.index(row)
    length = (130, 1, 33, 64)[turn % 4]
    for form in FORMS.values():
        system, tokens, state = row.draw(length, seed=turn)
        if form.admits(system):
            law_alarm_is_quiet(system, tokens, state if turn % 2 else None, form, row.name)


@pytest.mark.parametrize("reference", ARCHITECTURES)
def test_every_architecture(reference: str) -> None:
    architecture = resolve(reference)
    sample = architecture.sample(Draw(torch.Generator().manual_seed(2), 2, 150, 2, 4, 3))
    system = architecture.build(**sample.quantities)
    for name in ("recurrent", "chunkwise"):
        if FORMS[name].admits(system):
            law_alarm_is_quiet(system, sample.tokens, None, FORMS[name], architecture.name)


@pytest.mark.parametrize("timing", ["before", "end"])
def test_other_timings(timing: str) -> None:
    row = next(r for r in ALL_ROWS if r.name.startswith("diagonal-outer"))
    system, tokens, state = row.draw(40)
    system = system.replace(timing=timing)
    law_alarm_is_quiet(system, tokens, state, FORMS["recurrent"], timing)


def test_nothing_to_run() -> None:
    system, tokens, _ = ALL_ROWS[0].draw(0)
    assert error_deviation(system, tokens, form="recurrent").outputs.numel() == 0


def _long(decay: float, dtype: torch.dtype, length: int = 3000):
    generator = torch.Generator().manual_seed(0)
    q = torch.ones(1, length, 1, 1, dtype=dtype)
    v = torch.rand(1, length, 1, 64, generator=generator).to(dtype)
    return retnet(q, q, decay=torch.tensor([decay], dtype=dtype)), v


def test_the_alarm_is_sharper_than_the_proof_where_memory_is_long() -> None:
    system, tokens = _long(0.9995, torch.float32)
    bound = error_bound(system, tokens, form="recurrent").outputs
    deviation = error_deviation(system, tokens, form="recurrent").outputs
    assert bool((3 * deviation < bound / 10)[:, 1000:].all())


# -- planted bugs -------------------------------------------------------------------------------------


def test_an_error_that_the_proof_lets_pass_alarms_before_it_fails() -> None:
    system, tokens = _long(0.9995, torch.float32)
    exact, _ = run(system.map(wide), wide(tokens), form="recurrent")
    bound = error_bound(system, tokens, form="recurrent").outputs
    deviation = error_deviation(system, tokens, form="recurrent").outputs
    with pytest.warns(RoundingWarning, match="beyond 3 times"):
        found = compare(exact + 4 * deviation, exact, bound, "off by four", deviation)
    assert found.share < 1 and found.above == 1.0
    with pytest.raises(BoundExceeded):
        compare(exact + 2 * bound, exact, bound, "too far", deviation)


def test_a_bfloat16_state_is_found() -> None:
    system, tokens = _long(0.999, torch.float32, 400)
    exact, _ = run(system.map(wide), wide(tokens), form="recurrent")
    state, outputs = None, []
    for t in range(400):
        y, state = run(system[t : t + 1], tokens[:, t : t + 1], state, form="recurrent")
        state = state.map(lambda x: x.bfloat16().float())
        outputs.append(y)
    bound = error_bound(system, tokens, form="recurrent").outputs
    with pytest.raises(BoundExceeded):
        compare(wide(torch.cat(outputs, 1)), exact, bound, "bfloat16 state")


def test_an_estimate_that_forgets_a_gates_rounding_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the sensitivity to a repeated rounding, S5's alarm goes off for nothing."""
    monkeypatch.setattr(running, "_repeated", lambda core: False)
    with pytest.raises(RoundingWarning):
        test_every_architecture("dsf.mixers.s5:S5")


def test_an_estimate_that_forgets_its_memory_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_conjugated", lambda transition, w: 0 * w)
    row = next(r for r in ALL_ROWS if r.name == "householder-outer")
    system, tokens, _ = row.draw(200)
    with pytest.raises(RoundingWarning):
        law_alarm_is_quiet(system, tokens, None, FORMS["recurrent"], "forgets")


def test_what_is_printed() -> None:
    exact = torch.zeros(4)
    text = str(compare(exact + 1e-3, exact, torch.ones(4), "sum"))
    assert text == "sum: error 1.00e-03, bound 1.00e+00 (0.001 used)"
    assert 0 < FEW < 0.01

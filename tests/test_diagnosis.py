"""Contraction, overflow and bad numbers are named before anything runs."""

from __future__ import annotations

import pytest
import torch
from lawbook.rows import ROWS, K, Row

from dsf.diagnosis import diagnose
from dsf.errors import InvalidInput
from dsf.forms import run
from dsf.mixers import gated_deltanet, retnet
from dsf.structure import Diagonal


def delta(length: float, beta: float, steps: int = 400):
    generator = torch.Generator().manual_seed(0)
    k = length * torch.nn.functional.normalize(
        torch.randn(1, steps, 2, K, generator=generator), dim=-1
    )
    return gated_deltanet(
        k, k, torch.zeros(1, steps, 2), torch.full((1, steps, 2), beta)
    ), torch.ones(1, steps, 2, 3)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_unit_keys_and_strengths_up_to_two_contract(beta: float) -> None:
    found = diagnose(*delta(1.0, beta))
    assert found.contractive and found.overflow_step is None and not found.bad
    found.require()


def test_long_keys_are_seen_and_the_overflow_is_not_before_its_step() -> None:
    system, tokens = delta(3.0, 1.0)
    found = diagnose(system, tokens)
    assert not found.contractive and round(found.largest_norm) == 8
    assert found.overflow_step is not None
    _, before = run(
        system[: found.overflow_step], tokens[:, : found.overflow_step], form="recurrent"
    )
    assert bool(torch.isfinite(before.memory).all())
    outputs, _ = run(system, tokens, form="recurrent")
    assert not bool(torch.isfinite(outputs).all())
    with pytest.raises(InvalidInput, match="not contractive.*step.*unit length"):
        found.require()


def test_a_positive_log_decay_is_accepted_and_reported() -> None:
    system, tokens, _ = Row("log diagonal", "outer").draw(9)
    log = system.transition.leaves[0].clone()
    log[1, 4, 2, 0] = 0.5
    grown = system.replace(transition=Diagonal.from_log(log))
    assert bool(torch.isfinite(run(grown, tokens)[0]).all())
    found = diagnose(grown, tokens)
    assert (found.contractive, found.largest_at) == (False, 4)


@pytest.mark.parametrize("where", ["transition", "write", "read", "tokens"])
def test_the_first_bad_number_is_named(where: str) -> None:
    system, tokens, _ = Row("diagonal", "outer").draw(9)

    def spoil(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[1, 3, 2], x[0, 7, 0] = torch.nan, torch.inf
        return x

    if where == "tokens":
        tokens = spoil(tokens)
    elif where == "transition":
        system = system.replace(transition=system.transition.map(lambda x, _: spoil(x)))
    else:
        system = system.replace(**{where: getattr(system, where).map(spoil)})
    with pytest.raises(InvalidInput, match=f"`{where}` at batch 1, step 3, head 2"):
        diagnose(system, tokens).require()


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_every_kind_of_system_is_diagnosed(row: Row) -> None:
    for length in (0, 1, 6):
        system, tokens, state = row.draw(length)
        found = diagnose(system, tokens, state)
        assert not found.bad and found.overflow_step is None


def test_a_hard_reset_is_not_a_bad_number() -> None:
    q = torch.ones(1, 4, 1, 2)
    system = retnet(q, q).replace(
        transition=Diagonal.from_log(torch.full((1, 4, 1, 2), -torch.inf))
    )
    assert not diagnose(system, torch.ones(1, 4, 1, 1)).bad

"""Every conversion: proved from the code by algebra, and run at sizes where algebra does not end."""

from __future__ import annotations

import pytest
import torch

import dsf
from dsf.certificate import Status
from dsf.conversions import (
    CONVERSIONS,
    Conversion,
    delta_product_as_deltanet_steps,
    diagonalised,
    normaliser_gauge,
    retnet_as_ssd,
)
from dsf.coupling import DenseCoupling
from dsf.errors import InvalidInput
from dsf.mixers import ARCHITECTURES, Architecture, Draw, normalised_attention, retnet
from dsf.numerics import require_within
from dsf.registry import resolve
from dsf.structure import Dense
from dsf.system import System
from dsf.twin import prove_equal
from dsf.twin.twin import restricted

ALL: dict[str, Architecture] = {a.name: a for a in map(resolve, ARCHITECTURES)}


@pytest.mark.parametrize("row", CONVERSIONS, ids=lambda c: c.name)
def test_is_proved_from_the_code(row: Conversion) -> None:
    keys = 1 if row.source == "s4" else 2
    proof = prove_equal(
        ALL[row.source],
        row.convert,
        length=2,
        keys=keys,
        under=row.under,
        leave=row.leave,
        **row.options,
    )
    assert proof.status is Status.HOLDS, proof.verdict.remark


@pytest.mark.parametrize("row", [c for c in CONVERSIONS if c.under], ids=lambda c: c.name)
def test_its_condition_is_needed(row: Conversion) -> None:
    """Without the condition the same two systems differ (complex ones are compared at the sample)."""
    keys = 1 if row.source == "s4" else 2
    found = prove_equal(
        ALL[row.source],
        row.convert,
        length=3,
        keys=keys,
        leave=row.leave,
        method="randomised",
        **row.options,
    )
    assert found.status in (Status.VIOLATED, Status.INCONCLUSIVE)
    if row.source != "deltanet":  # its condition has a root, which the field has no rule for
        assert found.status is Status.VIOLATED, found.verdict.remark


@pytest.mark.parametrize("row", CONVERSIONS, ids=lambda c: c.name)
def test_runs_alike(row: Conversion) -> None:
    """At T = 40 in float64: the recurrence rounds by its bound, the quantities by their conversion."""
    one = row.source in ("s6",)
    draw = Draw(torch.Generator().manual_seed(2), 2, 40, 1, 4, 1 if one else 3)
    sample = ALL[row.source].sample(draw)
    given = {n: x for n, x in sample.quantities.items() if n not in row.leave}
    for name, rule in row.under.items():
        given[name] = rule(given[name]) if callable(rule) else torch.full_like(given[name], rule)
    before = ALL[row.source].build(**given, **row.options)
    after = row.convert(**given)
    expected, _ = dsf.run(before, sample.tokens)
    tokens = sample.tokens if after.writes is None else sample.tokens[..., None, :]
    found, _ = dsf.run(after, tokens)
    bound = sum(
        64 * 40 * dsf.error_bound(s, t, form="recurrent").outputs
        for s, t in ((before, sample.tokens), (after, tokens))
    )
    require_within(found.reshape(expected.shape), expected, bound, row.name)


def test_conditions_restrict_symbols_too() -> None:
    with pytest.raises(InvalidInput, match="`under` names"):
        restricted({}, {"g": 0.0})


def test_retnet_is_ssd_with_steps_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 30, 3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    decay = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)
    expected, _ = dsf.run(retnet(q, k, decay=decay), v)
    found, _ = dsf.run(retnet_as_ssd(q, k, decay), v)
    bound = 64 * dsf.error_bound(retnet(q, k, decay=decay), v, form="recurrent").outputs
    require_within(found, expected, bound, "retnet")


def test_delta_product_is_delta_steps_in_turn() -> None:
    sample = ALL["delta-product"].sample(Draw(torch.Generator().manual_seed(1), 2, 12, 2, 4, 3))
    whole = ALL["delta-product"].build(**sample.quantities)
    expected, _ = dsf.run(whole, sample.tokens)
    steps = delta_product_as_deltanet_steps(**sample.quantities)
    state, found = None, []
    for t in range(12):
        for r, system in enumerate(steps):
            y, state = dsf.run(
                system[t : t + 1], sample.tokens[:, t : t + 1, :, r], state, form="recurrent"
            )
        found.append(y)
    bound = 64 * dsf.error_bound(whole, sample.tokens, form="recurrent").outputs
    require_within(torch.cat(found, 1), expected, bound, "micro-steps")


def test_the_normaliser_moves_into_the_state() -> None:
    sample = ALL["normalised-attention"].sample(
        Draw(torch.Generator().manual_seed(1), 2, 9, 2, 4, 3)
    )
    system = normalised_attention(**sample.quantities)
    moved = normaliser_gauge(system, torch.exp(sample.quantities["n"]))
    assert bool((moved.transition.linear().leaves[0] > 1).any())
    expected, _ = dsf.run(system, sample.tokens)
    bound = 64 * dsf.error_bound(moved, sample.tokens, form="recurrent").outputs
    require_within(dsf.run(moved, sample.tokens)[0], expected, bound, "gauge")


def test_a_dense_recurrence_over_its_eigenvectors() -> None:
    generator = torch.Generator().manual_seed(3)
    A, b, c = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    A = 0.9 * A / torch.linalg.matrix_norm(A, 2)
    lead = (None, None, None)
    dense = System(Dense(A[lead]), DenseCoupling(b[lead]), DenseCoupling(c[lead]))
    u = torch.randn(2, 50, 1, 3, generator=generator, dtype=torch.float64)
    diagonal = diagonalised(A, b, c)
    condition = float(torch.linalg.cond(torch.linalg.eig(A)[1])) ** 2
    bound = condition * 64 * dsf.error_bound(dense, u, form="recurrent").outputs
    require_within(dsf.run(diagonal, u)[0], dsf.run(dense, u)[0], bound, "eigenvectors")
    with pytest.raises(InvalidInput, match="eigenvectors"):
        diagonalised(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.eye(2), torch.eye(2))

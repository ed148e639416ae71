"""Packing, padding, pieces, adjoint, gauges, the mixing matrix: each against running things apart."""

from __future__ import annotations

import pytest
import torch
from lawbook import laws
from lawbook.rows import ROWS, H, K, Row, V

import dsf
from dsf.composition import Piece, adjoint, concatenate, summarise, transition_product
from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.forms import forms, mixing_matrix, run
from dsf.gauges import (
    change_gauge,
    denominators,
    normaliser_into_read,
    normaliser_into_state,
    scale_state,
)
from dsf.mixers import ARCHITECTURES, Draw, linear_attention
from dsf.numerics import require_within
from dsf.packing import mask_padding, unpack
from dsf.registry import resolve
from dsf.structure import Diagonal, Identity, Scalar, compose
from dsf.system import Normaliser, System

ARCHITECTURE = [resolve(reference) for reference in ARCHITECTURES]
OUTER = [r for r in ROWS if not r.constant and r.coupling != "several"]
LENGTHS = (5, 0, 1, 17, 16, 3)


def bound_of(system, tokens, state=None, times: float = 4.0):
    """The bound of the loop, several times over: both sides are computed, in different orders."""
    found = dsf.error_bound(system, tokens, state, form="recurrent")
    slack = max(64.0, float(tokens.shape[1]))
    return times * slack * found.outputs, times * slack * found.memory


@pytest.mark.parametrize("form", forms(), ids=lambda f: f.name)
@pytest.mark.parametrize("row", [r for r in ROWS if not r.constant], ids=lambda r: r.name)
def test_packed_sequences_are_each_alone(form, row) -> None:
    drawn = [row.draw(n, seed=n) for n in LENGTHS]
    systems = [s.map(lambda x: x[:1]) for s, _, _ in drawn]
    if all(form.admits(s) for s in systems):
        laws.packed_is_apart(form, systems, [t[:1] for _, t, _ in drawn])


@pytest.mark.parametrize("architecture", ARCHITECTURE, ids=lambda a: a.name)
def test_packed_architectures(architecture) -> None:
    for form in forms():
        samples = [
            architecture.sample(Draw(torch.Generator().manual_seed(n), 1, n, H, K, V))
            for n in LENGTHS
        ]
        systems = [architecture.build(**s.quantities) for s in samples]
        if all(s.length is not None and form.admits(s) for s in systems):
            laws.packed_is_apart(form, systems, [s.tokens for s in samples])


def test_packed_time_invariant_systems_start_states_and_gradients() -> None:
    system, tokens, _ = Row("complex diagonal", "outer", constant=True).draw(22)
    system, tokens = system.map(lambda x: x[:1]), tokens[:1].requires_grad_()
    packed = system.replace(boundaries=(0, 6, 6, 22))
    states = laws.State(
        torch.randn(3, H, K, V, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    )
    for form in ("recurrent", "convolution", "scan"):
        outputs, final = run(packed, tokens, states, form=form)
        (gradient,) = torch.autograd.grad(outputs.real.sum(), tokens)
        for i, (a, b) in enumerate(((0, 6), (6, 6), (6, 22))):
            own = tokens[:, a:b].detach().requires_grad_()
            start = states.map(lambda x, i=i: x[i : i + 1])
            if a == b:
                assert torch.equal(final.memory[i], states.memory[i])
                continue
            alone, end = run(system, own, start, form=form)
            limit, state_limit = bound_of(system, own.detach(), start)
            require_within(outputs[:, a:b], alone, limit, form)
            require_within(final.memory[i : i + 1], end.memory, state_limit, form)
            (expected,) = torch.autograd.grad(alone.real.sum(), own)
            scale = bound_of(adjoint(system), torch.ones_like(alone))[0].flip(1)
            require_within(gradient[:, a:b], expected, scale, f"{form} gradient")


def test_padding_on_the_right_changes_nothing() -> None:
    lengths = torch.tensor([9, 4])
    for row in OUTER:
        if row.coupling == "dense":
            continue
        system, tokens, state = row.draw(9)
        spoiled = tokens.clone()
        spoiled[1, 4:] = 1e3
        _, final = run(mask_padding(system, lengths), spoiled, state, form="recurrent")
        short, alone = system.map(lambda x: x[1:])[:4], state.map(lambda x: x[1:])
        _, expected = run(short, tokens[1:, :4], alone, form="recurrent")
        assert torch.equal(final.memory[1:], expected.memory), row.name


def test_unpack_undoes_pack() -> None:
    drawn = [Row("diagonal", "outer").draw(n, seed=n)[0].map(lambda x: x[:1]) for n in (3, 1, 4)]
    for before, after in zip(drawn, unpack(dsf.pack(drawn)), strict=True):
        assert torch.equal(before.write.weights, after.write.weights)
        assert torch.equal(before.transition.leaves[0], after.transition.leaves[0])


@pytest.mark.parametrize("row", OUTER, ids=lambda r: r.name)
def test_concatenation_in_time_runs_one_after_the_other(row) -> None:
    system, tokens, state = row.draw(13)
    joined = concatenate([system[:5], system[5:6], system[6:]])
    outputs, final = run(joined, tokens, state, form="recurrent")
    expected, end = run(system, tokens, state, form="recurrent")
    limits = bound_of(system, tokens, state)
    require_within(outputs, expected, limits[0], row.name)
    require_within(final.memory, end.memory, limits[1], row.name)


def test_concatenation_joins_kinds() -> None:
    parts = [
        Row(t, "outer").draw(4, seed=3)
        for t in ("scalar", "log diagonal", "identity", "block", "householder", "dense")
    ]
    joined = concatenate([s for s, _, _ in parts])
    tokens = torch.cat([t for _, t, _ in parts], 1)
    state, outputs = None, []
    for system, own, _ in parts:
        output, state = run(system, own, state, form="recurrent")
        outputs.append(output)
    limits = bound_of(joined, tokens)
    require_within(
        run(joined, tokens, form="recurrent")[0], torch.cat(outputs, 1), limits[0], "joined"
    )


@pytest.mark.parametrize("row", OUTER, ids=lambda r: r.name)
def test_pieces_are_a_monoid(row) -> None:
    system, tokens, state = row.draw(12)
    cuts = [(0, 3), (3, 4), (4, 12)]
    a, b, c = (summarise(system[i:j], tokens[:, i:j]) for i, j in cuts)
    whole = summarise(system, tokens)
    limits = bound_of(system, tokens, state)
    left, right = a.then(b).then(c), a.then(b.then(c))
    for piece in (left, right):
        require_within(piece.state.memory, whole.state.memory, limits[1], "local state")
        reached = piece.apply(state).memory
        expected = run(system, tokens, state, form="recurrent")[1].memory
        require_within(reached, expected, limits[1], "reached state")
    nothing = Piece(transition_product(system[:0], 0), summarise(system[:0], tokens[:, :0]).state)
    assert torch.equal(nothing.then(whole).state.memory, whole.state.memory)


@pytest.mark.parametrize("row", OUTER, ids=lambda r: r.name)
@pytest.mark.parametrize("timing", ["after", "before"])
def test_adjoint_is_the_gradient_of_autograd(row, timing) -> None:
    system, tokens, state = row.draw(11)
    system = system.replace(timing=timing)
    generator = torch.Generator().manual_seed(2)
    tokens = (tokens + 0j if system.is_complex else tokens).requires_grad_()
    memory = state.memory.clone().requires_grad_()
    outputs, final = run(system, tokens, laws.State(memory), form="recurrent")
    seeds = [
        torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in (outputs, final.memory)
    ]
    expected = torch.autograd.grad((outputs, final.memory), (tokens, memory), seeds)
    back = adjoint(system)
    start = laws.State(seeds[1])
    found, end = run(back, seeds[0].flip(1), start, form="recurrent")
    limits = bound_of(back, seeds[0].flip(1), start)
    require_within(found.flip(1), expected[0], limits[0].flip(1), f"{row.name} tokens")
    require_within(end.memory, expected[1], limits[1], f"{row.name} memory")


@pytest.mark.parametrize("architecture", ARCHITECTURE, ids=lambda a: a.name)
def test_adjoint_of_architectures(architecture) -> None:
    sample = architecture.sample(Draw(torch.Generator().manual_seed(0), 2, 14, H, K, V))
    system = architecture.build(**sample.quantities)
    if system.writes is not None:
        with pytest.raises(InvalidInput, match="several writes"):
            adjoint(system)
        return
    tokens = sample.tokens.requires_grad_()
    outputs, _ = run(system, tokens, form="recurrent")
    seed = torch.randn(
        outputs.shape, dtype=outputs.dtype, generator=torch.Generator().manual_seed(1)
    )
    (expected,) = torch.autograd.grad(outputs, tokens, seed)
    plain = system if system.normaliser is None else normaliser_into_read(system)
    back = adjoint(plain)
    limit, _ = bound_of(back, seed.flip(1), times=64.0)
    require_within(
        run(back, seed.flip(1), form="recurrent")[0].flip(1), expected, limit.flip(1), "adjoint"
    )


# -- gauges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [r for r in OUTER if r.transition != "elementwise"], ids=lambda r: r.name
)
@pytest.mark.parametrize("own", [(), (K,)], ids=["scalar", "diagonal"])
@pytest.mark.parametrize("timing", ["after", "before"])
def test_a_gauge_keeps_the_map(row, own, timing) -> None:
    system, tokens, state = row.draw(10)
    system = system.replace(timing=timing)
    generator = torch.Generator().manual_seed(3)
    scale = torch.rand(2, 11, H, *own, generator=generator, dtype=torch.float64) + 0.5
    moved = change_gauge(system, scale)
    outputs, final = run(moved, tokens, scale_state(state, scale[:, 0]), form="recurrent")
    expected, end = run(system, tokens, state, form="recurrent")
    limits = bound_of(system, tokens, state, times=64.0)
    require_within(outputs, expected, limits[0], "outputs")
    require_within(final.memory, scale_state(end, scale[:, -1]).memory, 2 * limits[1], "memory")


@pytest.mark.parametrize("timing", ["after", "before"])
def test_the_normaliser_in_state_read_out_and_at_the_end(timing) -> None:
    sample = ARCHITECTURE[0].sample(Draw(torch.Generator().manual_seed(4), 2, 20, H, K, V))
    system = linear_attention(**sample.quantities)
    _, state = run(system, sample.tokens)
    system = system.replace(timing=timing)
    expected, end = run(system, sample.tokens, state, form="recurrent")
    gauge = normaliser_into_state(system, state)
    plain = laws.State(state.memory)
    limit = 64 * dsf.error_bound(system, sample.tokens, state, form="recurrent").outputs
    moved = scale_state(plain, gauge.scale[:, 0])
    require_within(run(gauge.system, sample.tokens, moved)[0], expected, limit, "in the state")
    require_within(run(gauge.at_read_out(), sample.tokens, state)[0], expected, limit, "and back")
    read = normaliser_into_read(system, state)
    require_within(run(read, sample.tokens, plain)[0], expected, limit, "in the read-out")
    assert bool((gauge.system.transition.norm() > 1).any()), "above one, by gauge alone"
    assert denominators(system, state).shape == (2, 20, H)
    assert end.normaliser is not None


def test_gauges_refuse_what_they_cannot_hold() -> None:
    system, tokens, _ = Row("diagonal", "outer").draw(4)
    with pytest.raises(InvalidInput, match="invertible"):
        change_gauge(system, torch.zeros(2, 5, H, dtype=torch.float64))
    with pytest.raises(InvalidInput, match="T\\+1 = 5"):
        change_gauge(system, torch.ones(2, 4, H, dtype=torch.float64))
    several, _, _ = Row("diagonal", "several").draw(4)
    with pytest.raises(InvalidInput, match="read-out"):
        normaliser_into_state(several.replace(normaliser=Normaliser()))


# -- the matrix ------------------------------------------------------------------------------------------

EQUATIONS = {4: "bhij,bjhv->bihv", 5: "bhvij,bjhv->bihv"}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_the_mixing_matrix_mixes(row) -> None:
    system, tokens, _ = row.draw(9)
    phi = mixing_matrix(system, 9)
    outputs, _ = run(system, tokens, form="recurrent")
    equation = (
        EQUATIONS.get(phi.ndim)
        or {
            "several": "bhirjw,bjhwv->bihrv",
            "dense": "bhirjw,bjhw->bihr",
        }[row.coupling]
    )
    mixed = torch.einsum(equation, phi, tokens.to(phi.dtype))
    require_within(mixed.to(outputs.dtype), outputs, bound_of(system, tokens)[0], row.name)
    strictly_ahead = torch.ones(9, 9).triu(1).bool()
    blocks = phi.movedim(-2, -1) if phi.ndim == 6 else phi
    rows = blocks.movedim(2, -2) if phi.ndim == 6 else blocks
    assert bool((rows[..., strictly_ahead] == 0).all())


def test_rows_of_normalised_attention_sum_to_one() -> None:
    sample = ARCHITECTURE[0].sample(Draw(torch.Generator().manual_seed(5), 1, 30, 1, K, V))
    attention = linear_attention(**sample.quantities)
    rows = mixing_matrix(attention).sum(-1)
    ones = torch.ones(1, 30, 1, 1, dtype=rows.dtype)  # a row's sum is its output for values of one
    bound = 2 * dsf.error_bound(attention, ones, form="matrix").outputs[..., 0].movedim(1, 2)
    require_within(rows, torch.ones_like(rows), bound, "rows")


def test_the_product_of_transitions() -> None:
    for name in ("scalar", "log diagonal", "block", "two factors", "dense", "identity"):
        system, _, _ = Row(name, "outer").draw(7)
        exact = torch.eye(K, dtype=torch.float64).expand(2, H, K, K)
        norms = torch.ones(2, H, dtype=torch.float64)
        for step in system.steps():
            one = step.transition.map(lambda leaf, _: leaf[:, 0])
            exact = one.dense(K).to(exact.dtype) @ exact
            norms = norms * (one.growth() + 1)
        found = transition_product(system, 7).dense(K).to(exact.dtype)
        bound = (64 * torch.finfo(torch.float64).eps * norms)[..., None, None]
        require_within(found.expand_as(exact), exact, bound, name)


def test_a_time_invariant_system_has_no_length_until_it_is_given_one() -> None:
    system = System(
        Scalar(torch.full((1, 1, 1), 0.5)),
        OuterCoupling(torch.ones(1, 1, 1, 2)),
        OuterCoupling(torch.ones(1, 1, 1, 2)),
    )
    assert system.length is None and system.is_time_invariant
    with pytest.raises(InvalidInput, match="give `length`"):
        mixing_matrix(system)
    assert system.expand(5).length == 5
    assert concatenate([system, system.expand(4)]).length == 5, "alone it counts as one step"
    assert compose(Identity(), Diagonal(torch.ones(2))).key_size == 2

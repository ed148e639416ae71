"""Transitions and couplings held in factors are what their products are, and S6 is held in nothing larger."""

from __future__ import annotations

import pytest
import torch
from lawbook import laws
from lawbook.rows import FACTORED, Row

import dsf
from dsf.composition import concatenate, summarise
from dsf.coupling import ChannelCoupling, ScaledCoupling
from dsf.errors import InvalidInput, Refused
from dsf.forms import forms
from dsf.mixers import s6
from dsf.numerics import require_within
from dsf.packing import mask_padding
from dsf.structure import Diagonal, Discretised, Elementwise, alike, compose, join

K, V = 4, 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gate(seed: int = 0) -> Discretised:
    return Discretised(drawn(2, 5, 1, 1, V, seed=seed).abs(), -drawn(1, 1, 1, K, V, seed=1).abs())


def test_a_product_is_the_product_of_the_whole() -> None:
    one, two = gate(0), gate(2)
    for other in (two, two.whole(), two.linear(), Diagonal(drawn(2, 5, 1, K))):
        for second, first in ((one, other), (other, one)):
            product = compose(second, first)
            assert isinstance(product, Elementwise) and type(product) is join(second, first)
            decays = [
                x.decay if isinstance(x, Elementwise) else x.decay[..., None] for x in (one, other)
            ]
            expected = decays[0] * decays[1]
            limit = 8 * torch.finfo(torch.float64).eps * (1 + one.log.abs().max()) * expected.abs()
            require_within(product.decay, expected, limit, "product")
    with pytest.raises(Refused, match="value channel"):
        compose(one, dsf.Dense(drawn(2, 5, 1, K, K)))
    assert [type(x) for x in alike([one, two])] == [Elementwise, Elementwise]


def test_the_neutral_element_changes_nothing() -> None:
    one = gate()
    state = drawn(2, 5, 1, K, V, seed=3)
    assert torch.equal(one.rebuild(one.neutral()).apply(state), state)
    assert torch.equal(one.conj().decay, one.decay) and torch.equal(
        one.transpose().decay, one.decay
    )
    assert (one.key_size, one.value_size, one.lead) == (K, V, torch.Size((2, 5, 1)))


def test_a_scaled_coupling_is_a_channel_coupling() -> None:
    scaled = ScaledCoupling(drawn(2, 5, 1, K), drawn(2, 1, 1, V, seed=1))
    whole, tokens, state = scaled.whole(), drawn(2, 5, 1, V, seed=2), drawn(2, 5, 1, K, V, seed=3)
    assert type(whole) is ChannelCoupling and torch.equal(whole.weights, scaled.weights)
    assert (scaled.key_size, scaled.value_size, scaled.lead) == (K, V, torch.Size((2, 5, 1)))
    few = 8 * torch.finfo(torch.float64).eps
    for found, expected, size in (
        (scaled.inject(tokens), whole.inject(tokens), whole.inject(tokens).abs()),
        (
            scaled.extract(state),
            whole.extract(state),
            whole.map(torch.abs).extract(state.abs()) * K,
        ),
    ):
        require_within(found, expected, few * size, "scaled coupling")


@pytest.mark.parametrize("row", FACTORED[:6], ids=lambda r: r.name)
def test_packed_padded_joined_and_summed_up(row: Row) -> None:
    pieces = [row.draw(n, seed=n) for n in (4, 6, 7)]
    systems = [s.expand(t.shape[1]).map(lambda x: x[:1]) for s, t, _ in pieces]
    tokens = [t[:1] for _, t, _ in pieces]
    for form in ("recurrent", "scan"):
        laws.packed_is_apart(form, systems, tokens)
    whole, together = concatenate(systems), torch.cat(tokens, 1)
    laws.split_is_whole("scan", whole, together, None, [4, 10])
    early, late = (summarise(s, t) for s, t in zip(systems[:2], tokens[:2], strict=True))
    merged = early.then(late).state.memory
    expected = dsf.run(whole[:10], together[:, :10])[1].memory
    bound = 4 * dsf.error_bound(whole[:10], together[:, :10], form="scan").memory
    require_within(merged, expected, bound, "merged")
    padded = mask_padding(systems[2], torch.tensor([5]))
    alone = dsf.run(systems[2][:5], tokens[2][:, :5])[1].memory
    require_within(dsf.run(padded, tokens[2])[1].memory, alone, bound.amax(), "padded")


@pytest.mark.parametrize("where", ["tokens", "write", "transition", "read"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_the_past_stays_clean(where: str, bad: float) -> None:
    system, tokens, _ = Row("discretised", "scaled").draw(40)
    for form in forms():
        if form.admits(system):
            laws.past_is_untouched(form, system, tokens, where, 25, bad)


def test_extreme_steps() -> None:
    """A step of 0 keeps the state, an infinite one forgets it; gradients of both are finite."""
    delta = torch.tensor([0.5, 0.0, torch.inf, 1e30, 1e-30]).reshape(1, 5, 1, 1, 1).requires_grad_()
    rate = torch.full((1, 1, 1, 2, 1), -1.0).requires_grad_()
    keys = torch.ones(1, 1, 1, 2)
    system = dsf.System(Discretised(delta, rate), dsf.OuterCoupling(keys), dsf.OuterCoupling(keys))
    tokens = torch.ones(1, 5, 1, 1)
    for form in ("recurrent", "scan"):
        outputs, _ = dsf.run(system, tokens, form=form)
        assert outputs.flatten().tolist() == [2.0, 4.0, 2.0, 2.0, 4.0]
    (found,) = torch.autograd.grad(dsf.run(system[:2], tokens[:, :2], form="scan")[0].sum(), rate)
    assert bool(torch.isfinite(found).all())


def test_s6_is_held_in_its_own_quantities() -> None:
    delta, A, b, c = (
        torch.ones(1, 64, 8),
        -torch.ones(8, 16),
        torch.ones(1, 64, 16),
        torch.ones(1, 64, 16),
    )
    system = s6(delta, A, b, c)
    held = (*system.transition.leaves, *system.write.tensors, *system.read.tensors)
    assert max(x.numel() for x in held) <= max(x.numel() for x in (delta, A, b, c))
    assert {x.untyped_storage().data_ptr() for x in held} <= {
        x.untyped_storage().data_ptr() for x in (delta, A, b, c)
    }


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Discretised(torch.ones(3), torch.ones(2, 3)), "`step` with the axes K, V"),
        (lambda: Discretised(torch.ones(1, 3), torch.ones(2, 3).long()), "`rate`.*int64"),
        (lambda: Discretised(torch.ones(1, 4), torch.ones(2, 3)), r"\(1, 4\) and \(2, 3\)"),
        (lambda: ScaledCoupling(torch.ones(2, 3), torch.ones(1, 1, 1, 2)), "`keys`.*K"),
        (lambda: ScaledCoupling(torch.ones(1, 1, 1, 2), torch.ones(2, 3)), "`gains`.*V"),
    ],
)
def test_bad_factors_say_what_is_wrong(build, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        build()

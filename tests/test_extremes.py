"""Gates at their limits, bad numbers, long sequences: finite where the recurrence is, and right."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch
from lawbook import laws
from lawbook.rows import K, Row

from dsf.coupling import OuterCoupling
from dsf.forms import forms, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.scan import Scan
from dsf.mixers import gated_deltanet, linear_attention, mlstm
from dsf.numerics import EPSILON, require_within
from dsf.structure import DPLR, Diagonal, Elementwise, Scalar
from dsf.system import System

FORMS = [*forms(), Chunkwise(16), Scan(segment=9)]
DELAYS = (0.0, -1e-9, -1e4, -torch.inf)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("kind", [Scalar, Diagonal, Elementwise, DPLR])
@pytest.mark.parametrize("delay", [*DELAYS, "mixed"])
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=lambda d: str(d)[6:])
def test_log_decays_at_their_limits(form, kind, delay, dtype) -> None:
    """Values, states and every gradient are finite and right; -inf is an exact reset."""
    generator = torch.Generator().manual_seed(0)
    lead, own = (2, 37, 3), {Scalar: (), Diagonal: (K,), Elementwise: (K, 5), DPLR: (K,)}[kind]
    if delay == "mixed":
        choice = torch.randint(len(DELAYS), (*lead, *own), generator=generator)
        log = torch.tensor(DELAYS, dtype=torch.float64)[choice]
    else:
        log = torch.full((*lead, *own), delay, dtype=torch.float64)
    write, read = (OuterCoupling(normal(generator, *lead, K)) for _ in range(2))
    if kind is DPLR:
        key = torch.nn.functional.normalize(normal(generator, *lead, K), dim=-1)
        transition = DPLR(
            Diagonal.from_log(log), -(torch.exp(log) * key)[..., None], key[..., None]
        )
    else:
        transition = kind.from_log(log)
    system, tokens = System(transition, write, read), normal(generator, *lead, 5)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))
    state = laws.State(normal(generator, 2, 3, K, 5))
    laws.forms_agree(form, system, tokens, state, dtype)
    laws.gradients_agree(form, system, tokens, state, dtype)
    if delay == -torch.inf and kind is not DPLR:
        alone = write.inject(tokens)[:, -1]
        exact = run(system, tokens, state, form=form)[1].memory
        require_within(
            exact, alone, laws.error_bound(system, tokens, state, form=form).memory, "reset"
        )


@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("value", [0.0, -1.0, -0.5, 1.02, 1.0])
def test_gates_given_as_values(form, value) -> None:
    """A zero gate keeps its own gradient; signs and growth are kept."""
    generator = torch.Generator().manual_seed(1)
    lead = (2, 40, 3)
    gates = torch.full((*lead, K), value, dtype=torch.float64)
    couplings = [OuterCoupling(normal(generator, *lead, K)) for _ in range(2)]
    system, tokens = System(Diagonal(gates), *couplings), normal(generator, *lead, 5)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))
    state = laws.State(normal(generator, 2, 3, K, 5))
    laws.forms_agree(form, system, tokens, state, torch.float64)
    laws.gradients_agree(form, system, tokens, state, torch.float64)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("beta", [0.0, 1.0, 1.999, 2.0])
def test_repeated_keys(form, beta) -> None:
    """One key throughout: β = 1 overwrites, β = 2 reflects, and neither grows."""
    generator = torch.Generator().manual_seed(2)
    lead = (1, 200, 2)
    key = torch.nn.functional.normalize(normal(generator, 1, 1, 2, K), dim=-1).expand(*lead, K)
    strength = torch.full(lead, beta, dtype=torch.float64)
    system = gated_deltanet(key, key, torch.zeros(lead, dtype=torch.float64), strength)
    tokens = normal(generator, *lead, 5)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))
    for dtype in (torch.float64, torch.float32):
        laws.forms_agree(form, system, tokens, None, dtype)
    if beta == 1.0:
        outputs, _ = run(system, tokens, form=form)
        bound = laws.error_bound(system, tokens, form=form).outputs
        require_within(outputs, tokens, bound, "what was written last is read")


@pytest.mark.parametrize("form", ["recurrent", "scan", "chunkwise", "matrix"])
@pytest.mark.parametrize("gates", list(itertools.product((1e4, -1e4, 0.0), (1e4, -1e4, 3.0))))
def test_gates_of_mlstm_of_any_size(form, gates) -> None:
    generator = torch.Generator().manual_seed(3)
    lead = (2, 40, 3)
    q, k = normal(generator, *lead, K), normal(generator, *lead, K)
    noise = [normal(generator, *lead) for _ in range(2)]
    inputs = [(n + g).requires_grad_() for n, g in zip(noise, gates, strict=True)]
    tokens = normal(generator, *lead, 5).requires_grad_()
    for dtype in (torch.float64, torch.float32):
        laws.forms_agree(form, mlstm(q, k, *inputs), tokens.detach(), None, dtype)
    outputs, state = run(mlstm(q, k, *inputs), tokens, form=form)
    for gradient in torch.autograd.grad(outputs.sum(), [*inputs, tokens]):
        assert bool(torch.isfinite(gradient).all())
    assert bool(torch.isfinite(state.memory).all())


@pytest.mark.parametrize("form", ["recurrent", "scan", "chunkwise", "matrix"])
def test_a_normaliser_of_no_values(form: str) -> None:
    """Without value channels there are no outputs, and the normaliser is what it is with some."""
    draw = torch.Generator().manual_seed(0)
    q = torch.rand(1, 4, 1, 2, generator=draw, dtype=torch.float64)
    system = linear_attention(q, q)
    outputs, state = run(system, q.new_zeros(1, 4, 1, 0), form=form)
    _, some = run(system, q.new_zeros(1, 4, 1, 3), form=form)
    assert outputs.shape == (1, 4, 1, 0) and state.memory.shape[-1] == 0
    assert state.normaliser is not None and some.normaliser is not None
    assert torch.equal(state.normaliser, some.normaliser)


def test_an_input_gate_of_minus_infinity_writes_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    lead = (1, 9, 1)
    q, k = normal(generator, *lead, K), normal(generator, *lead, K)
    closed = torch.zeros(lead, dtype=torch.float64)
    closed[:, :4] = -torch.inf
    forget, tokens = torch.full(lead, 2.0, dtype=torch.float64), normal(generator, *lead, 5)
    late, _ = run(mlstm(q[:, 4:], k[:, 4:], closed[:, 4:], forget[:, 4:]), tokens[:, 4:])
    for form in ("recurrent", "scan", "chunkwise", "matrix"):
        outputs, _ = run(mlstm(q, k, closed, forget), tokens, form=form)
        assert bool((outputs[:, :4] == 0).all()), form
        bound = laws.error_bound(mlstm(q, k, closed, forget), tokens, form=form).outputs
        require_within(outputs[:, 4:], late, 2 * bound[:, 4:], form)


# -- bad numbers ----------------------------------------------------------------------------------------

CONTAINED = [f for f in FORMS if f.name != "convolution"]


@pytest.mark.parametrize("form", CONTAINED, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("where", ["tokens", "write", "read", "transition"])
@pytest.mark.parametrize(
    "transition", ["identity", "scalar", "log diagonal", "block", "two factors"]
)
def test_a_bad_number_never_reaches_an_earlier_output(form, where, transition, monkeypatch) -> None:
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)  # several segments
    system, tokens, _ = Row(transition, "outer").draw(70, seed=7)
    if not form.admits(system) or (where == "transition" and not system.transition.leaves):
        pytest.skip("nothing to spoil")
    for at, bad in ((0, torch.nan), (20, torch.nan), (33, torch.inf), (69, torch.nan)):
        laws.past_is_untouched(form, system, tokens, where, at, bad)


@pytest.mark.parametrize("where", ["tokens", "write", "read", "transition"])
@pytest.mark.parametrize("transition", ["scalar", "diagonal", "two factors"])
def test_a_bad_number_spoils_no_more_gradients_than_in_the_recurrence(where, transition) -> None:
    """Where a loss looks at the steps before a NaN alone, gradients are NaN where those of the recurrence are."""
    system, tokens, _ = Row(transition, "outer").draw(40, seed=7)

    def spoiled(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().clone()
        x[0, 25, 0] = torch.nan
        return x

    if where == "tokens":
        tokens = spoiled(tokens)
    else:
        part = getattr(system, where)
        changed = part.map(spoiled if where != "transition" else lambda x, _: spoiled(x))
        system = system.replace(**{where: changed})
    found = [gradients_before(form, system, tokens, 25) for form in ("chunkwise", "recurrent")]
    for name, ours, theirs in zip(("tokens", "write", "read", "transition"), *found, strict=False):
        assert torch.equal(ours.isnan(), theirs.isnan()), name


def gradients_before(form, system, tokens, at: int) -> list[torch.Tensor]:
    """Gradients of every input from a loss on the first `at` steps and on the other sequences."""
    system = system.map(lambda x: x.detach().requires_grad_())
    tokens = tokens.detach().requires_grad_()
    outputs, _ = run(system, tokens, form=form)
    seen = torch.ones(outputs.shape, dtype=torch.bool)
    seen[0, at:] = False
    loss = torch.where(seen, outputs, 0).abs().square().sum()
    inputs = [tokens, *system.write.tensors, *system.read.tensors, *system.transition.leaves]
    return list(torch.autograd.grad(loss, inputs))


def test_a_bad_token_in_a_convolution() -> None:
    system, tokens, _ = Row("complex diagonal", "outer", constant=True).draw(50)
    clean, _ = run(system, tokens, form="convolution")
    spoiled = tokens.clone()
    spoiled[0, 20, 0] = torch.nan
    dirty, state = run(system, spoiled, form="convolution")
    bound = 2 * laws.error_bound(system, tokens, form="convolution").outputs
    require_within(
        dirty[0, :20], clean[0, :20], bound[0, :20].expand_as(clean[0, :20].real), "past"
    )
    require_within(dirty[1], clean[1], bound[1].expand_as(clean[1].real), "other sequence")
    assert bool(torch.isnan(dirty[0, 20:, 0]).all()) and bool(torch.isnan(state.memory[0, 0]).all())


def test_overflow_is_what_the_recurrence_says() -> None:
    """Keys of 1e25 in float32: q·k would overflow inside a chunk, the recurrence does not."""
    lead = (1, 12, 1)
    k = torch.full((*lead, 2), 1e25)
    q, v = torch.full((*lead, 2), 1e25), torch.full((*lead, 1), 1e-30)
    system = linear_attention(q, k, feature=None, normalise=False)
    outputs, _ = run(system, v, form="chunkwise")
    expected, _ = run(system, v, form="recurrent")
    assert bool(torch.isfinite(expected).all())
    bound = laws.error_bound(system, v, form="recurrent").outputs
    require_within(outputs, expected, 2 * bound, "no overflow")

    cotangents = torch.full_like(expected, 1e-26), torch.zeros(1, 1, 2, 1)

    def gradient(form: str) -> torch.Tensor:
        leaf = v.clone().requires_grad_()
        return torch.autograd.grad(run(system, leaf, form=form)[0], leaf, cotangents[0])[0]

    allowed = [
        laws.error_bound(system, v, form=form, cotangents=cotangents).gradients[-2]
        for form in ("recurrent", "chunkwise")
    ]
    slack = (allowed[0] + allowed[1]).expand_as(v)
    require_within(gradient("chunkwise"), gradient("recurrent"), slack, "gradient")


# -- long sequences -------------------------------------------------------------------------------------


def test_streaming_a_million_steps_in_constant_memory() -> None:
    """Pieces of 50 000 steps, each from the state before; memory in use does not grow with T."""
    generator = torch.Generator().manual_seed(8)
    piece, steps = 50_000, 1_000_000
    log = torch.full((1, 1, 1), -1e-4)
    state, total, sizes = None, 0, []
    while total < steps:
        k, v = torch.randn(2, 1, piece, 1, 2, generator=generator)
        system = System(Scalar.from_log(log), OuterCoupling(k), OuterCoupling(k))
        outputs, state = run(system, v, state, form="chunkwise")
        total += outputs.shape[1]
        sizes.append(held())
    assert total == steps and state is not None
    assert bool(torch.isfinite(state.memory).all())
    assert max(sizes[5:]) <= max(sizes[:5]), "tensors pile up from piece to piece"


def held() -> int:
    """Bytes of all tensors alive."""
    gc.collect()
    alive = [x for x in gc.get_objects() if type(x) is torch.Tensor]
    return sum({x.data_ptr(): x.untyped_storage().nbytes() for x in alive}.values())


@pytest.mark.parametrize("form", ["chunkwise", "scan"])
def test_backward_keeps_one_state_per_segment(form, monkeypatch) -> None:
    """What the graph saves grows linearly in T: inputs, and one memory per segment."""
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    monkeypatch.setattr("dsf.forms.scan._STATES_AT_ONCE", 1)
    saved = {}
    for length in (256, 512, 1024):
        system, tokens, state = Row("diagonal", "outer").draw(length)
        ours = laws.as_leaves(system, tokens, state)
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.append(x) or x, lambda x: x
        ):
            run(ours.system, ours.tokens, ours.state, form=form)
        saved[length] = sum({x.data_ptr(): x.numel() for x in kept}.values())
    assert saved[1024] - saved[512] <= 2.1 * (saved[512] - saved[256])


@pytest.mark.parametrize("form", ["chunkwise", "scan"])
def test_a_second_derivative_through_segments_is_that_of_the_recurrence(form, monkeypatch) -> None:
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    monkeypatch.setattr("dsf.forms.scan._STATES_AT_ONCE", 1)
    system, tokens, state = Row("diagonal", "outer").draw(256)

    def product(form: str) -> torch.Tensor:
        ours = laws.as_leaves(system, tokens, state)
        outputs, _ = run(ours.system, ours.tokens, ours.state, form=form)
        (gradient,) = torch.autograd.grad(outputs.square().sum(), ours.tokens, create_graph=True)
        return torch.autograd.grad(gradient.sum(), ours.tokens)[0]

    expected = product("recurrent")
    require_within(product(form), expected, EPSILON * expected.abs().max(), "Hessian · 1")

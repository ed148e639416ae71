"""What a system refuses, how forms are chosen, and what is said about it."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from lawbook.bits import same
from lawbook.rows import Row

import dsf
from dsf.coupling import ChannelCoupling, DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput, Refused
from dsf.forms import explain, forms, run, select
from dsf.forms.chunkwise import Chunkwise
from dsf.mixers import Recurrence, linear_attention, mlstm, retnet
from dsf.numerics import BoundExceeded, require_within, unit_roundoff
from dsf.state import State
from dsf.structure import DPLR, Dense, Diagonal, Elementwise, Identity, Scalar
from dsf.system import Normaliser, System


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape)


def outer(*shape: int) -> OuterCoupling:
    return OuterCoupling(ones(*shape))


KEYS = (2, 5, 3, 4)

BAD = {
    "axes of a coupling": (lambda: outer(2, 5, 3), ["(B, T, H, K)", "(2, 5, 3)"]),
    "axes of a transition": (
        lambda: System(Diagonal(ones(5, 4)), outer(*KEYS), outer(*KEYS)),
        ["(B, T, H)", "(5, 4)"],
    ),
    "keys of write and read": (
        lambda: System(Identity(), outer(*KEYS), outer(2, 5, 3, 7)),
        ["K = 4", "K = 7", "equal"],
    ),
    "keys of transition": (
        lambda: System(Diagonal(ones(2, 5, 3, 6)), outer(*KEYS), outer(*KEYS)),
        ["K = 6", "K = 4"],
    ),
    "lengths": (
        lambda: System(Scalar(ones(2, 6, 3)), outer(*KEYS), outer(*KEYS)),
        ["(2, 6, 3)", "(2, 5, 3)", "equal or 1"],
    ),
    "one dense coupling": (
        lambda: System(Identity(), DenseCoupling(ones(2, 5, 3, 4, 2)), outer(*KEYS)),
        ["DenseCoupling", "OuterCoupling", "both"],
    ),
    "elementwise vector state": (
        lambda: System(
            Elementwise(ones(2, 5, 3, 4, 1)),
            DenseCoupling(ones(2, 5, 3, 4, 2)),
            DenseCoupling(ones(2, 5, 3, 2, 4)),
        ),
        ["Diagonal", "Elementwise"],
    ),
    "value sizes": (
        lambda: System(
            Elementwise(ones(2, 5, 3, 4, 6)), ChannelCoupling(ones(2, 5, 3, 4, 7)), outer(*KEYS)
        ),
        ["6", "7", "V"],
    ),
    "feedthrough at the end": (
        lambda: System(
            Identity(), outer(*KEYS), outer(*KEYS), timing="end", feedthrough=Scalar(ones(1, 1, 1))
        ),
        ["end", "leave it out"],
    ),
    "feedthrough of channels": (
        lambda: System(
            Identity(), outer(*KEYS), outer(*KEYS), feedthrough=Elementwise(ones(1, 1, 1, 2, 2))
        ),
        ["value axis", "Diagonal"],
    ),
    "real part of a real system": (
        lambda: System(Identity(), outer(*KEYS), outer(*KEYS), real_part=True),
        ["real_part", "leave it out"],
    ),
    "normaliser of channels": (
        lambda: System(
            Elementwise(ones(2, 5, 3, 4, 6)), outer(*KEYS), outer(*KEYS), normaliser=Normaliser()
        ),
        ["normaliser", "Elementwise"],
    ),
    "floor": (lambda: Normaliser(floor=-1.0), ["-1.0", "positive"]),
    "log write without logarithms": (
        lambda: System(
            Scalar(ones(2, 5, 3)),
            outer(*KEYS),
            outer(*KEYS),
            normaliser=Normaliser(),
            log_write=ones(2, 5, 3),
        ),
        ["log_write", "from_log"],
    ),
    "log write without normaliser": (
        lambda: System(Identity(), outer(*KEYS), outer(*KEYS), log_write=ones(2, 5, 3)),
        ["normaliser", "quotient"],
    ),
    "boundaries": (
        lambda: System(Identity(), outer(1, 5, 3, 4), outer(1, 5, 3, 4), boundaries=(0, 4, 3, 5)),
        ["(0, 4, 3, 5)", "ascend"],
    ),
    "boundaries of a batch": (
        lambda: System(Identity(), outer(*KEYS), outer(*KEYS), boundaries=(0, 5)),
        ["B = 1", "B = 2"],
    ),
    "chunk": (lambda: Chunkwise(48), ["48", "power of two"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_systems_say_what_was_given_what_is_allowed_and_what_to_do(name: str) -> None:
    build, words = BAD[name]
    with pytest.raises(InvalidInput) as found:
        build()
    for word in words:
        assert word in str(found.value), f"{word!r} is missing in {found.value}"


WORDS = {
    "System(Identity(), b, b, timing='later')": "`timing` must be 'after', 'before' or 'end'; got 'later'",
    "s4d(x, A, A, A, discretisation='tustin')": "must be 'zoh' or 'bilinear'; got 'tustin'",
    "mlstm(k, k, x, x, forget='tanh')": "must be 'sigmoid' or 'exp'; got 'tanh'",
}


@pytest.mark.parametrize("call", WORDS)
def test_bad_words_say_what_is_allowed(call: str) -> None:
    """In a process of its own: here the annotations would speak first."""
    script = (
        "import torch; from dsf import Identity, InvalidInput, OuterCoupling, System\n"
        "from dsf.mixers import mlstm, s4d\n"
        "k, x, A = torch.ones(1, 1, 1, 1), torch.ones(1), torch.ones(1, 1) + 0j\n"
        f"b = OuterCoupling(k)\ntry: {call}\nexcept InvalidInput as error: print(error)"
    )
    script = script.replace("k, k, x, x", "k, k, k[0], k[0]")
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert WORDS[call] in said.stdout


def good() -> tuple[System, torch.Tensor]:
    return linear_attention(ones(*KEYS), ones(*KEYS)), ones(2, 5, 3, 6)


BAD_RUNS = {
    "axes": (lambda s, u: run(s, u[..., 0]), ["(B, T, H, V)", "(2, 5, 3)"]),
    "integers": (lambda s, u: run(s, u.long()), ["int64", "floating-point"]),
    "length": (lambda s, u: run(s, u[:, :4]), ["T = 4", "T = 5", "slice"]),
    "heads": (lambda s, u: run(s, u[:, :, :2]), ["(2, 5, 2)", "(2, 5, 3)"]),
    "state shape": (
        lambda s, u: run(s, u, State(ones(2, 3, 4, 5), ones(2, 3, 4))),
        ["(2, 3, 4, 6)", "(2, 3, 4, 5)"],
    ),
    "state without normaliser": (lambda s, u: run(s, u, State(ones(2, 3, 4, 6))), ["normaliser"]),
    "form": (lambda s, u: run(s, u, form="chunkwse"), ["chunkwse", "chunkwise", "recurrent"]),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_bad_runs_say_so(name: str) -> None:
    call, words = BAD_RUNS[name]
    with pytest.raises(InvalidInput) as found:
        call(*good())
    for word in words:
        assert word in str(found.value), f"{word!r} is missing in {found.value}"


REFUSALS = [
    ("scan", Row("householder", "outer"), "rank"),
    ("chunkwise", Row("diagonal", "dense"), "outer"),
    ("chunkwise", Row("elementwise", "outer"), "channel"),
    ("chunkwise", Row("dense", "outer"), "K³"),
    ("convolution", Row("diagonal", "outer"), "vary in time"),
]


@pytest.mark.parametrize(
    ("form", "row", "word"), REFUSALS, ids=lambda x: str(getattr(x, "name", x))
)
def test_a_form_refuses_with_its_reason(form: str, row: Row, word: str) -> None:
    system, tokens, _ = row.draw(6)
    with pytest.raises(Refused, match=word) as found:
        run(system, tokens, form=form)
    (choice,) = [c for c in explain(system, tokens) if c.form == form]
    assert choice.refusal == found.value.refusal and choice.refusal is not None
    assert choice.refusal.reason and choice.refusal.remedy and not choice.selected
    assert word in str(choice)


def test_selection_is_the_cheapest_that_is_admitted() -> None:
    for row in (
        Row("scalar", "outer"),
        Row("dense", "outer"),
        Row("complex diagonal", "outer", constant=True),
    ):
        for length in (1, 40, 5000):
            system, tokens, _ = row.draw(length if not row.constant else 4)
            rows = explain(system, tokens)
            costs = {c.form: c.operations for c in rows if c.operations is not None}
            assert select(system, tokens).name == min(costs, key=lambda name: costs[name])
            assert sum(c.selected for c in rows) == 1
            assert {c.form for c in rows} == {f.name for f in forms()}


def test_long_runs_are_not_run_step_by_step() -> None:
    q = torch.zeros(1, 4096, 4, 64)
    assert select(retnet(q, q), q).name == "chunkwise"


def test_half_precision_is_read_and_accumulated_in_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        q, v = ones(1, 3000, 1, 2).to(dtype), ones(1, 3000, 1, 1).to(dtype)
        outputs, state = run(linear_attention(q, q, feature=None, normalise=False), v)
        assert outputs.dtype is dtype and state.memory.dtype is torch.float32
        assert float(state.memory[0, 0, 0, 0]) == 3000.0  # bfloat16 itself would stop at 256


def test_comparisons_raise_and_never_answer() -> None:
    a = torch.zeros(3, dtype=torch.float64)
    bound = torch.full((3,), unit_roundoff(torch.float32), dtype=torch.float64)
    assert require_within(a, a, bound, "same") == 0
    for bad in (a + 1, a * torch.nan, torch.full((3,), torch.inf, dtype=torch.float64), a[:2]):
        with pytest.raises(BoundExceeded):
            require_within(bad, a, bound, "different")
    with pytest.raises(BoundExceeded):
        require_within(a + 1, a, bound * torch.nan, "a bound that is no number bounds nothing")


def test_systems_are_frozen_and_say_their_sizes() -> None:
    system, tokens = good()
    with pytest.raises(AttributeError):
        system.timing = "before"  # type: ignore[misc]
    assert (system.length, system.key_size, system.value_size, system.writes) == (5, 4, None, None)
    assert system[1:3].length == 2 and len(list(system.steps())) == 5
    with pytest.raises(InvalidInput, match="start:stop"):
        system[::2]
    with pytest.raises(InvalidInput, match="length"):
        system.expand(7)
    mixer = Recurrence(system)
    assert mixer.causal and mixer.linear_in_values and not mixer.gate_looks_ahead
    assert mixer.state_size(10) == mixer.state_size(10_000)
    assert mixer.multiply_adds(20, 6) == 2 * mixer.multiply_adds(10, 6)
    assert torch.equal(mixer(tokens), run(system, tokens)[0])


def test_separate_streams_of_memory_and_queries() -> None:
    """Cross attention: every query reads the memory after its last token."""
    generator = torch.Generator().manual_seed(0)
    k, v = (
        torch.randn(2, 9, 3, 4, generator=generator),
        torch.randn(2, 9, 3, 5, generator=generator),
    )
    q = torch.randn(2, 4, 3, 4, generator=generator)
    system = System(
        Identity(),
        OuterCoupling(k.exp()),
        OuterCoupling(q.exp()),
        timing="end",
        normaliser=Normaliser(),
    )
    weights = torch.einsum("bihk,bjhk->bhij", q.exp().double(), k.exp().double())
    expected = torch.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdim=True), v.double())
    for form in ("recurrent", "chunkwise", "scan", "matrix"):
        outputs, _ = run(system, v, form=form)
        bound = dsf.error_bound(system, v, form=form).outputs
        require_within(outputs, expected, bound, form)
    order = torch.randperm(9, generator=generator)
    mixed = system.replace(write=OuterCoupling(k.exp()[:, order]))
    bound = 2 * dsf.error_bound(system, v, form="chunkwise").outputs
    require_within(run(mixed, v[:, order], form="chunkwise")[0], expected, bound, "any order")


def test_two_factors_and_two_writes_per_step_are_two_steps() -> None:
    """DeltaProduct's step: Householder factors composed into rank two, with two writes."""
    generator = torch.Generator().manual_seed(1)
    keys = torch.nn.functional.normalize(
        torch.randn(1, 12, 2, 4, generator=generator, dtype=torch.float64), dim=-1
    )
    beta = 2 * torch.rand(1, 12, 2, generator=generator, dtype=torch.float64)
    q = torch.randn(1, 6, 2, 4, generator=generator, dtype=torch.float64)
    v = torch.randn(1, 12, 2, 3, generator=generator, dtype=torch.float64)
    factors = DPLR.householder(keys, beta)
    first, second = (factors.map(lambda x, _, i=i: x[:, i::2]) for i in (0, 1))
    written = beta[..., None] * keys
    carried = second.apply(written[:, 0::2, ..., None])[..., 0]
    writes = torch.stack([carried, written[:, 1::2]], 3)
    joined = System(dsf.compose(second, first), OuterCoupling(writes), OuterCoupling(q))
    assert isinstance(joined.transition, DPLR) and joined.transition.rank == 2
    tokens = torch.stack([v[:, 0::2], v[:, 1::2]], 3)
    micro = System(factors, OuterCoupling(written), OuterCoupling(q.repeat_interleave(2, 1)))
    expected, end = run(micro, v, form="recurrent")
    for form in ("recurrent", "chunkwise", "matrix"):
        outputs, final = run(joined, tokens, form=form)
        bound = dsf.error_bound(joined, tokens, form=form)
        slack = dsf.error_bound(micro, v, form="recurrent")
        require_within(outputs, expected[:, 1::2], bound.outputs + slack.outputs[:, 1::2], form)
        require_within(final.memory, end.memory, bound.memory + slack.memory, form)


def test_every_kernel_of_a_convolution_is_the_power_of_the_transition() -> None:
    from dsf.forms.lti import cauchy_kernel, kernel, vandermonde_kernel

    for name in (
        "scalar",
        "complex diagonal",
        "block",
        "dense",
        "two factors",
        "complex and rank one",
    ):
        system, _, _ = Row(name, "several", constant=True).draw(50)
        transition = system.transition.map(lambda leaf, _: leaf[:, 0])
        reads, writes = system.read.weights[:, 0], system.write.weights[:, 0].transpose(-1, -2)
        matrix = transition.dense(4)
        dtype = torch.promote_types(matrix.dtype, reads.dtype)
        vectors, expected = writes.to(dtype), []
        for _ in range(50):
            expected.append(reads.to(dtype) @ vectors)
            vectors = matrix.to(dtype) @ vectors
        exact = torch.stack(expected, -1)
        size = (
            torch.linalg.vector_norm(reads, dim=-1)[..., None, None]
            * torch.linalg.vector_norm(writes, dim=-2)[:, :, None, :, None]
        )
        bound = 2**12 * unit_roundoff(torch.float64) * size
        require_within(kernel(transition, reads, writes, 50), exact, bound, name)
        if isinstance(transition, DPLR):
            require_within(cauchy_kernel(transition, reads, writes, 50), exact, bound, name)
        if isinstance(transition, Diagonal):
            require_within(
                vandermonde_kernel(transition.decay, reads, writes, 50), exact, bound, name
            )
    assert isinstance(Dense(torch.eye(2)), Dense)


@pytest.mark.parametrize("again", ("copy", "file"))
def test_systems_and_states_are_copied_and_kept_in_files(again: str) -> None:
    """A run that goes on from what was kept is the run itself, bit by bit."""
    one = torch.rand(1, 6, 1, 2, generator=torch.Generator().manual_seed(0))
    system = mlstm(one, one, one[..., 0], -one[..., 1])
    state = replace(run(system, one)[1], carried={"taps": one})

    def kept(x):
        if again == "copy":
            return copy.deepcopy(x)
        torch.save(x, file := io.BytesIO())
        file.seek(0)
        return torch.load(file, weights_only=False)

    outputs, last = run(kept(system), one, kept(state))
    expected, final = run(system, one, state)
    same(outputs, expected, "outputs")
    same(last.memory, final.memory, "memory")
    same(last.carried["taps"], one, "carried")
    with pytest.raises(TypeError, match="assignment"):
        last.carried["taps"] = one

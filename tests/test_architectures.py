"""Every architecture against its paper's formula, written naively in float64; then the inherited laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from lawbook import laws
from lawbook.rows import cast
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms import forms, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.scan import Scan
from dsf.gauges import normaliser_into_state
from dsf.mixers import ARCHITECTURES, Architecture, Draw, Sample, SoftmaxAttention
from dsf.mixers.softmax_attention import Cache
from dsf.numerics import require_within
from dsf.registry import resolve
from dsf.state import State
from dsf.structure import Identity
from dsf.system import Normaliser, System

ALL: list[Architecture] = [resolve(reference) for reference in ARCHITECTURES]
FORMS = [*forms(), Chunkwise(16), Scan(segment=9)]


def draw(architecture: Architecture, length: int, seed: int = 0, batch: int = 2) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    return architecture.sample(Draw(generator, batch, length, 3, 4, 5))


# -- the formulas, naively ------------------------------------------------------------------------


def linear_attention(q, k, v):
    phi = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))  # noqa: E731
    weights = np.einsum("bihk,bjhk->bhij", phi(q), phi(k)) * np.tri(q.shape[1])
    return np.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdims=True), v)


def retnet(q, k, v):
    heads, steps = q.shape[2], np.arange(q.shape[1])
    gamma = (1 - 2.0 ** (-5 - np.arange(heads)))[:, None, None]
    decay = np.where(steps[:, None] >= steps, gamma ** np.abs(steps[:, None] - steps), 0.0)
    return np.einsum("bhij,bjhv->bihv", np.einsum("bihk,bjhk->bhij", q, k) * decay, v)


def s6(delta, A, b, c, skip, v):
    x, h, y = v[:, :, 0], np.zeros((*delta.shape[::2], A.shape[1])), np.empty_like(v)
    for i in range(delta.shape[1]):
        d = delta[:, i, :, None]
        h = np.exp(d * A) * h + d * b[:, i, None, :] * x[:, i, :, None]
        y[:, i, 0] = np.einsum("bdn,bn->bd", h, c[:, i]) + skip * x[:, i]
    return y


def s4d(step, A, b, c, skip, v):
    """Zero-order hold by the matrix exponential of the augmented system [[A, B], [0, 0]]."""
    y = np.empty_like(v)
    for h in range(A.shape[0]):
        augmented = np.block([[np.diag(A[h]), b[h][:, None]], [np.zeros((1, len(b[h]) + 1))]])
        held = scipy.linalg.expm(step[h] * augmented)
        state = np.zeros((v.shape[0], len(b[h])), dtype=complex)
        for i in range(v.shape[1]):
            state = state @ held[:-1, :-1].T + v[:, i, h] * held[:-1, -1]
            y[:, i, h, 0] = 2 * (state @ c[h]).real + skip[h] * v[:, i, h, 0]
    return y


def gated_deltanet(q, k, g, beta, v):
    S, y = np.zeros((q.shape[0], q.shape[2], q.shape[3], v.shape[3])), np.empty_like(v)
    for i in range(q.shape[1]):
        S = np.exp(g[:, i])[..., None, None] * S
        missing = v[:, i] - np.einsum("bhkv,bhk->bhv", S, k[:, i])
        S = S + beta[:, i, :, None, None] * k[:, i, :, :, None] * missing[:, :, None]
        y[:, i] = np.einsum("bhkv,bhk->bhv", S, q[:, i])
    return y


def mlstm(q, k, input_gate, forget_gate, v):
    """Without any stabiliser: fine for gates of moderate size."""
    f, i_gate = 1 / (1 + np.exp(-forget_gate)), np.exp(input_gate)
    C, n = np.zeros((q.shape[0], q.shape[2], q.shape[3], v.shape[3])), np.zeros(q[:, 0].shape)
    y = np.empty_like(v)
    for t in range(q.shape[1]):
        key = k[:, t] / np.sqrt(k.shape[-1])
        C = (
            f[:, t, :, None, None] * C
            + i_gate[:, t, :, None, None] * key[..., None] * v[:, t, :, None]
        )
        n = f[:, t, :, None] * n + i_gate[:, t, :, None] * key
        scale = np.maximum(np.abs((n * q[:, t]).sum(-1)), 1)[..., None]
        y[:, t] = np.einsum("bhkv,bhk->bhv", C, q[:, t]) / scale
    return y


NAIVE: dict[str, Callable[..., np.ndarray]] = {
    "linear-attention": linear_attention,
    "retnet": retnet,
    "s6": s6,
    "s4d": s4d,
    "gated-deltanet": gated_deltanet,
    "mlstm": mlstm,
}


@pytest.mark.parametrize("length", (1, 2, 37))
@pytest.mark.parametrize("form", forms(), ids=lambda f: f.name)
@pytest.mark.parametrize("name", NAIVE)
def test_is_the_formula_of_its_paper(name: str, form, length: int) -> None:
    (architecture,) = [a for a in ALL if a.name == name]
    sample = draw(architecture, length)
    system = architecture.build(**sample.quantities)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))
    arrays = {key: x.numpy() for key, x in sample.quantities.items()}
    expected = torch.from_numpy(NAIVE[name](**arrays, v=sample.tokens.numpy()))
    bound = 2 * laws.error_bound(system, sample.tokens, form=form).outputs
    require_within(run(system, sample.tokens, form=form)[0], expected, bound, f"{name} {form.name}")


def test_linear_attention_in_both_gauges() -> None:
    (architecture,) = [a for a in ALL if a.name == "linear-attention"]
    sample = draw(architecture, 37)
    system = architecture.build(**sample.quantities)
    arrays = {key: x.numpy() for key, x in sample.quantities.items()}
    expected = torch.from_numpy(linear_attention(**arrays, v=sample.tokens.numpy()))
    moved = normaliser_into_state(system)
    for gauge in (moved.system, moved.at_read_out()):
        for form in ("recurrent", "chunkwise", "scan"):
            bound = 8 * laws.error_bound(system, sample.tokens, form=form).outputs
            require_within(run(gauge, sample.tokens, form=form)[0], expected, bound, form)


def test_softmax_attention_and_its_cache() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 19, 3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    mixer = SoftmaxAttention(q, k)
    peer = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True
    ).transpose(1, 2)
    bound = 64 * 19 * torch.finfo(torch.float64).eps * v.abs().amax()
    require_within(mixer(v), peer, bound, "softmax")
    first, cache = SoftmaxAttention(q[:, :7], k[:, :7]).continued(v[:, :7], None)
    rest, cache = SoftmaxAttention(q[:, 7:], k[:, 7:]).continued(v[:, 7:], cache)
    assert isinstance(cache, Cache) and cache.keys.shape[1] == 19
    require_within(torch.cat([first, rest], 1), mixer(v), bound, "continued")
    refusal = mixer.system()
    assert not refusal and "infinite" in refusal.reason and refusal.remedy
    rows = mixer.matrix().sum(-1)
    require_within(
        rows, torch.ones_like(rows), torch.tensor(1e2 * torch.finfo(rows.dtype).eps), "rows"
    )


# -- what every architecture inherits -----------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", (torch.float64, torch.float32, torch.bfloat16), ids=lambda d: str(d)[6:]
)
@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_forms_agree(architecture: Architecture, form, dtype: torch.dtype) -> None:
    for length, started in ((0, True), (1, False), (50, True), (131, False)):
        sample = draw(architecture, length, seed=length)
        system = architecture.build(**sample.quantities)
        if not form.admits(system):
            continue
        state = run(system, sample.tokens)[1] if started else None
        laws.forms_agree(form, system, sample.tokens, state, dtype)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_whole_is_split_is_step(architecture: Architecture, form) -> None:
    sample = draw(architecture, 41, seed=1)
    system = architecture.build(**sample.quantities)
    for cuts in ([17], [1, 2, 40], list(range(1, 41)), [0, 20, 20]):
        if form.admits(system):
            laws.split_is_whole(form, system, sample.tokens, None, cuts)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_decoding_continues_a_prefill_of_another_form(architecture: Architecture, dtype) -> None:
    sample = draw(architecture, 40, seed=2)
    system = architecture.build(**sample.quantities).map(lambda x: cast(x, dtype))
    tokens = cast(sample.tokens, dtype)
    whole, _ = run(system, tokens, form="recurrent")
    _, state = run(system[:30], tokens[:, :30])
    assert state.memory.dtype.to_real() is torch.float32
    steps = []
    for t in range(30, 40):
        step, state = run(system[t : t + 1], tokens[:, t : t + 1], state, form="recurrent")
        steps.append(step)
    bound = 2 * sum(
        laws.error_bound(system, tokens, form=f).outputs
        for f in ("recurrent", *(f.name for f in forms() if f.admits(system)))
    )
    require_within(torch.cat(steps, 1), whole[:, 30:], bound[:, 30:], architecture.name)


def small(architecture: Architecture) -> tuple[Sample, list[str]]:
    generator = torch.Generator().manual_seed(5)
    sample = architecture.sample(Draw(generator, 1, 5, 1, 2, 2))
    return sample, list(sample.quantities)


@pytest.mark.parametrize(
    "form", [*forms(), Chunkwise(2), Scan(segment=2)], ids=lambda f: repr(f).lower()
)
@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_gradients_by_differences(architecture: Architecture, form, monkeypatch) -> None:
    """gradcheck through quantities, tokens and start state; segments are made short on purpose."""
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    sample, names = small(architecture)
    system = architecture.build(**sample.quantities)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))
    _, start = run(system, sample.tokens, form="recurrent")
    parts = [x for x in (start.memory, start.normaliser) if x is not None]

    def function(tokens: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        quantities = dict(zip(names, rest[: len(names)], strict=True))
        state = State(*rest[len(names) :], stabiliser=start.stabiliser)
        outputs, final = run(architecture.build(**quantities), tokens, state, form=form)
        return outputs, final.true_memory()

    inputs = [
        x.detach().clone().requires_grad_()
        for x in (sample.tokens, *sample.quantities.values(), *parts)
    ]
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_second_derivatives_of_the_recurrent_form(architecture: Architecture) -> None:
    sample, names = small(architecture)

    def function(tokens: Tensor, *rest: Tensor) -> Tensor:
        system = architecture.build(**dict(zip(names, rest, strict=True)))
        return run(system, tokens, form="recurrent")[0]

    inputs = [
        x.detach().clone().requires_grad_() for x in (sample.tokens, *sample.quantities.values())
    ]
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_sequences_do_not_see_each_other(architecture: Architecture) -> None:
    """Batch independence, bit by bit within a form."""
    sample = draw(architecture, 33, seed=6)
    system = architecture.build(**sample.quantities)
    for form in forms():
        if not form.admits(system):
            continue
        outputs, _ = run(system, sample.tokens, form=form)
        other = sample.tokens.clone()
        other[1] = -other[1]
        moved, _ = run(system, other, form=form)
        assert torch.equal(moved[0], outputs[0]), form.name


def test_aaren_is_a_row_of_softmax() -> None:
    """A fixed query: scores s_j of any size, normaliser without floor, stabilised by the maximum."""
    generator = torch.Generator().manual_seed(7)
    scores = 300 * torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    v = torch.randn(2, 30, 3, 5, generator=generator, dtype=torch.float64)
    one = OuterCoupling(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    system = System(Identity(), one, one, normaliser=Normaliser(), log_write=scores)
    rows = scores.movedim(1, 2)[:, :, None, :].expand(2, 3, 30, 30)
    ahead = torch.ones(30, 30).triu(1).bool()
    expected = torch.einsum(
        "bhij,bjhv->bihv", torch.softmax(rows.masked_fill(ahead, -torch.inf), -1), v
    )
    for form in ("recurrent", "scan", "chunkwise", "matrix"):
        outputs, state = run(system, v, form=form)
        bound = 2 * laws.error_bound(system, v, form=form).outputs
        require_within(outputs, expected, bound, form)
        laws.split_is_whole(form, system, v, None, [11, 12])
        assert state.stabiliser is not None
        assert torch.equal(state.stabiliser, scores.amax(1))

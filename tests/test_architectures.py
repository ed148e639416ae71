"""Every architecture against its paper's formula, written naively in float64; then the inherited laws."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lawbook import laws
from lawbook.formulas import NAIVE, linear_attention
from lawbook.rows import cast
from lawbook.spanning import name_of, spanning
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms import forms, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.scan import Scan
from dsf.gauges import normaliser_into_state
from dsf.mixers import ARCHITECTURES, Architecture, Draw, Sample, SoftmaxAttention
from dsf.mixers.capabilities import capabilities
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


NAMES = {a.name: a for a in ALL}


@functools.cache
def built(name: str, length: int, seed: int = 0) -> tuple[Sample, System]:
    sample = draw(NAMES[name], length, seed)
    return sample, NAMES[name].build(**sample.quantities)


@functools.cache
def refused(name: str, form) -> bool:
    return not form.admits(built(name, 2)[1])


def test_every_architecture_has_its_formula() -> None:
    assert list(NAIVE) == list(NAMES)


@pytest.mark.parametrize("name", NAIVE)
def test_is_the_formula_of_its_paper(name: str) -> None:
    for length in (1, 2, 37):
        sample, system = built(name, length)
        for form in forms():
            if not refused(name, form):
                laws.is_formula(NAIVE[name], system, sample, form.name)


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


DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16}
CUTS = {"halves": [17], "ragged": [1, 2, 40], "steps": list(range(1, 41)), "empty": [0, 20, 20]}
FACTORS = {
    "architecture": tuple(NAMES),
    "form": FORMS,
    "dtype": tuple(DTYPES),
    "length": (0, 1, 50, 131),
    "started": (True, False),
    "cuts": tuple(CUTS),
}


def possible(row) -> bool:
    return not refused(row["architecture"], row["form"])


ROWS = spanning(FACTORS, possible)


def check_forms(row) -> None:
    sample, system = built(row["architecture"], row["length"], row["length"])
    state = run(system, sample.tokens)[1] if row["started"] else None
    laws.forms_agree(row["form"], system, sample.tokens, state, DTYPES[row["dtype"]])


def check_split(row) -> None:
    sample, system = built(row["architecture"], 41, 1)
    laws.split_is_whole(row["form"], system, sample.tokens, None, CUTS[row["cuts"]])


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_forms_agree_and_whole_is_split(row) -> None:
    check_forms(row)
    check_split(row)


@pytest.mark.full
@pytest.mark.parametrize("length", FACTORS["length"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("name", NAMES)
def test_forms_agree_for_all(name, form, dtype, length) -> None:
    row = {"architecture": name, "form": form, "dtype": dtype, "length": length}
    if possible(row):
        for started in (True, False):
            check_forms(row | {"started": started})


@pytest.mark.full
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("name", NAMES)
def test_whole_is_split_for_all(name, form, cuts) -> None:
    if not refused(name, form):
        check_split({"architecture": name, "form": form, "cuts": cuts})


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


SHORT = [*forms(), Chunkwise(2), Scan(segment=2)]


def check_gradients(architecture: Architecture, form) -> None:
    """gradcheck through quantities, tokens and start state."""
    sample, names = small(architecture)
    system = architecture.build(**sample.quantities)
    if not form.admits(system):
        return
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
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("turn", range(len(ALL)), ids=lambda i: ALL[i].name)
def test_gradients_by_differences(turn: int, monkeypatch) -> None:
    """The recurrent form and another in turn; segments are made short on purpose."""
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    admitting = [f for f in SHORT[1:] if not refused(ALL[turn].name, f)]
    for form in (SHORT[0], admitting[turn % len(admitting)]):
        check_gradients(ALL[turn], form)


@pytest.mark.full
@pytest.mark.parametrize("form", SHORT, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_gradients_by_differences_for_all(architecture, form, monkeypatch) -> None:
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    check_gradients(architecture, form)


@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_second_derivatives_of_the_recurrent_form(architecture: Architecture) -> None:
    sample, names = small(architecture)

    def function(tokens: Tensor, *rest: Tensor) -> Tensor:
        system = architecture.build(**dict(zip(names, rest, strict=True)))
        return run(system, tokens, form="recurrent")[0]

    inputs = [
        x.detach().clone().requires_grad_() for x in (sample.tokens, *sample.quantities.values())
    ]
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


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


def test_the_pages_are_what_the_code_says() -> None:
    script = Path(__file__).parents[1] / "docs" / "tools" / "architecture_pages.py"
    ran = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr + "run: python docs/tools/architecture_pages.py"


CAN = {
    "retnet": ("Scalar", True, True, ()),
    "gated-deltanet": ("Scalar + rank 1", False, False, ("negative",)),
    "s4d": ("complex Diagonal", True, True, ("complex",)),
    "delta-product": ("Scalar + rank 2", False, False, ("negative", "complex")),
}


@pytest.mark.parametrize("name", CAN)
def test_capabilities_are_those_known_by_theory(name: str) -> None:
    """Householder products of two turn the plane; one reflects; decays do neither."""
    found = capabilities(next(one for one in ALL if one.name == name))
    assert (found.structure, found.time_invariant, found.closed, found.eigenvalues) == CAN[name]

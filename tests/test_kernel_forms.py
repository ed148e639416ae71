"""Kernels as forms where there is no GPU: refusals, and what the forms make of systems, by the operators of the CPU."""

from __future__ import annotations

import pytest
import torch
from lawbook import laws
from lawbook.kernels import (
    GatedScanHere,
    ScalarDecayHere,
    SelectiveScanHere,
    core_alone,
    drawn,
    gradients_of_decay_agree,
)
from lawbook.rows import ROWS, Row
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms import run
from dsf.kernels.decay import scalar_form
from dsf.kernels.decay.scalar_form import ScalarDecay
from dsf.kernels.delta.form import Delta
from dsf.kernels.scans.channel_form import GatedScan
from dsf.kernels.scans.selective_form import SelectiveScan
from dsf.mixers import ARCHITECTURES, Architecture, retnet
from dsf.registry import resolve
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Scalar
from dsf.system import System

ALL: list[Architecture] = [resolve(reference) for reference in ARCHITECTURES]
HERE = (ScalarDecayHere(), GatedScanHere(), SelectiveScanHere())
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LENGTHS = (0, 1, 7, 33)


@pytest.mark.parametrize("form", HERE, ids=lambda form: form.name)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_outputs_and_states(form, row: Row) -> None:
    place = ROWS.index(row)
    for turn, length in enumerate(LENGTHS):
        system, tokens, state = row.draw(length, seed=length)
        if form.admits(system):
            laws.forms_agree(form, system, tokens, state, DTYPES[(turn + place) % 4])


@pytest.mark.parametrize("form", HERE, ids=lambda form: form.name)
@pytest.mark.parametrize("timing", ["before", "end"])
@pytest.mark.parametrize("transition", ["identity", "log scalar", "diagonal", "elementwise"])
def test_timing(form, timing: str, transition: str) -> None:
    coupling = "channel" if transition == "elementwise" else "outer"
    for length in LENGTHS:
        system, tokens, state = Row(transition, coupling, options={"timing": timing}).draw(length)
        if form.admits(system):
            laws.forms_agree(form, system, tokens, state, torch.float32)


@pytest.mark.parametrize("transition", ["identity", "log scalar"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_of_scalar_decay(transition: str, dtype: torch.dtype) -> None:
    for length in (1, 9, 40):
        system, tokens, state = Row(transition, "outer").draw(length, seed=length)
        gradients_of_decay_agree(ScalarDecayHere(), system, tokens, state, dtype)


def test_gradients_of_decays_that_are_values() -> None:
    draw = torch.Generator().manual_seed(1)
    q, k, v, state = (
        torch.randn(2, size, 2, 3, generator=draw, dtype=torch.float64) for size in (9, 9, 9, 2)
    )
    gates = 0.1 + 0.9 * torch.rand(2, 9, 2, generator=draw, dtype=torch.float64)
    system = System(Scalar(gates), OuterCoupling(k), OuterCoupling(q))
    start = State(state[..., None].expand(-1, -1, -1, -1, 3)[:, 0])
    gradients_of_decay_agree(ScalarDecayHere(), system, v, start, torch.float64)


SCANS = [
    *((GatedScanHere(), row) for row in ROWS if row.coupling == "dense"),
    *((SelectiveScanHere(), Row("elementwise", "outer", constant)) for constant in (False, True)),
]


@pytest.mark.parametrize(("form", "row"), SCANS, ids=lambda each: each.name)
def test_gradients_of_scans(form, row: Row) -> None:
    for length, dtype in ((0, torch.float32), (1, torch.float64), (37, torch.float32)):
        system, tokens, state = row.draw(length, seed=length)
        if form.admits(system):
            laws.gradients_agree(form, system, tokens, state, dtype)


ADMITTED = {
    "triton-scalar-decay": "linear-attention retnet lightning ssd mlstm aaren",
    "triton-gated-scan": "rg-lru mingru minlstm qlstm rwkv4 s5 lru aaren",
    "triton-selective-scan": "s6",
}


@pytest.mark.parametrize("form", HERE, ids=lambda form: form.name)
@pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)
def test_architectures_run_or_are_refused(form, architecture: Architecture) -> None:
    """Outputs and states of the whole run, and gradients of the recurrence that the form is given."""
    system, tokens, state = drawn(architecture, 11)
    if not form.admits(system):
        assert architecture.name not in ADMITTED[form.name].split()
        return
    laws.forms_agree(form, system, tokens, state, torch.float32)
    gradients = laws.gradients_agree
    if isinstance(form, ScalarDecayHere):
        gradients = gradients_of_decay_agree
    core = core_alone(system, tokens, state)
    if form.admits(laws.as_leaves(*core).system):
        gradients(form, *core, torch.float32)
    else:  # its first decay is a value, and zero
        assert (architecture.name, form.name) == ("rwkv4", "triton-scalar-decay")
    missing = set(ADMITTED[form.name].split()) - {each.name for each in ALL}
    assert not missing


def given(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, 3, 4, generator=draw, dtype=dtype) for _ in range(3))
    return q, k, v


def test_heads_that_share_a_key_are_not_copied(monkeypatch) -> None:
    """What all heads read is handed to the kernel once, and gets the gradient of all."""
    seen, operator = [], scalar_form.scalar_decay

    def watched(q, k, v, g, state):
        seen.append([x.shape[2] for x in (q, k, v)])
        return operator(q, k, v, g, state)

    monkeypatch.setattr(scalar_form, "scalar_decay", watched)
    q, k, v = given(torch.float64)
    key = k[:, :, :1].clone().requires_grad_()
    found = []
    for form in (ScalarDecayHere(), "recurrent"):
        system = retnet(q, key.expand(-1, -1, 3, -1))
        outputs, _ = run(system, v, form=form)
        found.append((outputs, *torch.autograd.grad(outputs.sum(), key)))
    assert seen == [[3, 1, 3]]
    seeds = torch.ones_like(v), torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    limits = laws.error_bound(system, v, form="chunkwise", cotangents=seeds)
    laws.require_within(found[0][0], found[1][0], 2 * limits.outputs, "outputs")
    of_key = limits.gradients[1].sum(2, keepdim=True)
    laws.require_within(found[0][1], found[1][1], 2 * of_key, "gradient of the shared key")


def test_the_gated_scan_keeps_no_states_of_many_keys() -> None:
    q, k, _ = given()
    outer = OuterCoupling(k), OuterCoupling(q)
    assert "K = 4 keys" in refused(GatedScanHere(), System(Diagonal.from_log(-k.abs()), *outer))
    mixed = System(DPLR.householder(k, k[..., 0]), *outer)
    assert "mixes keys" in refused(GatedScanHere(), mixed)
    one = System(Scalar.from_log(-k[..., 0].abs()), *(OuterCoupling(x[..., :1]) for x in (k, q)))
    assert "not on a GPU" in refused(GatedScan(), one)


def test_the_selective_scan_reads_once_what_channels_share() -> None:
    drawn_one = Row("elementwise", "channel").draw(5)[0]
    assert "share" in refused(SelectiveScanHere(), drawn_one)
    outer = drawn_one.replace(read=OuterCoupling(drawn_one.read.weights[..., 0]))
    assert SelectiveScanHere().admits(outer) and "not on a GPU" in refused(SelectiveScan(), outer)
    turned = outer.map(lambda x: x + 0j)
    assert "complex" in refused(SelectiveScanHere(), turned)
    gla = Row("diagonal", "outer").draw(5)[0]
    assert "each key and value channel" in refused(SelectiveScanHere(), gla)


def refused(form, system: System) -> str:
    answer = form.admits(system)
    assert not answer and answer.what == form.name and answer.remedy
    return answer.reason


def test_scalar_decay_refuses_what_has_no_logarithm() -> None:
    q, k, _ = given()
    decay = torch.full((2, 9, 3), 0.5)
    decay[0, 4, 1] = -0.5
    outer = OuterCoupling(k), OuterCoupling(q)
    assert "negative" in refused(ScalarDecayHere(), System(Scalar(decay), *outer))
    decay[0, 4, 1] = 0.0
    assert ScalarDecayHere().admits(System(Scalar(decay), *outer))
    told = System(Scalar(decay.requires_grad_()), *outer)
    assert "gradient" in refused(ScalarDecayHere(), told)


class OnGpu(Tensor):
    """A tensor of the CPU that says it is on a GPU, to see what is asked after that."""

    is_cuda = True


def test_float64_is_refused_on_a_gpu() -> None:
    q, k, _ = given(torch.float64)
    system = System(Scalar.from_log(-q[..., 0].abs()), OuterCoupling(k), OuterCoupling(q))
    object.__setattr__(system.write, "weights", system.write.weights.as_subclass(OnGpu))
    assert "float32" in refused(ScalarDecay(), system)


def test_the_delta_form_refuses_what_every_kernel_does() -> None:
    """A gate of zero has no gradient through its logarithm; tensors of the CPU are for other forms."""

    class DeltaHere(Delta):
        def cannot_run(self, system: System, remedy: str) -> None:
            return None

    one = torch.ones(1, 3, 1, 2)
    outer = OuterCoupling(one), OuterCoupling(one)

    def rule(gate: Tensor) -> System:
        return System(DPLR(Scalar(gate), -0.5 * one[..., None], one[..., None]), *outer)

    zero = torch.tensor([1.0, 0.0, 1.0]).reshape(1, 3, 1)
    assert DeltaHere().admits(rule(zero)) is True
    assert "does not pass through its logarithm" in refused(
        DeltaHere(), rule(zero.requires_grad_())
    )
    assert "not on a GPU" in refused(Delta(), rule(torch.ones(1, 3, 1)))

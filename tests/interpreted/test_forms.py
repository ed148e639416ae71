"""Kernels as forms of `dsf.run`, with their programs interpreted: the systems of whole architectures."""

from __future__ import annotations

from dataclasses import replace

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
from torch import Tensor

from dsf.coupling import ChannelCoupling, OuterCoupling
from dsf.forms import run
from dsf.forms.base import Form
from dsf.forms.bounds import error_bound
from dsf.kernels.decay import scalar, scalar_form, segments
from dsf.kernels.scans import (
    channel,
    channel_form,
    elementwise,
    selective,
    selective_form,
)
from dsf.mixers.aaren import AAREN
from dsf.mixers.architecture import Architecture
from dsf.mixers.lightning import LIGHTNING
from dsf.mixers.linear_attention import LINEAR_ATTENTION
from dsf.mixers.lru import LRU
from dsf.mixers.mingru import MINGRU
from dsf.mixers.minlstm import MINLSTM
from dsf.mixers.mlstm import MLSTM
from dsf.mixers.qlstm import QLSTM
from dsf.mixers.retnet import RETNET
from dsf.mixers.rg_lru import RG_LRU
from dsf.mixers.rwkv4 import RWKV4
from dsf.mixers.s5 import S5
from dsf.mixers.s6 import S6, s6
from dsf.mixers.ssd import SSD
from dsf.numerics import require_within
from dsf.state import State
from dsf.structure import Elementwise
from dsf.system import System


class ScalarDecayPrograms(torch.autograd.Function):
    """`scalar_decay` through the interpreted programs, time cut in segments of 8 steps or not."""

    steps: int | None = None

    @staticmethod
    def forward(ctx, q, k, v, g, state):
        x = scalar.Quantities.of(q, k, v, g, state, 1.0, None)
        o, final = scalar.forward(x, steps=ScalarDecayPrograms.steps)
        ctx.save_for_backward(q, k, v, g, state)
        return o, final

    @staticmethod
    def backward(ctx, do, dfinal):
        x = scalar.Quantities.of(*ctx.saved_tensors, 1.0, None)
        return scalar.backward(x, do, dfinal, steps=ScalarDecayPrograms.steps)


SCALAR = (LINEAR_ATTENTION, RETNET, LIGHTNING, SSD, MLSTM, AAREN)


CASES = [*((each, None) for each in SCALAR), (SSD, 8), (MLSTM, 8)]


@pytest.mark.parametrize(("architecture", "steps"), CASES, ids=lambda x: getattr(x, "name", str(x)))
def test_scalar_decay_runs(architecture: Architecture, steps: int | None, monkeypatch) -> None:
    """Outputs and states of the whole run, and all gradients of the recurrence in it."""
    monkeypatch.setattr(scalar_form, "scalar_decay", ScalarDecayPrograms.apply)
    monkeypatch.setattr(ScalarDecayPrograms, "steps", steps)
    form, (system, tokens, state) = ScalarDecayHere(), drawn(architecture)
    laws.forms_agree(form, system, tokens, state, torch.float32)
    gradients_of_decay_agree(form, *core_alone(system, tokens, state), torch.float32)


class GatedScanPrograms(torch.autograd.Function):
    """`gated_scan` through the interpreted programs."""

    @staticmethod
    def forward(ctx, a, b, state):
        h, final = channel.forward(channel.Quantities.of(a, b, state, None))
        ctx.save_for_backward(a, b, state, h)
        return h, final

    @staticmethod
    def backward(ctx, dh, dfinal):
        a, b, state, h = ctx.saved_tensors
        return channel.backward(channel.Quantities.of(a, b, state, None), h, dh, dfinal)


GATED = (RG_LRU, MINGRU, MINLSTM, QLSTM, RWKV4, S5, LRU)


@pytest.mark.parametrize("architecture", GATED, ids=lambda a: a.name)
def test_gated_scan_runs(architecture: Architecture, monkeypatch) -> None:
    monkeypatch.setattr(channel_form, "gated_scan", GatedScanPrograms.apply)
    form, (system, tokens, state) = GatedScanHere(), drawn(architecture)
    laws.forms_agree(form, system, tokens, state, torch.float32)
    laws.gradients_agree(form, *core_alone(system, tokens, state), torch.float32)


class SelectiveScanPrograms(torch.autograd.Function):
    """`elementwise_scan` through the interpreted programs."""

    @staticmethod
    def forward(ctx, x, a, w, c, state, starts=None):
        y, final, kept = elementwise.forward(elementwise.Quantities.of(x, a, w, c, state, starts))
        ctx.save_for_backward(x, a, w, c, state, kept)
        ctx.starts = starts
        return y, final

    @staticmethod
    def backward(ctx, dy, dfinal):
        *inputs, kept = ctx.saved_tensors
        q = elementwise.Quantities.of(*inputs, ctx.starts)
        return (*elementwise.backward(q, kept, dy, dfinal), None)


class FactorsPrograms(torch.autograd.Function):
    """`selective_scan` through the interpreted programs."""

    runs = 0

    @staticmethod
    def forward(ctx, x, delta, A, b, c, state):
        FactorsPrograms.runs += 1
        skip = A.new_zeros(len(A))
        quantities = selective.Quantities.of(x, delta, A, b, c, state, skip, None)
        y, final, kept = selective.forward(quantities)
        ctx.save_for_backward(x, delta, A, b, c, state, kept)
        return y, final

    @staticmethod
    def backward(ctx, dy, dfinal):
        x, delta, A, b, c, state, kept = ctx.saved_tensors
        skip = A.new_zeros(len(A))
        quantities = selective.Quantities.of(x, delta, A, b, c, state, skip, None)
        return selective.backward(quantities, kept, dy, dfinal)[:6]


@pytest.mark.parametrize("whole", [True, False])
def test_selective_scan_runs_s6(whole: bool, monkeypatch) -> None:
    """In its factors, and with its gates and writes made before the run."""
    monkeypatch.setattr(selective_form, "elementwise_scan", SelectiveScanPrograms.apply)
    monkeypatch.setattr(selective_form, "selective_scan", FactorsPrograms.apply)
    monkeypatch.setattr(FactorsPrograms, "runs", 0)
    form, (system, tokens, state) = SelectiveScanHere(), drawn(S6)
    if whole:
        parts = {"transition": system.transition.whole(), "write": system.write.whole()}
        system = replace(system, **parts)
    laws.forms_agree(form, system, tokens, state, torch.float32)
    laws.gradients_agree(form, *core_alone(system, tokens, state), torch.float32)
    assert bool(FactorsPrograms.runs) != whole


def test_the_factors_of_s6_have_their_gradients(monkeypatch) -> None:
    """Δ decays and writes: its gradient is the sum of both, as in the recurrence; likewise those of A, b and c."""
    monkeypatch.setattr(selective_form, "selective_scan", FactorsPrograms.apply)
    monkeypatch.setattr(FactorsPrograms, "runs", 0)
    draw = torch.Generator().manual_seed(5)
    delta, b, c, x = (torch.rand(2, 19, size, generator=draw) for size in (5, 3, 3, 5))
    given = {"delta": delta, "A": -torch.rand(5, 3, generator=draw), "b": b, "c": c}
    tokens, seed = x[:, :, None], torch.randn(2, 19, 1, 5, generator=draw)

    def gradients(form: Form, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = {name: each.to(dtype).requires_grad_() for name, each in given.items()}
        outputs = run(s6(**leaves), tokens.to(dtype), form=form)[0]
        return torch.autograd.grad(outputs, list(leaves.values()), seed.to(dtype))

    form, system = SelectiveScanHere(), s6(**given)
    found, exact = gradients(form, torch.float32), gradients(laws.EXACT, torch.float64)
    assert FactorsPrograms.runs
    zero = torch.zeros(2, 1, 3, 5)
    limits = error_bound(system, tokens, State(zero), form=form, cotangents=(seed, zero))
    of_step, of_rate, of_keys, of_gains, of_read = limits.gradients[:5]
    of_delta = of_step[:, :, 0, 0] + of_gains[:, :, 0]
    bounds = (of_delta, of_rate.sum((0, 1, 2)).T, of_keys[:, :, 0], of_read[:, :, 0])
    for name, one, other, bound in zip(given, found, exact, bounds, strict=True):
        require_within(one, other, 2 * bound, f"gradient of {name}")


def test_a_delta_that_writes_alone_is_not_that_of_the_gates(monkeypatch) -> None:
    """Equal numbers with gradients of their own run with gates whole."""
    monkeypatch.setattr(selective_form, "elementwise_scan", SelectiveScanPrograms.apply)
    monkeypatch.setattr(selective_form, "selective_scan", FactorsPrograms.apply)
    monkeypatch.setattr(FactorsPrograms, "runs", 0)
    system, tokens, state = drawn(S6)
    leaves = laws.as_leaves(replace(system, feedthrough=None), tokens, state)
    outputs = run(leaves.system, leaves.tokens, leaves.state, form=SelectiveScanHere())[0]
    found = torch.autograd.grad(outputs.sum(), leaves.tensors)
    assert all(bool(x.abs().sum() > 0) for x in found) and not FactorsPrograms.runs


@pytest.mark.parametrize("segment", [None, 16], ids=["one walk", "in segments"])
@pytest.mark.parametrize(
    ("heads", "keys", "values", "length"),
    [(3, 3, 5, 1), (1, 9, 7, 18), (2, 1, 2, 0), (1, 2, 3, 50)],
)
def test_selective_scan_runs_any_elementwise_gate(
    heads: int, keys: int, values: int, length: int, segment: int | None, monkeypatch
) -> None:
    """Gates of either sign and exact zeros; sizes that are no powers of two; several tiles of channels."""
    if segment is not None:
        monkeypatch.setattr(segments, "steps_of_segment", lambda *_: segment)
    monkeypatch.setattr(selective_form, "elementwise_scan", SelectiveScanPrograms.apply)
    draw = torch.Generator().manual_seed(heads)
    gates = 2 * torch.rand(1, length, heads, keys, values, generator=draw) - 1
    gates[torch.rand(gates.shape, generator=draw) < 0.1] = 0.0
    write = torch.randn(gates.shape, generator=draw)
    read = torch.randn(1, length, heads, keys, generator=draw)
    system = System(Elementwise(gates), ChannelCoupling(write), OuterCoupling(read))
    tokens = torch.randn(1, length, heads, values, generator=draw)
    state = State(torch.randn(1, heads, keys, values, generator=draw))
    laws.forms_agree(SelectiveScanHere(), system, tokens, state, torch.float32)
    laws.gradients_agree(SelectiveScanHere(), system, tokens, state, torch.float32)


def test_packed_elementwise_sequences_are_each_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = [(1, 21, 2, 3), (1, 21, 2, 3, 3), (1, 21, 2, 3, 3), (1, 21, 2, 3), (3, 2, 3, 3)]
    leaves = [torch.randn(size, generator=draw).requires_grad_() for size in sizes]
    starts = torch.tensor([0, 17, 17, 21])
    y, final = SelectiveScanPrograms.apply(*leaves, starts)
    ups = [torch.randn(x.shape, generator=draw) for x in (y, final)]
    whole = torch.autograd.grad((y, final), leaves, ups)
    for n, (start, stop) in enumerate(((0, 17), (17, 17), (17, 21))):
        cut = slice(start, stop)
        own = [x[:, cut].detach().requires_grad_() for x in leaves[:4]]
        own.append(leaves[4][n : n + 1].detach().requires_grad_())
        found, last = SelectiveScanPrograms.apply(*own)
        assert torch.equal(found, y[:, cut]) and torch.equal(last, final[n : n + 1])
        alone = torch.autograd.grad((found, last), own, (ups[0][:, cut], ups[1][n : n + 1]))
        for one, other in zip(alone[:4], whole[:4], strict=True):
            assert torch.equal(one, other[:, cut])
        assert torch.equal(alone[4], whole[4][n : n + 1])

"""Kernels as forms of `dsf.run`, with their programs interpreted: the systems of whole architectures."""

from __future__ import annotations

import pytest
import torch
from lawbook import laws
from lawbook.kernels import ScalarDecayHere, core_alone, gradients_of_decay_agree
from lawbook.rows import cast
from torch import Tensor

from dsf.forms import run
from dsf.kernels.decay import scalar, scalar_form
from dsf.mixers.aaren import AAREN
from dsf.mixers.architecture import Architecture, Draw
from dsf.mixers.lightning import LIGHTNING
from dsf.mixers.linear_attention import LINEAR_ATTENTION
from dsf.mixers.mlstm import MLSTM
from dsf.mixers.retnet import RETNET
from dsf.mixers.ssd import SSD
from dsf.state import State
from dsf.system import System


def drawn(architecture: Architecture) -> tuple[System, Tensor, State]:
    """A system of 19 steps, its tokens and the state after another run, in float32."""
    draw = Draw(torch.Generator().manual_seed(3), batch=2, length=19, heads=2, keys=5, values=6)
    sample = architecture.sample(draw)
    system = architecture.build(**sample.quantities)
    _, state = run(system, sample.tokens.flip(1), form="recurrent")
    narrow = torch.float32
    return (
        system.map(lambda x: cast(x, narrow)),
        cast(sample.tokens, narrow),
        state.map(lambda x: cast(x, narrow)),
    )


class ScalarDecayPrograms(torch.autograd.Function):
    """`scalar_decay` through the interpreted programs, time cut in segments of 8 steps or not."""

    steps: int | None = None

    @staticmethod
    def forward(ctx, q, k, v, g, state):
        x = scalar.Quantities.of(q, k, v, g, state, 1.0, None)
        o, final = scalar.forward(x, steps=ScalarDecayPrograms.steps)
        ctx.save_for_backward(q, k, v, g, state, final)
        return o, final

    @staticmethod
    def backward(ctx, do, dfinal):
        *inputs, final = ctx.saved_tensors
        x = scalar.Quantities.of(*inputs, 1.0, None)
        return scalar.backward(x, do, dfinal, final, steps=ScalarDecayPrograms.steps)


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

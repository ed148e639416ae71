"""Kernels as forms where there is no GPU: the check of the device relaxed, and what their gradients may be off by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.forms.bounds import Bounds, error_bound
from dsf.forms.lowering import lower
from dsf.kernels.decay.scalar_form import ScalarDecay
from dsf.kernels.scans.channel_form import GatedScan
from dsf.kernels.scans.selective_form import SelectiveScan
from dsf.mixers.architecture import Architecture, Draw
from dsf.numerics import require_within
from dsf.state import State
from dsf.structure import Identity
from dsf.structure.gates import Gate
from dsf.system import System

from . import laws
from .rows import cast, wide


@dataclass(frozen=True)
class ScalarDecayHere(ScalarDecay):
    """Scalar decay wherever the tensors are."""

    def cannot_run(self, system: System, remedy: str) -> None:
        return None


@dataclass(frozen=True)
class GatedScanHere(GatedScan):
    """The gated scan wherever the tensors are."""

    def cannot_run(self, system: System, remedy: str) -> None:
        return None


@dataclass(frozen=True)
class SelectiveScanHere(SelectiveScan):
    """The selective scan wherever the tensors are."""

    def cannot_run(self, system: System, remedy: str) -> None:
        return None


def drawn(
    architecture: Architecture, length: int = 19, dtype: torch.dtype = torch.float32
) -> tuple[System, Tensor, State]:
    """A system, its tokens, and the state that a run backwards in time leaves."""
    draw = Draw(torch.Generator().manual_seed(3), 2, length, 2, 6, 5)
    sample = architecture.sample(draw)
    system = architecture.build(**sample.quantities)
    _, state = laws.run(system, sample.tokens.flip(1), form=laws.EXACT)
    return (
        system.map(lambda x: cast(x, dtype)),
        cast(sample.tokens, dtype),
        state.map(lambda x: cast(x, dtype)),
    )


def core_alone(system: System, tokens: Tensor, state: State) -> tuple[System, Tensor, State]:
    """The recurrence that a form is given, as a system: normaliser and stabiliser lowered away."""
    core = lower(system, tokens, state).core
    memory = core.memory[..., 0] if system.is_vector else core.memory
    plain = System(core.transition, core.write, core.read)
    return plain.expand(core.length), core.tokens, State(memory)


def of_differences(limits: Bounds, system: System, of_memory: Tensor) -> Tensor:
    """The bound of a log-decay's gradient Σ_{s≥t} (⟨q, dq⟩ - ⟨k, dk⟩) + ⟨dS_T, S_T⟩: a sum of theirs."""
    of_gate, of_write, of_read = limits.gradients[:3]
    each = system.read.weights.abs() * of_read + system.write.weights.abs() * of_write
    later = each.sum(-1).flip(1).cumsum(1).flip(1)
    found = of_gate + later + (of_memory.abs() * limits.memory).sum((-1, -2))[:, None]
    gate = system.transition
    assert isinstance(gate, Gate)
    return found if gate.value is None else found / gate.value.abs()


def gradients_of_decay_agree(
    form: ScalarDecay, system: System, tokens: Tensor, state: State, dtype: torch.dtype
) -> None:
    """Gradients of every leaf of a system without normaliser, T written out, against the recurrence in float64."""
    system, tokens = system.map(lambda x: cast(x, dtype)), cast(tokens, dtype)
    state = state.map(lambda x: cast(x, dtype))
    exact = laws.as_leaves(system.map(wide), wide(tokens), state.map(wide))
    ours = laws.as_leaves(system, tokens, state)
    results = laws.run(exact.system, exact.tokens, exact.state, form=laws.EXACT)
    draw = torch.Generator().manual_seed(2)
    seeds = [torch.randn(x.shape, generator=draw) for x in (results[0], results[1].memory)]
    pairs = []
    for leaves, outcome in ((exact, results), (ours, None)):
        y, final = outcome or laws.run(ours.system, ours.tokens, ours.state, form=form)
        given = [seed.to(x.dtype) for seed, x in zip(seeds, (y, final.memory), strict=True)]
        pairs.append(torch.autograd.grad((y, final.memory), leaves.tensors, given))
    given = seeds[0], seeds[1]
    limits = error_bound(system, tokens, state, form=form, cotangents=given)
    bounds = list(limits.gradients)
    if not isinstance(system.transition, Identity):
        bounds[0] = of_differences(limits, system.map(wide), wide(seeds[1]))
    own = error_bound(
        system.map(wide), wide(tokens), state.map(wide), form=laws.EXACT, cotangents=given
    ).gradients
    for i, (one, other) in enumerate(zip(pairs[1], pairs[0], strict=True)):
        require_within(one, other, bounds[i] + own[i], f"gradient {i}")

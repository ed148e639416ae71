"""The kernel of the selective scan as a form of a system, for `dsf.run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, OuterCoupling, ScaledCoupling
from dsf.errors import Refusal
from dsf.forms.base import Sizes
from dsf.forms.core import Core
from dsf.forms.gated_scan import PASS
from dsf.kernels.form import KernelForm, is_single
from dsf.numerics import Roundings
from dsf.structure import Discretised, Elementwise
from dsf.system import System

from .elementwise_operator import elementwise_scan
from .selective import STEPS
from .selective_operator import selective_scan


@dataclass(frozen=True)
class SelectiveScan(KernelForm):
    r"""The Triton kernels of the selective scan on CUDA tensors, in float32.

    S6 in its factors Δ, A and b runs `dsf.kernels.selective_scan`, which makes gates as it goes. Every other real
    Elementwise gate h_t = a_t ⊙ h_{t-1} + w_t diag(x_t), y_t = h_tᵀ c_t runs `dsf.kernels.elementwise_scan`, with gates
    and writes whole, (T, K, V).
    """

    name: ClassVar[str] = "triton-selective-scan"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not isinstance(system.transition, Elementwise):
            gate = "the transition has no gate for each key and value channel."
            return self.refuse(gate, "Use chunkwise, scan or recurrent.")
        if system.is_complex:
            return self.refuse("the system is complex.", "Use scan.")
        writes = isinstance(system.write, ChannelCoupling) or is_single(system.write)
        if not writes or not is_single(system.read):
            reads = "it needs one write a step, and one read that all value channels share."
            return self.refuse(reads, "Use scan.")
        return True if (refusal := self.cannot_run(system, "scan")) is None else refusal

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        assert isinstance(core.transition, Elementwise) and isinstance(core.read, OuterCoupling)
        if (factors := _factors(core)) is not None:
            return _selective(core, *factors)
        none = core.read.several == 0  # every query reads the last state, and there are no outputs
        reads = core.transition.decay[..., 0] if none else core.read.weights
        writes = core.write.weights
        writes = writes if isinstance(core.write, ChannelCoupling) else writes[..., None]
        batch, length, heads, values = core.tokens.shape
        whole = (batch, length, heads, core.key_size, values)
        x, a, w, c = (
            each.to(core.memory.dtype)
            for each in (
                core.tokens,
                core.transition.decay.expand(whole),
                writes.expand(whole),
                reads.expand(whole[:4]),
            )
        )
        outputs, final = elementwise_scan(x, a, w, c, core.memory)
        return (outputs[..., None, :][..., :0, :] if none else outputs), final

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        depth = 1 + STEPS.bit_length()  # of the prefix in a tile, and what is carried between two
        return Roundings(step=4, path=4 + 2 * system.key_size + 4 * depth)

    def operations(self, system: System, sizes: Sizes) -> float:
        numbers = sizes.length * sizes.sequences * system.key_size * sizes.values
        return 2 * PASS * numbers / 1000 + 1_000_000


def _factors(core: Core) -> tuple[Tensor, Tensor, Tensor] | None:
    """Δ (B, T, H, V), A (H, K, V) and b of S6, where the system holds these and they are what the kernel takes."""
    gate, write = core.transition, core.write
    assert isinstance(core.read, OuterCoupling)
    if not isinstance(gate, Discretised) or not isinstance(write, ScaledCoupling):
        return None
    same = gate.rate.shape[0] == 1 or gate.rate.stride(0) == 0
    constant = same and gate.rate.shape[1] == 1 and gate.step.shape[3] == 1
    if not constant or core.read.several is not None:
        return None
    batch, length, heads, values = core.tokens.shape
    step = gate.step[..., 0, :].expand(batch, length, heads, values)
    if not _are_one(step, write.gains.expand_as(step)):
        return None
    return step, gate.rate[0, 0].expand(heads, core.key_size, values), write.keys


def _are_one(step: Tensor, gains: Tensor) -> bool:
    """Whether the Δ that decays is the Δ that writes: the kernel takes one, and gives it one gradient."""
    if torch.is_grad_enabled() and (step.requires_grad or gains.requires_grad):
        places = [(x.data_ptr(), x.stride(), x.requires_grad) for x in (step, gains)]
        return places[0] == places[1] and step._base is gains._base is not None
    return torch.equal(step, gains)


def _selective(core: Core, step: Tensor, rate: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Heads become groups: their channels share b and c."""
    batch, length, heads, _ = core.tokens.shape
    shape = (batch, length, heads, core.key_size)
    x, delta = (each.flatten(2).to(core.memory.dtype) for each in (core.tokens, step))
    b, c = (each.expand(shape).to(x.dtype) for each in (keys, core.read.weights))
    outputs, final = selective_scan(
        x, delta, rate.mT.flatten(0, 1), b, c, core.memory.mT.flatten(1, 2)
    )
    return outputs.unflatten(2, (heads, -1)), final.unflatten(1, (heads, -1)).mT

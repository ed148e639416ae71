"""The kernel of the gated scan as a form of a system, for `dsf.run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from dsf.errors import Refusal
from dsf.forms.base import Sizes
from dsf.forms.core import Core, over_time
from dsf.forms.gated_scan import PASS
from dsf.kernels.form import KernelForm
from dsf.numerics import Roundings
from dsf.structure import Identity
from dsf.structure.gates import Gate
from dsf.system import System

from .channel import STEPS
from .channel_operator import gated_scan


@dataclass(frozen=True)
class GatedScan(KernelForm):
    r"""The Triton kernel of the gated scan (`dsf.kernels.gated_scan`) on CUDA tensors, in float32 or complex64.

    h_t = a_t h_{t-1} + b_t for every number of the state, all states kept, then read. So the state has one key for
    each value channel (RG-LRU, minGRU, minLSTM, HGRN, qLSTM, RWKV-4) or is a vector (S5, LRU). Gates may have any
    sign and be zero; they stay in linear space, where products of gates over 64 steps must not overflow.
    """

    name: ClassVar[str] = "triton-gated-scan"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not isinstance(system.transition, Gate | Identity):
            return self.refuse("the transition mixes keys.", "Use chunkwise or recurrent.")
        if not system.is_vector and system.key_size != 1:
            keys = f"the state has K = {system.key_size} keys for a value channel, and all states are kept."
            return self.refuse(keys, "Use chunkwise or scan.")
        return True if (refusal := self.cannot_run(system, "scan")) is None else refusal

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        increments = over_time(core.write.inject(core.tokens), core.length)
        shape = (*increments.shape[:3], *core.memory.shape[2:])
        b = increments.expand(shape).to(core.memory.dtype)
        gates, last = gated_scan(_gates(core, b), b.flatten(2), core.memory.flatten(1))
        states = gates.unflatten(2, shape[2:])
        return core.read.extract(states), last.unflatten(1, shape[2:])

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        depth = 1 + STEPS.bit_length()  # of the prefix in a tile, and what is carried between two
        inputs = (system.value_size or 0) if system.is_vector else 0
        return Roundings(step=4, path=4 + 2 * system.key_size + 4 * depth + inputs)

    def operations(self, system: System, sizes: Sizes) -> float:
        numbers = sizes.length * sizes.sequences * system.key_size * sizes.values
        return 4 * PASS * numbers / 1000 + 1_000_000


def _gates(core: Core, like: Tensor) -> Tensor:
    """a of every number of the state, (B, T, H · K · V)."""
    if not isinstance(core.transition, Gate):
        return like.new_ones((1, 1, 1)).expand(like.flatten(2).shape)
    decay = over_time(core.transition.decay, core.length)
    decay = decay.reshape(*decay.shape, *(1,) * (5 - decay.ndim)).to(like.dtype)
    return decay.expand_as(like).flatten(2)

"""The kernel of the selective scan as a form of a system, for `dsf.run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from dsf.coupling import ChannelCoupling, OuterCoupling
from dsf.errors import Refusal
from dsf.forms.base import Sizes
from dsf.forms.core import Core
from dsf.forms.gated_scan import PASS
from dsf.kernels.form import KernelForm, is_single
from dsf.numerics import Roundings
from dsf.structure import Elementwise
from dsf.system import System

from .elementwise_operator import elementwise_scan
from .selective import STEPS


@dataclass(frozen=True)
class SelectiveScan(KernelForm):
    r"""The Triton kernel of the elementwise scan (`dsf.kernels.elementwise_scan`) on CUDA tensors, in float32.

    h_t = a_t ⊙ h_{t-1} + w_t diag(x_t), y_t = h_tᵀ c_t: S6 and every real Elementwise gate. A system holds its gates
    and writes whole, (T, K, V); `dsf.kernels.selective_scan` takes the Δ, A and b of S6 and makes them as it goes.
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

"""The kernel of scalar decay as a form of a system, for `dsf.run`: it says what it admits, and never falls back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dsf.forms.base import Sizes
from dsf.kernels.form import DEEPEST
from dsf.numerics import Roundings
from dsf.structure import Identity, Scalar
from dsf.system import System

from .decay_form import CHUNK, Decay, DecayForm, depth_of
from .scalar_operator import scalar_decay


@dataclass(frozen=True)
class ScalarDecay(DecayForm):
    r"""The Triton kernel of scalar decay (`dsf.kernels.scalar_decay`) on CUDA tensors, in float32.

    h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = h_iᵀ q_i. A decay e^{c_i - c_j} over a part of a chunk is right to the
    rounding of its exponent, so the roundings of a path grow with the largest |g| of the chunk, up to 104.
    """

    name: ClassVar[str] = "triton-scalar-decay"
    admitted: ClassVar[tuple[type[Decay], ...]] = (Identity, Scalar)
    kind: ClassVar[str] = "a real scalar"

    def kernel(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return scalar_decay(q, k, v, g, state)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        inner = 4 * min(CHUNK * depth_of(system), DEEPEST)
        return Roundings(step=4, path=4 * (system.key_size + CHUNK) + 16 + inner)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values = system.key_size, sizes.values
        per_step = CHUNK * (keys + values) + 2 * keys * values
        return sizes.length * sizes.sequences * per_step / 1000 + 1_000_000

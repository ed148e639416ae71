"""The kernel of decay per key as a form of a system, for `dsf.run`: it says what it admits, and never falls back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dsf.forms.base import Sizes
from dsf.numerics import Roundings
from dsf.structure import Diagonal
from dsf.system import System

from .decay_form import CHUNK, Decay, DecayForm, depth_of
from .diagonal_operator import diagonal_decay


@dataclass(frozen=True)
class DiagonalDecay(DecayForm):
    r"""The Triton kernel of decay per key (`dsf.kernels.diagonal_decay`) on CUDA tensors, in float32.

    h_i = Diag(e^{g_i}) h_{i-1} + k_i v_iᵀ, y_i = h_iᵀ q_i. A decay over a part of a chunk is a product of those of
    its steps, each right to the rounding of its exponent: the roundings of a step grow with the largest |g|, up to
    104. A read before the update is one step earlier.
    """

    name: ClassVar[str] = "triton-diagonal-decay"
    admitted: ClassVar[tuple[type[Decay], ...]] = (Diagonal,)
    kind: ClassVar[str] = "real and diagonal"

    def kernel(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return diagonal_decay(q, k, v, g, state)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        return Roundings(step=6 + 2 * depth_of(system), path=4 * (system.key_size + CHUNK) + 16)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values = system.key_size, sizes.values
        products = CHUNK.bit_length() - 1  # one of reads and writes for each size of block
        per_step = CHUNK * (products * keys + values) + 2 * keys * values
        return sizes.length * sizes.sequences * per_step / 1000 + 1_000_000

"""Finite impulse responses: an output weighs the last few values, by fixed taps or by taps per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Dense, Diagonal, Scalar
from dsf.system import System

from .band import Band
from .protocol import Mixer


def moving_taps(taps: Tensor) -> System:
    r"""y_i = Σ_s w_{i,s} v_{i-s} for taps (B, T, H, W), s = 0 … W - 1: the state holds the last W - 1 values.

    System: Λ is the shift, h_i = (v_i, …, v_{i-W+2}), read before its update by C_i = (w_{i,1}, …, w_{i,W-1}),
    and D = w_{i,0}. Taps (B, T, H, W, V) are one set per value channel.

    >>> import dsf
    >>> taps = torch.tensor([1.0, 10.0]).expand(1, 3, 1, 2)
    >>> dsf.run(moving_taps(taps), torch.tensor([1.0, 2, 3]).reshape(1, 3, 1, 1))[0].flatten()
    tensor([ 1., 12., 23.])
    """
    if taps.ndim not in (4, 5) or taps.shape[3] < 1:
        raise InvalidInput(
            f"`taps` must be (B, T, H, W) or (B, T, H, W, V) with W >= 1; got {tuple(taps.shape)}"
        )
    later = taps[:, :, :, 1:]
    if later.shape[3] == 0:  # one tap needs no state: it is never read
        later = torch.zeros_like(taps)
    size = later.shape[3]
    shift = torch.diag(taps.new_ones(size - 1), -1)[None, None, None]
    enters = taps.new_zeros(1, 1, 1, size)
    enters[..., 0] = 1
    return System(
        Dense(shift),
        OuterCoupling(enters),
        OuterCoupling(later) if taps.ndim == 4 else ChannelCoupling(later),
        feedthrough=Scalar(taps[..., 0]) if taps.ndim == 4 else Diagonal(taps[:, :, :, 0]),
        timing="before",
    )


@dataclass(frozen=True, eq=False)
class DepthwiseConvolution(Mixer):
    r"""y_{i,v} = Σ_{s<W} w_{s,v} u_{i-s,v} for `taps` w (H, W, V): a causal filter per channel, over `length` steps.

    Source: the short convolution of Mamba, Gu and Dao (2312.00752), section 3.4.

    >>> mixer = DepthwiseConvolution(torch.tensor([[[0.5], [0.5]]]), 3)
    >>> mixer(torch.tensor([0.0, 2.0, 4.0]).reshape(1, 3, 1, 1)).flatten()
    tensor([0., 1., 3.])
    >>> mixer.state_size(1000), mixer.multiply_adds(3, 1)
    (1, 5)
    """

    taps: Float[Tensor, "H W V"]
    length: int

    def __post_init__(self) -> None:
        if self.taps.ndim != 3 or 0 in self.taps.shape:
            raise InvalidInput(
                f"`taps` must be (H, W, V), none of them 0; got {tuple(self.taps.shape)}"
            )
        if self.length < 0:
            raise InvalidInput(f"`length` must not be negative; got {self.length}")

    @property
    def _width(self) -> int:
        return self.taps.shape[1]

    def __call__(self, values: Tensor) -> Tensor:
        outputs = torch.zeros_like(values)
        for s in range(min(self._width, values.shape[1])):
            late = values[:, : values.shape[1] - s] * self.taps[:, s]
            outputs = outputs + torch.nn.functional.pad(late, (0, 0, 0, 0, s, 0))
        return outputs

    def matrix(self) -> Tensor:
        steps = torch.arange(self.length)
        lag = steps[:, None] - steps
        seen = (lag >= 0) & (lag < self._width)
        weights = self.taps.transpose(1, 2)[..., lag.clamp(0, self._width - 1)]
        return torch.where(seen, weights, 0)[None]

    def system(self) -> System:
        return moving_taps(self.taps[None, None])

    @property
    def band(self) -> Band:
        return Band(self._width - 1, 0)

    @property
    def gate_looks_ahead(self) -> bool:
        return False

    @property
    def linear_in_values(self) -> bool:
        return True

    @property
    def row_sum(self) -> None:
        return None

    def state_size(self, length: int) -> int:
        return min(length, self._width - 1)

    def state_bytes(self, length: int, values: int, width: int = 4) -> int:
        return width * values * self.state_size(length)

    def moved_bytes(self, length: int, values: int, width: int = 4) -> int:
        return width * values * (2 * length + self._width)

    def multiply_adds(self, length: int, values: int) -> int:
        return self.band.pairs(length) * values

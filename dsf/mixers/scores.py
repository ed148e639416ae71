"""Mixers whose weights are made from one score q_i·k_j per pair: what they share, and sigmoid attention."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput, Refusal
from dsf.precision import keeps_precision
from dsf.shapes import Float
from dsf.system import System

from .band import CAUSAL, Band
from .protocol import Mixer
from .taps import moving_taps


class ScoreMixer(Mixer):
    """What mixers of queries and keys (B, T, H, K) and one weight per pair of their band have in common."""

    q: Tensor
    k: Tensor

    @abstractmethod
    def weights(self) -> Tensor:
        """Φ (B, H, T, T)."""

    @abstractmethod
    def _infinite(self) -> Refusal:
        """Why no state of fixed size reproduces the weights of an unlimited band."""

    @keeps_precision
    def __call__(self, values: Tensor) -> Tensor:
        check_values(values, self.k)
        return torch.einsum("bhij,bjhv->bihv", self.weights(), values)

    def matrix(self) -> Tensor:
        return self.weights()

    def system(self) -> System | Refusal:
        """A band of w tokens is w taps per step; otherwise refused."""
        if not self.causal:
            return Refusal(
                "system", "outputs read later tokens, so no recurrence gives them in order."
            )
        if self.band.before is None:
            return self._infinite()
        phi = self.weights()
        length, width = phi.shape[-1], max(1, min(self.band.before + 1, phi.shape[-1]))
        padded = torch.nn.functional.pad(phi, (width - 1, 0))
        places = torch.arange(length)[:, None] + width - 1 - torch.arange(width)
        taps = torch.gather(padded, -1, places.expand(*phi.shape[:2], -1, -1))
        return moving_taps(taps.movedim(1, 2))

    @property
    def linear_in_values(self) -> bool:
        return True

    def state_size(self, length: int) -> int:
        ends = (self.band.before, self.band.after)
        reach = [length if end is None else min(length, max(0, end)) for end in ends]
        return max(reach)

    def state_bytes(self, length: int, values: int, width: int = 4) -> int:
        return width * self.state_size(length) * (self.k.shape[-1] + values)

    def moved_bytes(self, length: int, values: int, width: int = 4) -> int:
        return width * length * 2 * (self.k.shape[-1] + values)

    def multiply_adds(self, length: int, values: int) -> int:
        return self.band.pairs(length) * (self.k.shape[-1] + values)


@keeps_precision
def scores(q: Tensor, k: Tensor) -> Tensor:
    """q_i·k_j/√K as (B, H, T, T)."""
    return torch.einsum("bihk,bjhk->bhij", q, k) / q.shape[-1] ** 0.5


def check_queries(q: Tensor, k: Tensor) -> None:
    """Raise `InvalidInput` unless both are (B, T, H, K)."""
    if q.ndim != 4 or q.shape != k.shape:
        raise InvalidInput(
            f"`q` and `k` must have one shape (B, T, H, K); got {tuple(q.shape)}, {tuple(k.shape)}"
        )


def check_values(values: Tensor, k: Tensor) -> None:
    """Raise `InvalidInput` unless the values belong to the keys."""
    if values.shape[:3] != k.shape[:3]:
        raise InvalidInput(
            f"`values` must have leading sizes {tuple(k.shape[:3])}; got {tuple(values.shape[:3])}"
        )


@dataclass(frozen=True, eq=False)
class SigmoidAttention(ScoreMixer):
    r"""y_i = Σ_j σ(q_i·k_j/√K + b) v_j over the band, for `q`, `k` (B, T, H, K): no normaliser.

    The `bias` b of the paper is -log T. `dsf.kernels.flash_attention` computes the same outputs tile by tile.

    Source: Ramapuram et al., "Theory, analysis, and best practices for sigmoid self-attention"
    (2409.04431), section 2.

    >>> q = torch.zeros(1, 3, 1, 2)
    >>> SigmoidAttention(q, q)(torch.ones(1, 3, 1, 1)).flatten()
    tensor([0.5000, 1.0000, 1.5000])
    """

    q: Float[Tensor, "B T H K"]
    k: Float[Tensor, "B T H K"]
    bias: float = 0.0
    band: Band = CAUSAL

    def __post_init__(self) -> None:
        check_queries(self.q, self.k)

    def weights(self) -> Tensor:
        phi = torch.sigmoid(scores(self.q, self.k) + self.bias)
        return phi.masked_fill(~self.band.mask(phi.shape[-1]), 0)

    def _infinite(self) -> Refusal:
        return Refusal(
            "sigmoid attention",
            "σ(q·k) is a sum of infinitely many separable terms, so no state of fixed size reproduces it "
            "for all queries and keys; its state is the cache of all keys and values.",
            "Use the matrix.",
        )

    @property
    def gate_looks_ahead(self) -> bool:
        return False

    @property
    def row_sum(self) -> None:
        return None

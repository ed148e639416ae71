"""What the kernels of decays share: their quantities, checked, and tiles no larger than the heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from dsf.kernels.contract import NARROWEST, Tile, power_of_two
from dsf.kernels.shapes import Packing, checked_decay


@dataclass(frozen=True, eq=False)
class Chunked:
    """q (B, T, Hq, K), k (B, T, Hk, K), v (B, T, Hv, V), g (B, T, H, …) and a state (N, H, K, V), checked.

    H is divisible by the others; head h reads q, k, v of head h·Hq/H, h·Hk/H, h·Hv/H. `packing` says where
    N sequences lie in one row of tokens, `per_key` whether decays differ by key.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    state: Tensor
    scale: float
    packing: Packing

    per_key: ClassVar[bool] = False

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        state: Tensor | None,
        scale: float,
        starts: Tensor | None,
    ) -> Self:
        """Checked, contiguous, gates and state in float32; raises `InvalidInput`."""
        packing = Packing.of(q, starts)
        state = checked_decay(q, k, v, g, state, packing.sequences, per_key=cls.per_key)
        return cls(
            q.contiguous(),
            k.contiguous(),
            v.contiguous(),
            g.float().contiguous(),
            state.float().contiguous(),
            scale,
            packing,
        )

    @property
    def heads(self) -> int:
        return self.g.shape[2]


def parts(v: Tensor, tile: Tile) -> int:
    """How many tiles the value channels make."""
    return -(-v.shape[-1] // int(tile.constants["BV"]))


def tile_of(
    keys: int,
    values: int,
    of_keys: int,
    chosen: tuple[int, int, int],
    wide: bool,
    exact: bool = False,
) -> Tile:
    """The tile of some keys for `chosen` steps, values and warps: no larger than the heads.

    Products of float32 (`wide`) are three of TF32, or exact.
    """
    steps, of_values, warps = chosen
    of_keys = min(power_of_two(keys, NARROWEST), of_keys)
    constants = {
        "K": keys,
        "V": values,
        "C": steps,
        "BK": of_keys,
        "BV": min(power_of_two(values, NARROWEST), of_values),
        "KT": -(-keys // of_keys) or 1,
        "PRECISION": "tf32x3" if wide and not exact else "ieee",
    }
    return Tile(constants, warps, products=not exact)

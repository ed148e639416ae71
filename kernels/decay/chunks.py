"""What decays in chunks share on a GPU: their quantities, the launches of their three programs, the sums of parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.kernels.contract import Program, Tile
from dsf.kernels.limits import nearest
from dsf.kernels.shapes import Packing, checked_decay
from dsf.registry import resolve

_DATA = {"q": "data", "k": "data", "v": "data", "g": "fp32", "state": "fp32", "starts": "i64"}
_HEADS = ("heads", "q_heads", "k_heads", "v_heads")


def programs_of(
    code: str, pointers: Mapping[str, str] = {}, flags: Mapping[str, int | str] = {}
) -> tuple[Program, Program, Program]:
    """Forward, backward of reads and backward of writes in a module of `triton_code`.

    `pointers` are those that the forward has beyond every kind's, `flags` the constants of all three.
    """
    reads = {name: kind for name, kind in _DATA.items() if name != "q"}
    writes = {name: kind for name, kind in _DATA.items() if name != "state"}
    flags, scale = {"PACKED": 1, "UPCAST": 0, **flags}, ("scale",)
    of_writes = dict.fromkeys(("dfinal", "dk", "dv", "dstate"), "fp32")
    return (
        Program(
            f"{code}:forward",
            _DATA | {"o": "data", "final": "fp32", **pointers},
            ("length", *_HEADS),
            scale,
            flags,
        ),
        Program(
            f"{code}:backward_of_reads",
            reads | {"do": "data", "dq": "fp32"},
            ("length", "heads", "k_heads", "v_heads"),
            scale,
            flags,
        ),
        Program(
            f"{code}:backward_of_writes",
            writes | {"do": "data"} | of_writes,
            ("length", *_HEADS),
            scale,
            flags,
        ),
    )


@dataclass(frozen=True, eq=False)
class Chunked:
    """q (B, T, Hq, K), k (B, T, Hk, K), v (B, T, Hv, V), g (B, T, H, …) and a state (N, H, K, V), checked.

    H is divisible by the others; head h reads q, k, v of head h·Hq/H, h·Hk/H, h·Hv/H. `packing` says where
    N sequences lie in one row of tokens. A kind of decay names its `programs` (forward, backward of reads, backward
    of writes), how it chooses their tiles, and whether its decays differ by key.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    state: Tensor
    scale: float
    packing: Packing

    programs: ClassVar[tuple[Program, Program, Program]]
    choose: ClassVar[Callable[[Program, str, int, int, int], Tile]]
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

    def further(self, program: Program) -> dict[str, object]:
        """Arguments of a program beyond those that every kind of decay has."""
        return {}

    def launch(self, place: int, tile: Tile, upcast: bool, *pointers: Tensor) -> None:
        """Run a program for each sequence, head and tile of the state."""
        function = resolve(self.programs[place].function)
        present = {"q": self.q, "k": self.k, "v": self.v}
        counts = {
            f"{name}_heads": x.shape[2]
            for name, x in present.items()
            if f"{name}_heads" in function.arg_names
        }
        tiles = int(tile.constants["KT"]) * parts(self.v, tile)
        grid = (tiles * self.packing.sequences * self.heads,)
        if 0 in grid:
            return
        function[grid](
            *pointers,
            starts=self.packing.starts,
            length=self.packing.length,
            heads=self.heads,
            scale=self.scale,
            PACKED=self.packing.starts is not None,
            UPCAST=upcast,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **counts,
            **self.further(self.programs[place]),
            **tile.constants,
        )

    def tile(self, place: int) -> Tile:
        """The tile of a program on this device; the H100's where there is none (interpreted)."""
        architecture = 90
        if self.v.is_cuda:
            architecture = nearest(torch.cuda.get_device_capability(self.v.device))
        dtype = str(self.v.dtype).removeprefix("torch.")
        sizes = (self.q.shape[-1], architecture, self.v.shape[-1])
        return type(self).choose(self.programs[place], dtype, *sizes)


def parts(v: Tensor, tile: Tile) -> int:
    """How many tiles the value channels make."""
    return -(-v.shape[-1] // int(tile.constants["BV"]))


def power(size: int) -> int:
    """The next power of two, 16 at least: no matrix instruction is smaller."""
    return max(16, 1 << (size - 1).bit_length()) if size else 16


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
    of_keys = min(power(keys), of_keys)
    constants = {
        "K": keys,
        "V": values,
        "C": steps,
        "BK": of_keys,
        "BV": min(power(values), of_values),
        "KT": -(-keys // of_keys) or 1,
        "PRECISION": "tf32x3" if wide and not exact else "ieee",
    }
    return Tile(constants, warps, products=not exact)


def forward(x: Chunked, *, upcast: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32."""
    tile = x.tile(0)
    pieces, values = int(tile.constants["KT"]), x.v.shape[-1]
    lead = (*x.v.shape[:2], x.heads)
    dtype = x.v.dtype if pieces == 1 else torch.float32
    o = x.v.new_empty(*lead, pieces, values, dtype=dtype)
    final = torch.empty_like(x.state)
    x.launch(0, tile, upcast, x.q, x.k, x.v, x.g, x.state, o, final)
    return (o[..., 0, :] if pieces == 1 else o.sum(3).to(x.v.dtype)), final


def gradients(
    x: Chunked, do: Tensor, dfinal: Tensor, *, upcast: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v of every head (B, T, H, ·) and of the initial states, for `do` and `dfinal`, in float32.

    Both are contiguous, `do` in the type of v and `dfinal` in float32. Parts over tiles of the state are summed.
    """
    lead, (keys, values) = (*x.q.shape[:2], x.heads), (x.q.shape[-1], x.v.shape[-1])
    reads, writes = x.tile(1), x.tile(2)
    new = x.g.new_empty
    dq, dk = new(*lead, parts(x.v, reads), keys), new(*lead, parts(x.v, writes), keys)
    dv, dstate = new(*lead, int(writes.constants["KT"]), values), torch.empty_like(x.state)
    x.launch(1, reads, upcast, x.k, x.v, x.g, x.state, do, dq)
    x.launch(2, writes, upcast, x.q, x.k, x.v, x.g, do, dfinal, dk, dv, dstate)
    return dq.sum(3), dk.sum(3), dv.sum(3), dstate

"""What the chunk kernels of decays share: their programs' arguments, checked quantities and launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.kernels.contract import NARROWEST, Program, Tile, power_of_two
from dsf.kernels.limits import target_of
from dsf.kernels.shapes import Packing, checked_decay
from dsf.registry import resolve

from .segments import Segments, multiprocessors_of, steps_of_segment

_DATA, _WIDE = "q k v o do", "g state final decays bonus dfinal dq dk dv dstate"
_KINDS = {
    name: kind for names, kind in ((_DATA, "data"), (_WIDE, "fp32")) for name in names.split()
}


def program_of(
    code: str,
    name: str,
    pointers: str,
    heads: str,
    *,
    left_out: str = "",
    scaled: bool = True,
    flags: Mapping[str, int | str] = {},
) -> Program:
    """A program of a module of `triton_code`, by its pointers and by those among them that heads share.

    Pointers that are `left_out` are None.
    """
    own = {each: _KINDS[each] for each in pointers.split()} | {"starts": "i64"}
    return Program(
        f"{code}:{name}",
        own | dict.fromkeys(left_out.split(), "none"),
        ("length", "heads", *(f"{each}_heads" for each in heads.split())),
        ("scale",) if scaled else (),
        {"PACKED": 1, "UPCAST": 0, **flags},
    )


@dataclass(frozen=True, eq=False)
class Chunked:
    """q (B, T, Hq, K), k (B, T, Hk, K), v (B, T, Hv, V), g (B, T, H, …) and a state (N, H, K, V), checked.

    H is divisible by the others; head h reads q, k, v of head h·Hq/H, h·Hk/H, h·Hv/H. `packing` says where
    N sequences lie in one row of tokens. A kind of decay names its `programs` (forward, backward_of_reads,
    backward_of_writes and, where time may be cut in segments, local_states and local_gradients), how it chooses
    their tiles, and whether its decays differ by key.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    state: Tensor
    scale: float
    packing: Packing

    programs: ClassVar[Mapping[str, Program]]
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

    @property
    def further(self) -> dict[str, object]:
        """Arguments of programs beyond those that every kind of decay has."""
        return {}

    def launch(self, name: str, upcast: bool, **results: Tensor | None) -> None:
        """Run a program for each sequence, head and tile of the state; its other arguments are named."""
        tile = self.tile(name)
        grid = (tiles(self.v, tile) * self.packing.sequences * self.heads,)
        if 0 in grid:
            return
        function = resolve(self.programs[name].function)
        tokens = {"q": self.q, "k": self.k, "v": self.v}
        given = {
            **tokens,
            **{f"{each}_heads": x.shape[2] for each, x in tokens.items()},
            **{"g": self.g, "state": self.state, "scale": self.scale, "heads": self.heads},
            **{"starts": self.packing.starts, "length": self.packing.length},
            **self.further,
            **results,
        }
        function[grid](
            **{each: given[each] for each in function.arg_names if each in given},
            PACKED=self.packing.starts is not None,
            UPCAST=upcast,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )

    def tile(self, name: str) -> Tile:
        """The tile of a program on this device; the H100's where there is none (interpreted)."""
        dtype, architecture = target_of(self.v)
        sizes = (self.q.shape[-1], architecture, self.v.shape[-1])
        return type(self).choose(self.programs[name], dtype, *sizes)

    def cut(self, name: str, steps: int | None) -> Segments | None:
        """Segments of so many steps, or as `steps_of_segment` has them for a program; None for one walk."""
        if "local_states" not in self.programs:
            return None
        longest, device = self.packing.longest, self.v.device
        if steps is None:
            full = -(-self.v.shape[0] * self.v.shape[1] // max(1, longest))
            walks = full * self.heads * tiles(self.v, self.tile(name))
            steps = steps_of_segment(walks, longest, multiprocessors_of(device))
        return Segments.of(self.packing, steps, device) if steps < longest else None

    def over(self, segments: Segments, upcast: bool) -> tuple[Self, Tensor]:
        """The same tokens as segments, each with its own initial state; and the segments' decays."""
        count = segments.packing.sequences
        states = self.state.new_empty(count, *self.state.shape[1:])
        decays = self.g.new_empty(count, self.heads)
        cut = replace(self, packing=segments.packing, state=states)
        cut.launch("local_states", upcast, final=states, decays=decays)
        segments.carry(states, decays, self.state)
        return cut, decays


def parts(v: Tensor, tile: Tile) -> int:
    """How many tiles the value channels make."""
    return -(-v.shape[-1] // int(tile.constants["BV"]))


def tiles(v: Tensor, tile: Tile) -> int:
    """How many tiles a state makes."""
    return int(tile.constants["KT"]) * parts(v, tile)


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


def forward(x: Chunked, *, upcast: bool = False, steps: int | None = None) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32.

    `steps` cuts time in segments of so many, whatever the device.
    """
    segments = x.cut("forward", steps)
    walks = x if segments is None else x.over(segments, upcast)[0]
    pieces, values = int(x.tile("forward").constants["KT"]), x.v.shape[-1]
    lead = (*x.v.shape[:2], x.heads)
    dtype = x.v.dtype if pieces == 1 else torch.float32
    o = x.v.new_empty(*lead, pieces, values, dtype=dtype)
    final = torch.empty_like(walks.state)
    walks.launch("forward", upcast, o=o, final=final, decays=None)
    final = final if segments is None else segments.last(final)
    return (o[..., 0, :] if pieces == 1 else o.sum(3).to(x.v.dtype)), final


def gradients(
    x: Chunked, do: Tensor, dfinal: Tensor, *, upcast: bool = False, steps: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v of every head (B, T, H, ·) and of the initial states, for `do` and `dfinal`, in float32.

    Both are contiguous, `do` in the type of v and `dfinal` in float32. Parts over tiles of the state are summed.
    """
    lead, (keys, values) = (*x.q.shape[:2], x.heads), (x.q.shape[-1], x.v.shape[-1])
    reads, writes = x.tile("backward_of_reads"), x.tile("backward_of_writes")
    new = x.g.new_empty
    dq, dk = new(*lead, parts(x.v, reads), keys), new(*lead, parts(x.v, writes), keys)
    dv = new(*lead, int(writes.constants["KT"]), values)
    walks, last, segments = x, dfinal, x.cut("backward_of_writes", steps)
    if segments is not None:
        walks, decays = x.over(segments, upcast)
        last = torch.empty_like(walks.state)
        walks.launch("local_gradients", upcast, do=do, dstate=last)
        segments.carry(last, decays, dfinal, reverse=True)
    dstate = torch.empty_like(walks.state)
    walks.launch("backward_of_reads", upcast, do=do, dq=dq)
    walks.launch("backward_of_writes", upcast, do=do, dfinal=last, dk=dk, dv=dv, dstate=dstate)
    dstate = dstate if segments is None else segments.first(dstate)
    return dq.sum(3), dk.sum(3), dv.sum(3), dstate

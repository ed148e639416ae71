r"""Flash attention on a GPU: O = w(s QKᵀ + b) V over boxes of tiles, forward and backward.

The programs are in `triton_code/attention.py`; here are their contract and their launches. Bands and neighborhoods
differ in a table alone (`geometry`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import torch
from torch import Tensor

from dsf.errors import Refusal, Refused
from dsf.kernels.contract import NARROWEST, Kernel, Program, Tile, power_of_two
from dsf.kernels.limits import target_of
from dsf.registry import resolve
from dsf.sim.pattern import Shape

from .geometry import Geometry
from .tiles import shape_of, sizes_for
from .weighing import Weighing

Tiles = tuple[tuple[Shape, Shape] | None, ...]

CODE = "dsf.kernels.triton_code.attention"
NAMES = ("forward", "backward_of_queries", "backward_of_keys")
_GIVEN = dict.fromkeys("qkv", "data") | dict.fromkeys(("low", "high", "boxes"), "i32")
_INTEGERS = (
    *(f"{what}_{axis}" for what in ("q", "k", "step") for axis in "zyx"),
    "heads",
    "k_heads",
)
_MORE = (
    {"o": "data", "row": "fp32"},
    {"row": "fp32", "do": "data", "o": "data", "delta": "fp32", "dq": "data"},
    {"row": "fp32", "do": "data", "delta": "fp32", "dk": "data", "dv": "data"},
)


@cache
def programs(weight: str, rank: int, normalised: bool) -> tuple[Program, ...]:
    """Forward, backward by query tile and backward by key tile of one weight over so many axes."""
    flags = {"RANK": rank, "WEIGHT": weight, "NORMALISED": int(normalised), "COUNT": 0, "UPCAST": 0}
    return tuple(
        Program(
            f"{CODE}:{name}",
            _GIVEN | more | {"counter": "none"},
            _INTEGERS,
            ("scale", "bias"),
            flags,
        )
        for name, more in zip(NAMES, _MORE, strict=True)
    )


@cache
def tile_for(
    program: Program, dtype: str, size: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for heads of `size` channels of keys and `values` of values."""
    values, rank = values or size, int(program.flags["RANK"])
    place = NAMES.index(program.name)
    sizes = sizes_for(place, program, dtype, size, values, architecture)
    shapes = shape_of(sizes.queries, rank), shape_of(sizes.keys, rank)
    heads = {
        "K": size,
        "V": values,
        "BK": power_of_two(size, NARROWEST),
        "BV": power_of_two(values, NARROWEST),
    }
    exact = dtype == "float32" and sizes.precision == "ieee"
    constants = heads | _named(shapes) | {"PRECISION": sizes.precision}
    return Tile(constants, sizes.warps, sizes.stages, products=not exact)


def _named(shapes: tuple[Shape, Shape]) -> dict[str, int]:
    """The shapes as constants of a program."""
    names = ("QZ", "QY", "QX", "KZ", "KY", "KX")
    return dict(zip(names, chain(*map(_three, shapes)), strict=True))


def _three(shape: Shape) -> Shape:
    return (1,) * (3 - len(shape)) + tuple(shape)


def _kernel(
    weight: str, title: str, admits: str, source: str, rank: int = 1, name: str = ""
) -> Kernel:
    return Kernel(
        name=name or f"flash-{weight}",
        title=title,
        admits=admits,
        form="matrix",
        programs=programs(weight, rank, weight != "sigmoid"),
        tile=tile_for,
        source=source,
    )


SOFTMAX = _kernel(
    "softmax",
    "Softmax attention over tiles, full, causal or windowed",
    "SoftmaxAttention over a band",
    "Dao 2023 (arXiv 2307.08691)",
)
SIGMOID = _kernel(
    "sigmoid",
    "Sigmoid attention over tiles, masked after the sigmoid",
    "SigmoidAttention over a band",
    "Ramapuram et al. 2024 (arXiv 2409.04431), FlashSigmoid",
)
SOFTPLUS = _kernel(
    "softplus",
    "Softplus attention over tiles, divided by the sum of each row or not",
    "weights softplus(q·k) over a band",
    "Gao et al. 2025 (arXiv 2501.13428)",
)
NEIGHBORHOOD = _kernel(
    "softmax",
    "Neighborhood attention over boxes of tiles in one to three axes",
    "softmax over a `dsf.sim.Pattern`",
    "Hassani et al. 2025 (arXiv 2504.16922)",
    rank=3,
    name="neighborhood-attention",
)


@dataclass(frozen=True, eq=False)
class Attention:
    """q (B, Tq, H, K), k (B, Tk, Hk, K), v (B, Tk, Hk, V), contiguous, H a multiple of Hk, and what sees what.

    `tiles` are shapes of tiles, per program, where they are not the table's; `counts` takes how many tiles each
    program visits, and how many of them without a mask.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    geometry: Geometry
    weighing: Weighing
    tiles: Tiles = (None, None, None)
    upcast: bool = False
    counts: list[Tensor] | None = None

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        geometry: Geometry,
        weighing: Weighing,
        tiles: Tiles = (None, None, None),
    ) -> Attention:
        return cls(q.contiguous(), k.contiguous(), v.contiguous(), geometry, weighing, tiles)

    @property
    def _programs(self) -> tuple[Program, ...]:
        return programs(self.weighing.weight, self.geometry.rank, self.weighing.normalised)

    def tile(self, place: int) -> Tile:
        """The tile of a program on this device; the H100's where there is none (interpreted)."""
        dtype, architecture = target_of(self.q)
        channels = self.q.shape[-1], self.v.shape[-1]
        found = tile_for(self._programs[place], dtype, channels[0], architecture, channels[1])
        if (shapes := self.tiles[place]) is not None:
            return replace(found, constants={**found.constants, **_named(shapes)})
        if place or self.geometry.rank > 1 or dtype == "float32" or self.q.shape[1] > 16:
            return found
        # A few queries, as in decoding, need no more rows than they have.
        return replace(found, constants={**found.constants, "QX": 16})

    def launch(self, place: int, *pointers: Tensor | None) -> None:
        """Run a program over the tiles of queries (or of keys) of every head."""
        program, tile, geometry = self._programs[place], self.tile(place), self.geometry
        of_keys = program.name == "backward_of_keys"
        rank = geometry.rank
        q, kv = (tuple(int(tile.constants[a + b]) for b in "ZYX")[3 - rank :] for a in "QK")
        heads, k_heads = self.q.shape[2], self.k.shape[2]
        number = geometry.tiles(kv if of_keys else q, of_keys) * self.q.shape[0]
        grid = (number * (k_heads if of_keys else heads),)
        if 0 in grid:
            return
        walk = geometry.walk(q, kv, of_keys, self.q.device)
        counter = None
        if self.counts is not None:
            counter = torch.zeros(*grid, 2, dtype=torch.int32, device=self.q.device)
            self.counts.append(counter)
        flags = dict(program.flags) | {"COUNT": counter is not None, "UPCAST": self.upcast}
        resolve(program.function)[grid](
            self.q, self.k, self.v, walk.low, walk.high, walk.boxes, *pointers, counter,
            *_three(geometry.queries), *_three(geometry.keys), *_three(geometry.steps), heads, k_heads,
            self.weighing.scale, self.weighing.bias,
            num_warps=tile.warps, num_stages=tile.stages, **flags, **tile.constants,
        )  # fmt: skip


def require_fits(q: Tensor, v: Tensor, rank: int = 1) -> None:
    """Raise `Refused` on a GPU for heads that do not fit in one tile, or for more than three axes."""
    most = max(q.shape[-1], v.shape[-1])
    if q.is_cuda and most > 256:
        reason = f"a head has {most} channels; a tile holds 256."
        raise Refused(Refusal("kernels", reason, "Use more heads of fewer channels, or the CPU."))
    if q.is_cuda and rank > 3:
        reason = f"the pattern has {rank} axes; programs walk three."
        raise Refused(Refusal("kernels", reason, "Move axes into the batch, or use the CPU."))


def forward(x: Attention) -> tuple[Tensor, Tensor]:
    """Outputs (B, Tq, H, V) in the type of q, and a number per row that the backward pass needs."""
    if x.weighing.weight == "softmax" and x.weighing.scale < 0:  # the program has none below 0
        x = replace(x, q=-x.q, weighing=replace(x.weighing, scale=-x.weighing.scale))
    lead = x.q.shape[:3]
    o = x.q.new_empty(*lead, x.v.shape[-1])
    row = x.weighing.row(x.q, torch.float32)
    x.launch(0, o, row)
    return o, row


def backward(x: Attention, do: Tensor, o: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v: one walk by query tile, one by key tile, no atomics."""
    do = do.to(x.q.dtype).contiguous()
    dq, dk, dv, delta = (torch.empty_like(each) for each in (x.q, x.k, x.v, row))
    x.launch(1, row, do, o.contiguous(), delta, dq)
    x.launch(2, row, do, delta, dk, dv)
    return dq, dk, dv

r"""A step of decoding on vector states, in place: the gated scan's and the selective scan's; contracts and launches.

The programs are in `triton_code/vector_steps.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile, power_of_two
from dsf.kernels.limits import target_of
from dsf.registry import resolve

from .cache import checked_cache, checked_slots, contiguous

CODE = "dsf.kernels.triton_code.vector_steps"
_CACHE = {"state": "fp32", "slots": "i64"}
_INTEGERS = ("rows", "stride", "size")

SCAN, COMPLEX_SCAN = (
    Program(
        f"{CODE}:scan_step",
        _CACHE | {"a": kind, "b": kind, "h": "fp32"},
        _INTEGERS,
        flags={"COMPLEX": int(label == "complex")},
        label=label,
    )
    for kind, label in (("data", "real"), ("fp32", "complex"))
)
SELECTIVE = Program(
    f"{CODE}:selective_step",
    _CACHE | dict.fromkeys(("x", "delta", "b", "c", "y"), "data") | {"A": "fp32", "skip": "fp32"},
    (*_INTEGERS, "groups"),
)


_TILE = 1024  # states of one tile: 8 a thread
_ENOUGH = 256  # programs that fill a device, about two per multiprocessor


def tile_for(
    program: Program, dtype: str, size: int, architecture: int, channels: int | None = None
) -> Tile:
    """256 channels of a vector, or some channels of `size` states N each: fewer where N is large.

    Fewer too where there are few `channels`, of all sequences together.
    """
    if program.function != SELECTIVE.function:
        return Tile({"BC": 256}, 2, products=False)
    wide = power_of_two(size)
    own = max(1, min(128, _TILE // wide))
    if channels is not None:
        while own > 1 and own * wide > _TILE // 2 and channels < _ENOUGH * own:
            own //= 2
    warps = min(4, max(1, own * wide // 256))
    if wide == 16 and size < wide and (architecture, dtype) == (100, "bfloat16"):
        warps = min(warps, 2)  # four spill
    return Tile({"N": size, "BN": wide, "BD": own}, warps, products=False)


SCAN_STEP = Kernel(
    name="scan-step",
    title="One step of decoding of the gated scan, in place",
    admits="Λ is a gate, real or complex, of any sign; vector states",
    form="recurrent",
    programs=(SCAN, COMPLEX_SCAN),
    tile=tile_for,
    sizes=(64,),
    source="Martin and Cundy 2018 (arXiv 1709.04057), the recurrence",
)
SELECTIVE_STEP = Kernel(
    name="selective-step",
    title="One step of decoding of the selective scan of S6, in place",
    admits="Λ is e^{ΔA} per channel and state, A constant; writes Δ b x, reads shared by channels",
    form="recurrent",
    programs=(SELECTIVE,),
    tile=tile_for,
    sizes=(16, 64, 128, 256),
    source="Gu and Dao 2023 (arXiv 2312.00752), the recurrence of section 2",
)


@dataclass(frozen=True, eq=False)
class Gated:
    """a, b (B, D) of one token, and the cache of states (rows, D), checked."""

    state: Tensor
    a: Tensor
    b: Tensor
    slots: Tensor | None

    def __post_init__(self) -> None:
        a, b = self.a, self.b
        if a.ndim != 2 or a.shape != b.shape:
            raise InvalidInput(
                f"`a` and `b` must be (B, D), one token; got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        checked_cache("state", self.state, (a.shape[1],), "D", a)
        checked_slots(self.slots, self.state, a.shape[0])

    def output(self) -> Tensor:
        """Room for the states (B, D), in their own type."""
        return self.state.new_empty(self.a.shape)


@dataclass(frozen=True, eq=False)
class Selective:
    """x, Δ (B, D), A (D, N), b, c (B, G, N), skip (D,) of one token, and states (rows, D, N), checked."""

    state: Tensor
    x: Tensor
    delta: Tensor
    A: Tensor
    b: Tensor
    c: Tensor
    skip: Tensor | None
    slots: Tensor | None

    def __post_init__(self) -> None:
        x, A, b = self.x, self.A, self.b
        if x.ndim != 2 or self.delta.shape != x.shape:
            raise InvalidInput(
                "`x` and `delta` must be (B, D), one token; got "
                f"{tuple(x.shape)} and {tuple(self.delta.shape)}"
            )
        B, D = x.shape
        if A.ndim != 2 or A.shape[0] != D or A.shape[1] < 1:
            raise InvalidInput(f"`A` must be ({D}, N) with N >= 1; got {tuple(A.shape)}")
        for name, each in (("b", b), ("c", self.c)):
            if each.ndim != 3 or each.shape[0] != B or each.shape[2] != A.shape[1]:
                raise InvalidInput(
                    f"`{name}` must be ({B}, G, {A.shape[1]}); got {tuple(each.shape)}"
                )
        if self.c.shape[1] != self.groups or not self.groups or D % self.groups:
            raise InvalidInput(
                f"`b` and `c` have {self.groups} and {self.c.shape[1]} groups: equal, and a divisor of D = {D}"
            )
        if self.skip is not None and tuple(self.skip.shape) != (D,):
            raise InvalidInput(f"`skip` must be ({D},); got {tuple(self.skip.shape)}")
        checked_cache("state", self.state, (D, A.shape[1]), "D, N", x)
        checked_slots(self.slots, self.state, B)

    @property
    def groups(self) -> int:
        return self.b.shape[1]

    def output(self) -> Tensor:
        """Room for the outputs (B, D), in the type of x."""
        return self.x.new_empty(self.x.shape)


def launch_scan(q: Gated) -> Tensor:
    """The new states (B, D); those of the slots are changed."""
    h, whole = q.output(), q.a.is_complex()
    (B, D), program = q.a.shape, COMPLEX_SCAN if whole else SCAN
    tile = tile_for(program, "float32", D, 90)
    grid = (B, -(-D // int(tile.constants["BC"])))
    if 0 in grid:
        return h
    tensors = (q.a.contiguous(), q.b.contiguous(), q.state, contiguous(q.slots), h)
    flat = [x if x is None or not x.is_complex() else torch.view_as_real(x) for x in tensors]
    stride = q.state.stride(0) * (2 if whole else 1)
    resolve(program.function)[grid](
        *flat,
        q.state.shape[0],
        stride,
        D,
        COMPLEX=whole,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **tile.constants,
    )
    return h


def launch_selective(q: Selective) -> Tensor:
    """Outputs (B, D) in the type of x; the states of the slots are changed."""
    y, (B, D), N = q.output(), q.x.shape, q.A.shape[1]
    dtype, architecture = target_of(q.x)
    tile = tile_for(SELECTIVE, dtype, N, architecture, B * D)
    grid = (B, -(-(D // q.groups) // int(tile.constants["BD"])), q.groups)
    if 0 in grid:
        return y
    given = (q.x, q.delta, q.A.float(), q.b, q.c, q.skip)
    resolve(SELECTIVE.function)[grid](
        *map(contiguous, given),
        q.state,
        contiguous(q.slots),
        y,
        q.state.shape[0],
        q.state.stride(0),
        D,
        q.groups,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **tile.constants,
    )
    return y

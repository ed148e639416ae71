"""Systems of small integers: every sum and product is exact, so forms must agree bit for bit.

Gates are 0, ±1 (or ±i), matrices are signed permutations, low-rank parts have one entry per column,
logarithms are 0 or -inf. `within_range` checks that nothing leaves the integers that the accumulator
holds exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, DenseCoupling, OuterCoupling
from dsf.state import State
from dsf.structure import DPLR, Block, Dense, Diagonal, Elementwise, Identity, Scalar, Structure
from dsf.system import Normaliser, System

from . import naive
from .spanning import Levels, name_of

K, V = 4, 3
SIZES = {"empty": (0, 2), "one": (1, 1)}  # (B, H); all else is (2, 2)
DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
}


@dataclass(frozen=True)
class Ink:
    """Small integers for leaves with leading axes (B, T, H)."""

    generator: torch.Generator
    lead: tuple[int, int, int]

    def pick(self, *own: int, low: int = -1, high: int = 1) -> Tensor:
        shape = (*self.lead, *own)
        return torch.randint(low, high + 1, shape, generator=self.generator).double()

    def gate(self, *own: int) -> Tensor:
        """Mostly 1, sometimes 0 or -1."""
        chance = torch.rand(*self.lead, *own, generator=self.generator)
        return torch.where(chance < 0.6, 1.0, torch.where(chance < 0.8, -1.0, 0.0)).double()

    def open(self, *own: int) -> Tensor:
        """Mostly 1, sometimes 0."""
        return (torch.rand(*self.lead, *own, generator=self.generator) < 0.8).double()

    def turn(self, *own: int) -> Tensor:
        """1, i, -1 or -i, sometimes 0."""
        units = torch.tensor([1, 1j, -1, -1j, 0], dtype=torch.complex128)
        return units[torch.randint(5, (*self.lead, *own), generator=self.generator)]

    def permutation(self, *own: int) -> Tensor:
        """Signed permutation matrices (…, n, n)."""
        order = torch.rand(*self.lead, *own[:-1], generator=self.generator).argsort(-1)
        return torch.eye(own[-1], dtype=torch.float64)[order] * self.gate(*own[:-1], 1)

    def column(self, *own: int) -> Tensor:
        """±1 or 0 in one place of each column (…, K, r)."""
        place = torch.randint(own[0], (*self.lead, own[1]), generator=self.generator)
        one = torch.nn.functional.one_hot(place, own[0]).double().transpose(-1, -2)
        return one * self.gate(1, own[1])


KINDS: dict[str, Callable[[Ink], Structure]] = {
    "identity": lambda p: Identity(),
    "scalar": lambda p: Scalar(p.gate()),
    "log scalar": lambda p: Scalar.from_log(torch.log(p.open())),
    "complex scalar": lambda p: Scalar(p.turn()),
    "diagonal": lambda p: Diagonal(p.gate(K)),
    "log diagonal": lambda p: Diagonal.from_log(torch.log(p.open(K))),
    "complex diagonal": lambda p: Diagonal(p.turn(K)),
    "elementwise": lambda p: Elementwise(p.gate(K, V)),
    "log elementwise": lambda p: Elementwise.from_log(torch.log(p.open(K, V))),
    "complex elementwise": lambda p: Elementwise(p.turn(K, V)),
    "block": lambda p: Block(p.permutation(2, 2, 2)),
    "complex block": lambda p: Block(p.permutation(2, 2, 2) * p.turn(2, 1, 1)),
    "rank one": lambda p: DPLR(Identity(), p.column(K, 1), p.column(K, 1)),
    "scalar and rank two": lambda p: DPLR(Scalar(p.open()), p.column(K, 2), p.column(K, 2)),
    "log diagonal and rank one": lambda p: DPLR(
        Diagonal.from_log(torch.log(p.open(K))), p.column(K, 1), p.column(K, 1)
    ),
    "complex and rank one": lambda p: DPLR(
        Diagonal(p.turn(K)), p.turn(1, 1) * p.column(K, 1), p.column(K, 1)
    ),
    "dense": lambda p: Dense(p.permutation(K, K)),
    "complex dense": lambda p: Dense(p.permutation(K, K) * p.turn(1, 1)),
}

COUPLINGS: dict[str, Callable[[Ink, Ink], tuple[Coupling, Coupling, tuple[int, ...]]]] = {
    "outer": lambda w, r: (OuterCoupling(w.pick(K)), OuterCoupling(r.pick(K)), (V,)),
    "several": lambda w, r: (OuterCoupling(w.pick(2, K)), OuterCoupling(r.pick(3, K)), (2, V)),
    "two and two": lambda w, r: (OuterCoupling(w.pick(2, K)), OuterCoupling(r.pick(2, K)), (2, V)),
    "one axis": lambda w, r: (OuterCoupling(w.pick(1, K)), OuterCoupling(r.pick(K)), (1, V)),
    "channel write": lambda w, r: (ChannelCoupling(w.pick(K, V)), OuterCoupling(r.pick(K)), (V,)),
    "channel": lambda w, r: (ChannelCoupling(w.pick(K, V)), ChannelCoupling(r.pick(K, V)), (V,)),
    "vector": lambda w, r: (DenseCoupling(w.pick(K, V)), DenseCoupling(r.pick(V, K)), (V,)),
    "tall vector": lambda w, r: (DenseCoupling(w.pick(K, V)), DenseCoupling(r.pick(2, K)), (V,)),
}

FACTORS: dict[str, tuple[Any, ...]] = {
    "kind": tuple(KINDS),
    "coupling": tuple(COUPLINGS),
    "timing": ("after", "before", "end"),
    "constant": ("varying", "constant gates", "constant couplings", "constant"),
    "length": (0, 1, 2, 3, 7, 8, 19),
    "start": ("empty", "started"),
    "extra": (
        "plain",
        "D scalar",
        "D matrix",
        "offset",
        "normaliser",
        "floor",
        "log write",
        "real",
    ),
    "dtype": tuple(DTYPES),
    "layout": ("plain", "strided", "expanded", "broadcast", "one", "empty"),
}


def possible(row: Levels) -> bool:
    """What the rules of `System` allow."""
    kind, coupling, extra = row["kind"], row["coupling"], row["extra"]
    vector, complex_ = "vector" in coupling, "complex" in kind
    if "elementwise" in kind and (vector or extra in ("normaliser", "floor")):
        return False
    if extra in ("D scalar", "D matrix"):
        square = coupling in ("outer", "two and two", "channel write", "channel", "vector")
        return square and row["timing"] != "end"
    if extra == "log write":
        return kind in ("identity", "log scalar") and coupling in ("outer", "several", "one axis")
    if extra in ("normaliser", "floor"):
        outer = coupling in ("outer", "several", "two and two", "one axis")
        return outer and kind in ("identity", "scalar", "log scalar", "diagonal", "log diagonal")
    return complex_ or extra != "real"


@dataclass(frozen=True)
class Problem:
    """A system before its layout is applied, and what runs through it."""

    name: str
    system: System
    tokens: Tensor
    state: State | None
    layout: Callable[[Tensor], Tensor]
    length: int
    levels: Levels = field(default_factory=dict)

    def laid_out(self) -> tuple[System, Tensor, State | None]:
        return self.system.map(self.layout), self.layout(self.tokens), self.state


def problem(levels: Levels, seed: int = 0) -> Problem:
    """The problem of a row; its numbers follow from the row's name and `seed`."""
    row = {name: FACTORS[name][0] for name in FACTORS} | {"dtype": "f64"} | dict(levels)
    generator = torch.Generator().manual_seed(zlib.crc32(name_of(row).encode()) + seed)
    layout, length, dtype = row["layout"], row["length"], DTYPES[row["dtype"]]
    batch, heads = SIZES.get(layout, (2, 2))
    shared = 1 if layout in ("expanded", "broadcast") else batch
    fewer = 1 if layout == "broadcast" else heads
    gates = Ink(
        generator,
        (shared, 1 if row["constant"] in ("constant", "constant gates") else length, fewer),
    )
    steps = 1 if row["constant"] in ("constant", "constant couplings") else length
    writes = Ink(generator, (shared, steps, heads))
    reads = writes if row["timing"] != "end" else Ink(generator, (shared, 3, heads))
    write, read, own = COUPLINGS[row["coupling"]](writes, reads)
    system = System(
        KINDS[row["kind"]](gates), write, read, timing=row["timing"], **_extras(row, writes, own)
    )
    if system.normaliser is not None:  # denominators of one sign
        system = system.replace(
            write=write.map(lambda x: x.abs() + 1),
            read=read.map(lambda x: x.abs() + 1),
            transition=system.transition
            if system.log_write is not None
            else system.transition.map(
                lambda x, _: x.clamp(max=1).abs() if _is_value(system) else x
            ),
        )
    few = 1 if layout == "expanded" else batch
    tokens = Ink(generator, (few, length, heads)).pick(*own)
    if _complex_tokens(row):
        tokens = tokens * 1j
    state = None
    if row["start"] == "started" or (system.normaliser is not None and row["timing"] != "after"):
        state = _start(generator, system, (batch, heads))

    def cast(x: Tensor) -> Tensor:
        if x.is_complex():
            return x.to(torch.complex128 if dtype is torch.float64 else torch.complex64)
        return x.to(dtype)

    kept = None if state is None else state.map(cast)
    return Problem(
        name_of(row), system.map(cast), cast(tokens), kept, _layout(layout, batch), length, row
    )


def _is_value(system: System) -> bool:
    return getattr(system.transition, "value", None) is not None


def _complex_tokens(row: Levels) -> bool:
    """Some complex systems are driven by complex values."""
    return "complex" in row["kind"] and row["extra"] == "plain" and row["start"] == "empty"


def _extras(row: Levels, ink: Ink, own: tuple[int, ...]) -> dict[str, Any]:
    extra = row["extra"]
    outputs = own
    if row["coupling"] == "several":
        outputs = (3, V)
    elif row["coupling"] == "one axis":
        outputs = (V,)
    elif row["coupling"] == "tall vector":
        outputs = (2,)
    reads = 3 if row["timing"] == "end" else ink.lead[1]
    at_reads = Ink(ink.generator, (ink.lead[0], reads, ink.lead[2]))
    return {
        "plain": lambda: {},
        "D scalar": lambda: {"feedthrough": Scalar(ink.pick())},
        "D matrix": lambda: {"feedthrough": Dense(ink.pick(own[-1], own[-1]))},
        "offset": lambda: {"offset": at_reads.pick(*outputs)},
        "normaliser": lambda: {"normaliser": Normaliser()},
        "floor": lambda: {"normaliser": Normaliser(floor=4.0)},
        "log write": lambda: {
            "normaliser": Normaliser(floor=4.0),
            "log_write": torch.log(ink.open()),
        },
        "real": lambda: {"real_part": True},
    }[extra]()


def _start(generator: torch.Generator, system: System, sizes: tuple[int, int]) -> State:
    ink = Ink(generator, (*sizes, K))
    memory = ink.pick() if system.is_vector else ink.pick(V)
    if system.is_complex:
        memory = memory * (1 + 1j)
    if system.normaliser is None:
        return State(memory)
    stabiliser = None
    if system.log_write is not None:
        stabiliser = torch.zeros(sizes, dtype=torch.float64)
    return State(memory, ink.pick(low=1, high=2), stabiliser)


def _layout(name: str, batch: int) -> Callable[[Tensor], Tensor]:
    if name == "strided":
        return lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]
    if name == "expanded":
        return lambda x: x.expand(batch, *x.shape[1:])
    return lambda x: x


def within_range(given: Problem) -> None:
    """Raise unless every number of the run is an integer that the accumulator holds exactly."""
    exact = 2.0**53 if given.tokens.dtype.to_real() is torch.float64 else 2.0**24

    def size(x: Tensor) -> Tensor:
        return x.abs().double()

    system, state = given.system, given.state
    gates = system.transition.linear()
    big = system.replace(
        transition=gates.map(lambda x, _: size(x)),
        write=system.write.map(size),
        read=system.read.map(size),
        real_part=False,
        normaliser=None,
        log_write=None,
        feedthrough=None
        if system.feedthrough is None
        else system.feedthrough.map(lambda x, _: size(x)),
        offset=None if system.offset is None else size(system.offset),
    )
    start = None if state is None else State(size(state.memory))
    outputs, memory = naive.run(big, size(given.tokens), start)
    for found in (outputs, memory):
        largest = float(found.max(initial=0.0))
        if not largest < exact:
            raise AssertionError(f"{given.name}: {largest} is no exact integer; take another seed")

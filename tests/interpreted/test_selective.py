"""The programs of the selective scan, interpreted: against exact rationals and the recurrence in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

import dsf
from dsf.forms.base import Sizes
from dsf.forms.bounds import error_bound
from dsf.forms.recurrent import Recurrent
from dsf.kernels.scans import selective
from dsf.kernels.triton_code import selective as code
from dsf.kernels.triton_code import selective_segments
from dsf.kernels.triton_code.selective_tiles import walk, walk_back
from dsf.mixers import s6
from dsf.numerics import BoundExceeded, Roundings, require_within, unit_roundoff
from dsf.state import State
from dsf.system import System


@dataclass(frozen=True)
class Row:
    name: str
    batch: int = 1
    length: int = 19
    channels: int = 4
    states: int = 3
    groups: int = 1
    dtype: torch.dtype = torch.float32
    starts: tuple[int, ...] | None = None
    rate: float = 1.0
    segment: int | None = None


ROWS = (
    Row("odd length, two in a batch", batch=2, length=21, channels=2),
    Row("several tiles of steps", length=50, channels=2, states=2),
    Row("several tiles of channels", length=5, channels=10, states=4),
    Row("groups", channels=6, groups=3, length=9),
    Row("one step", length=1),
    Row("no step", length=0),
    Row("packed, one empty", length=40, channels=2, states=2, starts=(0, 0, 17, 40)),
    Row("fast rates", rate=200.0, length=18, channels=2),
    Row("huge steps", rate=1e30, length=3, channels=3, states=2),
    Row("odd groups of odd channels, packed", channels=9, groups=3, length=5, starts=(0, 0, 5, 5)),
    Row("slow rates", rate=1e-6, length=18, channels=2),
    Row("float16", dtype=torch.float16, channels=2),
    Row("bfloat16", dtype=torch.bfloat16, channels=2),
)
CUT = {
    "odd length, two in a batch": 16,
    "several tiles of steps": 16,
    "packed, one empty": 16,
    "fast rates": 16,
}
IN_SEGMENTS = tuple(
    replace(row, name=f"{row.name}, in segments", segment=CUT[row.name])
    for row in ROWS
    if row.name in CUT
)
NAMES = ("x", "delta", "A", "b", "c", "states", "skip")


@dataclass(frozen=True, eq=False)
class Case:
    row: Row
    leaves: tuple[Tensor, ...]  # x, delta, A, b, c, state, skip
    dy: Tensor
    dfinal: Tensor

    @property
    def quantities(self) -> selective.Quantities:
        starts = None if self.row.starts is None else torch.tensor(self.row.starts)
        return selective.Quantities.of(*self.leaves, starts)


def drawn(row: Row) -> Case:
    draw = torch.Generator().manual_seed(len(row.name))
    lead, D, N = (row.batch, row.length), row.channels, row.states
    sequences = row.batch if row.starts is None else len(row.starts) - 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    x, delta = normal(*lead, D).to(row.dtype), normal(*lead, D).abs().to(row.dtype)
    A = -row.rate * torch.rand((D, N), generator=draw)
    b, c = (normal(*lead, row.groups, N).to(row.dtype) for _ in range(2))
    leaves = (x, delta, A, b, c, normal(sequences, D, N), normal(D))
    return Case(row, leaves, normal(*lead, D).to(row.dtype), normal(sequences, D, N))


def pieces(row: Row) -> list[tuple[slice, slice]]:
    if row.starts is None:
        return [(slice(0, row.batch), slice(0, row.length))]
    pairs = zip(row.starts[:-1], row.starts[1:], strict=True)
    return [(slice(n, n + 1), slice(*pair)) for n, pair in enumerate(pairs)]


@dataclass(frozen=True)
class Scanned(Recurrent):
    """Prefixes of 16 steps: some roundings more a step, and those of the exponent ΔA (none beyond e^-104)."""

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        deepest = float(system.transition.leaves[0].abs().max()) if sizes.length else 0.0
        return Roundings(step=8 + 2 * min(deepest, 104.0), path=16 + 2 * system.key_size)


def multiplied_out(system: System) -> System:
    """The system with its gates and writes as one tensor each: the leaves that `through` goes back from."""
    return system.replace(transition=system.transition.whole(), write=system.write.whole())


def law_within_bounds(row: Row) -> None:
    """Outputs, last states and all gradients within the bounds of the recurrence in float64."""
    case = drawn(row)
    y, final, kept = selective.forward(case.quantities, steps=row.segment)
    found = selective.backward(case.quantities, kept, case.dy, case.dfinal, steps=row.segment)
    own = row.channels // row.groups
    sums = [torch.zeros(x.shape, dtype=torch.float64) for x in case.leaves]
    limits = [torch.zeros(x.shape, dtype=torch.float64) for x in case.leaves]
    for sequences, steps in pieces(row):
        for group in range(row.groups):
            at = slice(group * own, (group + 1) * own)
            places = (
                (slice(None), steps, at), (slice(None), steps, at), (at,),
                (slice(None), steps, group), (slice(None), steps, group), (sequences, at), (at,),
            )  # fmt: skip
            inputs = [leaf[p] for leaf, p in zip(case.leaves, places, strict=True)]
            up, last = case.dy[:, steps, at].float(), case.dfinal[sequences, at]
            wide = [each.double().requires_grad_() for each in inputs]
            start = State(wide[5].mT[:, None])
            outputs, end = dsf.run(
                s6(*wide[1:5], skip=wide[6]), wide[0][:, :, None], start, form="recurrent"
            )
            results = (outputs[:, :, 0], end.memory[:, 0].mT)
            exact = torch.autograd.grad(
                results, wide, (up.double(), last.double()), allow_unused=True
            )
            told = [each.float() for each in inputs]
            bounds = error_bound(
                multiplied_out(s6(*told[1:5], skip=told[6])), told[0][:, :, None], State(told[5].mT[:, None]),
                form=Scanned(), cotangents=(up[:, :, None], last.mT[:, None]),
            )  # fmt: skip
            rounded = 2 * unit_roundoff(row.dtype)
            limit = bounds.outputs[:, :, 0] + rounded * results[0].abs()
            require_within(y[:, steps, at], results[0], limit, "outputs")
            require_within(final[sequences, at], results[1], bounds.memory[:, 0].mT, "last states")
            shares = through(bounds.gradients, told, up.double())
            for i, (place, value, bound) in enumerate(zip(places, exact, shares, strict=True)):
                sums[i][place] += 0 if value is None else value
                limits[i][place] += bound
    for name, one, value, bound, leaf in zip(NAMES, found, sums, limits, case.leaves, strict=True):
        rounded = 2 * unit_roundoff(leaf.dtype) * value.abs()
        require_within(one, value, bound + rounded, f"gradient of {name}")


def through(gradients: tuple[Tensor, ...], told: list[Tensor], up: Tensor) -> list[Tensor]:
    """Bounds for x, Δ, A, b, c, the states and D from those for log Λ = ΔA, B = Δb, C, tokens and memory."""
    of_gate, of_write, of_read, of_tokens, of_memory = gradients
    x, delta, A, b, *_, skip = (each.double() for each in told)
    u = unit_roundoff(torch.float32)
    gates, writes = of_gate[:, :, 0], of_write[:, :, 0]  # (B, T, N, D)
    of_delta = (gates * A.mT.abs()).sum(2) + (writes * b.abs()[..., None]).sum(2)
    of_A = (gates * delta.abs()[:, :, None]).sum((0, 1)).mT
    of_b = (writes * delta.abs()[:, :, None]).sum(3)
    of_x = of_tokens[:, :, 0] + 2 * u * (skip * up).abs()
    of_skip = (2 + x[:, :, 0].numel()) * u * (x * up).abs().sum((0, 1))
    return [of_x, of_delta, of_A, of_b, of_read[:, :, 0], of_memory[:, 0].mT, of_skip]


@pytest.mark.parametrize("row", (*ROWS, *IN_SEGMENTS), ids=lambda row: row.name)
def test_within_bounds_of_the_recurrence(row: Row) -> None:
    law_within_bounds(row)


def test_exact_rationals() -> None:
    """Without decay, small integers have no roundings: states and outputs are exact."""
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randint(-3, 4, (1, 18, 1, 2), generator=draw).float() for _ in range(4)]
    x, delta = (each[:, :, 0] for each in whole[:2])
    y, final, _ = selective.forward(
        selective.Quantities.of(
            x, delta, torch.zeros(2, 2), whole[2], whole[3], None, torch.zeros(2), None
        )
    )
    for d in range(2):
        h = [Fraction(0), Fraction(0)]
        for t in range(18):
            enters = Fraction(float(x[0, t, d] * delta[0, t, d]))
            h = [a + enters * Fraction(float(w)) for a, w in zip(h, whole[2][0, t, 0], strict=True)]
            read = zip(h, whole[3][0, t, 0], strict=True)
            assert Fraction(float(y[0, t, d])) == sum(a * Fraction(float(w)) for a, w in read)
        assert [Fraction(float(each)) for each in final[0, d]] == h


def test_forward_and_backward_are_adjoint() -> None:
    """⟨dy, L x⟩ + ⟨dh, M x⟩ = ⟨dx, x⟩ for the map of x alone, from an empty state."""
    case = drawn(ROWS[0])
    x, *rest, state, skip = case.leaves
    q = selective.Quantities.of(x, *rest, torch.zeros_like(state), skip, None)
    y, final, kept = selective.forward(q)
    dx = selective.backward(q, kept, case.dy, case.dfinal)[0]
    pairs = ((case.dy, y), (case.dfinal, final))
    there = sum(float((one.double() * two.double()).sum()) for one, two in pairs)
    size = sum(float((one * two).abs().sum()) for one, two in pairs)
    back = float((dx.double() * x.double()).sum())
    assert abs(there - back) <= 8 * (16 + 21) * unit_roundoff(torch.float32) * size


@triton.jit
def walk_from_zero(gates, enters, h, offsets, S: tl.constexpr):
    return walk(gates, enters, 0.0 * h, offsets, S)


@triton.jit
def walk_back_from_zero(gates, above, carried, offsets, S: tl.constexpr):
    return walk_back(gates, above, 0.0 * carried, offsets, S)


@triton.jit
def sum_of_half_the_channels(tile):
    return tl.sum(tl.sum(tile, 2), 2) / 2


PLANTED = {
    "walk": walk_from_zero,
    "walk_back": walk_back_from_zero,
    "sum_of_channels": sum_of_half_the_channels,
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    monkeypatch.setattr(code, name, PLANTED[name])
    with pytest.raises(BoundExceeded):
        law_within_bounds(ROWS[0])


@triton.jit
def not_carried(
    states, decays, given, segments, size, BC: tl.constexpr, REVERSE: tl.constexpr
):  # fmt: skip
    pass


@triton.jit
def without_decay(
    states, decays, given, segments, size, BC: tl.constexpr, REVERSE: tl.constexpr
):  # fmt: skip
    sequence, cells = tl.program_id(2), tl.arange(0, BC)
    first, stop = tl.load(segments + sequence), tl.load(segments + sequence + 1)
    h = tl.load(given + sequence * size + cells, mask=cells < size, other=0.0)
    for turn in range(first, stop):
        at = stop - 1 - (turn - first) if REVERSE else turn
        added = tl.load(states + at * size + cells, mask=cells < size, other=0.0)
        tl.store(states + at * size + cells, h, mask=cells < size)
        h += added


@pytest.mark.parametrize("bug", [not_carried, without_decay], ids=["not carried", "no decay"])
@pytest.mark.parametrize("row", IN_SEGMENTS[:3], ids=lambda row: row.name)
def test_planted_bugs_of_segments_are_caught(bug, row: Row, monkeypatch) -> None:
    monkeypatch.setattr(selective_segments, "over", bug)
    with pytest.raises(BoundExceeded):
        law_within_bounds(row)


@pytest.mark.parametrize("place", [0, 1], ids=["forward", "backward"])
def test_segments_keep_the_states_that_one_walk_keeps(place: int) -> None:
    """Either pass may be cut, and the other not: a state is kept where the steps are, not the segments."""
    case = drawn(next(row for row in ROWS if row.name == "packed, one empty"))
    q = case.quantities
    steps = (None, 16) if place else (16, None)
    _, _, kept = selective.forward(q, steps=steps[0])
    found = selective.backward(q, kept, case.dy, case.dfinal, steps=steps[1])
    exact = selective.backward(q, selective.forward(q)[2], case.dy, case.dfinal)
    roundings = 8 * case.dy.shape[1] * unit_roundoff(torch.float32)
    for one, other in zip(found, exact, strict=True):
        require_within(one, other, (roundings * other.abs().max()).expand_as(other), "gradient")

"""The programs of scalar decay, interpreted: against sixty digits at small size, float64 forms at larger."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import mpmath
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

import dsf
from dsf.certificate import Budget, Task
from dsf.coupling import OuterCoupling
from dsf.forms.base import Sizes
from dsf.forms.bounds import error_bound
from dsf.kernels.claims import gate_rounding
from dsf.kernels.decay import scalar, walks
from dsf.kernels.decay.scalar_form import ScalarDecay
from dsf.kernels.shapes import repeated
from dsf.kernels.triton_code import carry, decay_gates
from dsf.kernels.triton_code import chunk_decay as code
from dsf.numerics import BoundExceeded, Roundings, require_within, unit_roundoff
from dsf.state import State
from dsf.structure import Scalar
from dsf.system import System


@dataclass(frozen=True)
class Row:
    """Sizes of one case. `heads` are those of g, q, k, v; `starts` packs sequences into one row."""

    name: str
    batch: int = 1
    length: int = 20
    heads: tuple[int, int, int, int] = (2, 2, 2, 2)
    keys: int = 16
    values: int = 16
    dtype: torch.dtype = torch.float32
    starts: tuple[int, ...] | None = None
    gates: float = 1.0  # the size of log-decays
    zero: bool = False  # some decays are exact zeros
    scale: float = 0.5
    segment: int | None = None  # steps that are walked at once, where time is cut


ROWS = (
    Row("odd length", batch=2, length=37),
    Row("one step", length=1),
    Row("no step", length=0),
    Row("no sequence", batch=0, length=5),
    Row("one channel", keys=1, values=1, length=19),
    Row("heads that are not powers of two", keys=20, values=24),
    Row("several tiles of keys and of values", keys=70, values=40, length=17, heads=(1, 1, 1, 1)),
    Row("one key for four heads", heads=(4, 4, 1, 2)),
    Row("one query for two heads", heads=(2, 1, 2, 2)),
    Row("packed, one empty", length=33, starts=(0, 0, 20, 33)),
    Row("several blocks of gates", length=270, keys=8, values=8, heads=(1, 1, 1, 1)),
    Row("tiny gates", gates=1e-6),
    Row("huge gates", gates=300.0),
    Row("exact zeros", zero=True, length=40),
    Row("exact zeros over blocks", zero=True, length=150, keys=4, values=4, starts=(0, 9, 150)),
    Row("float16", dtype=torch.float16, length=70),
    Row("bfloat16", dtype=torch.bfloat16, length=70),
    Row("bfloat16, several tiles of keys", dtype=torch.bfloat16, keys=130, heads=(1, 1, 1, 1)),
)  # fmt: skip

CUT = {
    "odd length": 16,
    "no step": 16,
    "heads that are not powers of two": 7,
    "several tiles of keys and of values": 16,
    "one key for four heads": 8,
    "packed, one empty": 8,
    "huge gates": 8,
    "exact zeros": 16,
    "float16": 32,
    "bfloat16": 64,
}
IN_SEGMENTS = tuple(
    replace(row, name=f"{row.name}, in segments", segment=CUT[row.name])
    for row in ROWS
    if row.name in CUT
)


@dataclass(frozen=True, eq=False)
class Case:
    """Drawn quantities, cotangents, and what the kernel is told."""

    row: Row
    leaves: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    do: Tensor
    dfinal: Tensor

    @property
    def quantities(self) -> scalar.Quantities:
        q, k, v, g, state = self.leaves
        starts = None if self.row.starts is None else torch.tensor(self.row.starts)
        return scalar.Quantities.of(q, k, v, g, state, self.row.scale, starts)


def drawn(row: Row) -> Case:
    draw = torch.Generator().manual_seed(len(row.name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    lead, (H, Hq, Hk, Hv) = (row.batch, row.length), row.heads
    q, k, v = (
        normal(*lead, Hq, row.keys),
        normal(*lead, Hk, row.keys),
        normal(*lead, Hv, row.values),
    )
    q, k, v = (x.to(row.dtype) for x in (q, k / math.sqrt(row.keys), v))
    g = -row.gates * torch.rand((*lead, H), generator=draw)
    if row.zero:
        g = torch.where(torch.rand(g.shape, generator=draw) < 0.15, -torch.inf, g)
    sequences = row.batch if row.starts is None else len(row.starts) - 1
    state = normal(sequences, H, row.keys, row.values)
    do, dfinal = normal(*lead, H, row.values).to(row.dtype), normal(*state.shape)
    return Case(row, (q, k, v, g, state), do, dfinal)


def pieces(case: Case) -> list[tuple[slice, slice]]:
    """Sequences and steps of each run."""
    if case.row.starts is None:
        return [(slice(0, case.row.batch), slice(0, case.row.length))]
    pairs = zip(case.row.starts[:-1], case.row.starts[1:], strict=True)
    return [(slice(n, n + 1), slice(*pair)) for n, pair in enumerate(pairs)]


def system_of(case: Case, steps: slice) -> tuple[System, Tensor]:
    q, k, v, g, _ = case.leaves
    heads = g.shape[2]
    q, k, v = (repeated(x, heads)[:, steps].float() for x in (q, k, v))
    gates = Scalar.from_log(g[:, steps])
    return System(gates, OuterCoupling(k), OuterCoupling(case.row.scale * q)), v


@dataclass(frozen=True)
class Stored(ScalarDecay):
    """The kernel's roundings where products are of a narrower type: four more per path, of that type."""

    dtype: torch.dtype = torch.float32

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        found = super().roundings(system, sizes)
        times = unit_roundoff(self.dtype) / unit_roundoff(torch.float32)
        return replace(found, path=found.path + (6 * times if times > 1 else 0))


def launched(case: Case) -> tuple[Tensor, ...]:
    """Outputs, final states and the five gradients, as the programs compute them."""
    x = case.quantities
    how = {"upcast": case.row.dtype == torch.bfloat16, "steps": case.row.segment}
    o, final = scalar.forward(x, **how)
    return o, final, *scalar.backward(x, case.do, case.dfinal, **how)


def law_within_bounds(row: Row) -> None:
    """Every result is within its bound of the recurrence in float64; gradients by the adjoint's own paths."""
    case = drawn(row)
    o, final, dq, dk, dv, dg, dstate = launched(case)
    q, k, v, g, state = case.leaves
    heads = g.shape[2]
    sums: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    for sequences, steps in pieces(case):
        system, tokens = system_of(case, steps)
        first, last = state[sequences], case.dfinal[sequences]
        up = case.do[:, steps].float()
        form = Stored(row.dtype)
        limits = error_bound(system, tokens, State(first), form=form, cotangents=(up, last))
        wide = [
            x.double().requires_grad_()
            for x in (g[:, steps], system.write.weights, system.read.weights, tokens, first)
        ]
        exact = System(Scalar.from_log(wide[0]), OuterCoupling(wide[1]), OuterCoupling(wide[2]))
        outputs, end = dsf.run(exact, wide[3], State(wide[4]), form="recurrent")
        rounded = 2 * unit_roundoff(row.dtype) * outputs.detach().abs()
        require_within(o[:, steps], outputs, limits.outputs + rounded, "outputs")
        require_within(final[sequences], end.memory, limits.memory, "final states")
        grads = torch.autograd.grad(
            (outputs, end.memory), wide, (up.double(), last.double()), allow_unused=True
        )
        grads = [
            torch.zeros_like(x) if one is None else one for one, x in zip(grads, wide, strict=True)
        ]
        of_g, of_k, of_q, of_v, of_state = (
            b.expand_as(x) for b, x in zip(limits.gradients, grads, strict=True)
        )
        require_within(dstate[sequences], grads[4], of_state, "gradient of the states")
        # The gates' gradient is a sum over later steps of differences: so is its bound.
        each = (system.read.weights.abs().double() * of_q + wide[1].detach().abs() * of_k).sum(-1)
        rest = (last.abs().double() * limits.memory).sum((-1, -2))[:, None]
        bound = each.flip(1).cumsum(1).flip(1) + rest + of_g
        gates = torch.where(torch.isneginf(g[:, steps]), 0.0, grads[0])
        require_within(dg[:, steps], gates, bound, "gradient of the gates")
        for place, (exactly, about) in enumerate(
            ((row.scale * grads[2], row.scale * of_q), (grads[1], of_k), (grads[3], of_v))
        ):
            sums[place].append((exactly, about))
    for name, found, like, parts in zip("qkv", (dq, dk, dv), (q, k, v), sums, strict=True):
        exactly, about = (
            torch.cat(each, 1).unflatten(2, (like.shape[2], -1)).sum(3)
            for each in zip(*parts, strict=True)
        )
        rounded = (
            2 * unit_roundoff(row.dtype) * exactly.abs()
            + heads * unit_roundoff(torch.float32) * about
        )
        require_within(found, exactly, about + rounded, f"gradient of {name}")


@pytest.mark.parametrize("row", ROWS + IN_SEGMENTS, ids=lambda row: row.name)
def test_within_bounds_of_the_recurrence(row: Row) -> None:
    law_within_bounds(row)


SMALL = Row("small", length=5, keys=2, values=3, heads=(1, 1, 1, 1), zero=False)


def test_in_sixty_digits() -> None:
    """Outputs and final state of a short run, against the recurrence in sixty digits."""
    case = drawn(SMALL)
    q, k, v, g, state = case.leaves
    o, final = scalar.forward(case.quantities)
    with mpmath.workdps(60):
        S = mpmath.matrix(state[0, 0].tolist())
        rows = []
        for t in range(SMALL.length):
            key, value = mpmath.matrix(k[0, t, 0].tolist()), mpmath.matrix(v[0, t, 0].tolist())
            S = mpmath.exp(mpmath.mpf(float(g[0, t, 0]))) * S + key * value.T
            rows.append((S.T * mpmath.matrix(q[0, t, 0].tolist()) * mpmath.mpf(SMALL.scale)).T)
        exact = torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)
        end = torch.tensor(
            [[float(S[i, j]) for j in range(3)] for i in range(2)], dtype=torch.float64
        )
    system, tokens = system_of(case, slice(0, SMALL.length))
    limits = error_bound(system, tokens, State(state), form=ScalarDecay())
    require_within(o[0, :, 0], exact, limits.outputs[0, :, 0], "outputs")
    require_within(final[0, 0], end, limits.memory[0, 0], "final state")


def test_forward_and_backward_are_adjoint() -> None:
    """⟨dy, L v⟩ + ⟨dh, M v⟩ = ⟨dv, v⟩ for the map of v alone, from an empty state."""
    case = drawn(replace(ROWS[0], name="adjoint"))
    q, k, v, g, state = case.leaves
    x = replace(case, leaves=(q, k, v, g, torch.zeros_like(state))).quantities
    o, final = scalar.forward(x)
    dv = scalar.backward(x, case.do, case.dfinal)[2]
    there = float(
        (case.do.double() * o.double()).sum() + (case.dfinal.double() * final.double()).sum()
    )
    back = float((dv.double() * v.double()).sum())
    size = float((case.do.abs() * o.abs()).sum() + (case.dfinal.abs() * final.abs()).sum())
    assert abs(there - back) <= 64 * (16 + 37) * unit_roundoff(torch.float32) * size


@triton.jit
def without_the_step_itself(table, high, low, border, steps, REVERSE: tl.constexpr):
    exponent = high[:, None] - high[None, :]
    keep = steps[:, None] > steps[None, :]
    if REVERSE:
        exponent, keep = -exponent, steps[:, None] < steps[None, :]
    return tl.where(keep, table * tl.exp2(tl.where(keep, exponent, 0.0)), 0.0)


@triton.jit
def through_zeros(table, high, low, border, steps, REVERSE: tl.constexpr):
    exponent = high[:, None] - high[None, :]
    keep = steps[:, None] >= steps[None, :]
    if REVERSE:
        exponent, keep = -exponent, steps[:, None] <= steps[None, :]
    return tl.where(keep, table * tl.exp2(tl.where(keep, exponent, 0.0)), 0.0)


@triton.jit
def never_fading(high, low, edge_high, edge_low, passes):
    return tl.where(passes, 1.0, 0.0)


@triton.jit
def through_borders(high, low, edge_high, edge_low, passes):
    return tl.exp2(high - edge_high)


@triton.jit
def one_border(logs, offsets, C: tl.constexpr):
    return tl.where(logs < -150.0, offsets, -1), offsets * 0 + C


@triton.jit
def kept(logs):
    return logs * 0.0, logs * 0.0


PLANTED = {
    "faded": (code, without_the_step_itself, ROWS[0]),
    "faded, exact zeros": (code, through_zeros, next(r for r in ROWS if r.zero)),
    "between": (code, never_fading, ROWS[0]),
    "between, exact zeros": (code, through_borders, next(r for r in ROWS if r.zero)),
    "borders": (decay_gates, one_border, next(r for r in ROWS if r.zero)),
    "prefix": (decay_gates, kept, ROWS[0]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    module, bug, row = PLANTED[name]
    monkeypatch.setattr(module, name.partition(",")[0], bug)
    with pytest.raises(BoundExceeded):
        law_within_bounds(row)


@triton.jit
def without_decay(
    states, decays, given, segments, heads,
    SIZE: tl.constexpr, BC: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    head, sequence, cells = tl.program_id(1), tl.program_id(2), tl.arange(0, BC)
    first, stop = tl.load(segments + sequence), tl.load(segments + sequence + 1)
    own = given + (sequence * heads + head) * SIZE + cells
    S = tl.load(own, mask=cells < SIZE, other=0.0)
    for turn in range(first, stop):
        at = stop - 1 - (turn - first) if REVERSE else turn
        where = states + (at * heads + head) * SIZE + cells
        added = tl.load(where, mask=cells < SIZE, other=0.0)
        tl.store(where, S, mask=cells < SIZE)
        S += added


@triton.jit
def not_carried(
    states, decays, given, segments, heads,
    SIZE: tl.constexpr, BC: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    pass


@pytest.mark.parametrize("name", ["packed, one empty", "exact zeros"])
def test_planted_bugs_of_segments_are_caught(name: str, monkeypatch) -> None:
    for bug in (without_decay, not_carried):
        monkeypatch.setattr(carry, "over", bug)
        with pytest.raises(BoundExceeded):
            law_within_bounds(next(r for r in IN_SEGMENTS if r.name == f"{name}, in segments"))


def _wrong_order(x, reads, writes, meets, far):
    return of_gates(x, writes, reads, meets, far)


of_gates = scalar.Quantities.of_gates


def test_a_planted_bug_of_the_gates_is_caught(monkeypatch) -> None:
    monkeypatch.setattr(scalar.Quantities, "of_gates", _wrong_order)
    with pytest.raises(BoundExceeded):
        law_within_bounds(ROWS[0])


def _no_meeting(x, reads, writes, meets, far):
    return of_gates(x, reads, writes, torch.zeros_like(meets), far)


def _nothing_leaves(x, reads, writes, meets, far):
    return of_gates(x, reads, writes, meets, torch.zeros_like(far))


def test_where_a_chunk_is_a_block_of_gates(monkeypatch) -> None:
    """As for narrow types, but within the bounds of float32; and what leaves a block is missed."""
    row = next(row for row in ROWS if row.name == "odd length")
    for module in (walks, scalar):
        monkeypatch.setattr(
            module, "MARK", scalar.tile_for(scalar.FORWARD, "float32", 16, 90).constants["C"]
        )
    law_within_bounds(row)
    monkeypatch.setattr(scalar.Quantities, "of_gates", _nothing_leaves)
    with pytest.raises(BoundExceeded):
        law_within_bounds(row)


def test_a_block_of_gates_that_forgets_what_comes_later_is_caught(monkeypatch) -> None:
    monkeypatch.setattr(scalar.Quantities, "of_gates", _no_meeting)
    with pytest.raises(BoundExceeded):
        law_within_bounds(next(row for row in ROWS if row.length > 2 * scalar.MARK))


def test_the_gradient_of_gates_is_the_judge_s_sum() -> None:
    """The program's sums of inner products against the rationals of a claim, on integers."""
    claim = gate_rounding.CLAIMS[0]
    evidence = claim.witness(claim.instance(Task(0, Budget.SMOKE)))
    dq, dk, decays = gate_rounding.gradients(evidence)
    q, k = ([[Fraction(int(x)) for x in row] for row in evidence[name]] for name in "qk")
    exact = torch.tensor([float(x) for x in gate_rounding.of_gates(q, k, dq, dk)])
    pairs = ((q, dq), (k, dk))
    reads, writes = (
        torch.tensor(
            [
                float(sum(a * b for a, b in zip(*row, strict=True)))
                for row in zip(*pair, strict=True)
            ]
        )
        for pair in pairs
    )
    g = torch.tensor([float(a) for a in decays]).log()[None, :, None]
    one = torch.ones(1, len(exact), 1, 1)
    x = scalar.Quantities.of(one, one, one, g, None, 1.0, None)
    nothing = torch.zeros(1, 1, 1)
    columns = (y[None, :, None, None] for y in (reads, writes))
    found = x.of_gates(*columns, nothing, None)
    bound = 4 * len(exact) * unit_roundoff(torch.float32) * (reads.abs() + writes.abs()).sum()
    require_within(found.flatten(), exact, bound.expand_as(exact), "dg")

"""The programs of decay per key, interpreted: against sixty digits at small size, float64 at larger."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mpmath
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms.base import Sizes
from dsf.forms.bounds import error_bound
from dsf.kernels.decay import diagonal
from dsf.kernels.decay.diagonal_form import DiagonalDecay
from dsf.kernels.shapes import repeated
from dsf.kernels.triton_code import (
    diagonal_keys,
    diagonal_pairs,
    diagonal_states,
    diagonal_values,
    halves,
)
from dsf.numerics import BoundExceeded, Roundings, require_within, unit_roundoff
from dsf.state import State
from dsf.structure import Diagonal
from dsf.system import System


@dataclass(frozen=True)
class Row:
    """Sizes of one case. `heads` are those of g, q, k, v; `starts` packs sequences into one row."""

    name: str
    batch: int = 1
    length: int = 20
    heads: tuple[int, int, int, int] = (1, 1, 1, 1)
    keys: int = 16
    values: int = 16
    dtype: torch.dtype = torch.float32
    starts: tuple[int, ...] | None = None
    gates: float = 1.0  # the size of log-decays
    zero: bool = False  # some decays are exact zeros
    bonus: bool = False  # read before the update
    scale: float = 0.5


ROWS = (
    Row("odd length", batch=2, length=19),
    Row("odd length, bonus", length=37, bonus=True),
    Row("one step", length=1),
    Row("one step, bonus", length=1, bonus=True),
    Row("no step", length=0, bonus=True),
    Row("no sequence", batch=0, length=5),
    Row("one channel", keys=1, values=1, length=19, bonus=True),
    Row("sizes that are not powers of two", keys=20, values=24),
    Row("several tiles of keys and of values", keys=70, values=70, length=17),
    Row("several tiles of keys and of values, bonus", keys=70, values=70, length=9, bonus=True),
    Row("one key for four heads", heads=(4, 4, 1, 2), length=9),
    Row("one query for two heads, bonus", heads=(2, 1, 2, 2), length=9, bonus=True),
    Row("packed, one empty", length=33, starts=(0, 0, 20, 33)),
    Row("packed, one empty, bonus", length=33, starts=(0, 0, 20, 33), bonus=True),
    Row("whole chunks", length=128),
    Row("several chunks, bonus", length=131, bonus=True),
    Row("several chunks, exact zeros", length=131, zero=True, bonus=True),
    Row("several chunks, small gates", length=200, gates=1e-3, dtype=torch.bfloat16),
    Row("several chunks, packed", length=200, starts=(0, 0, 65, 65, 129, 200), keys=24, bonus=True),
    Row("several chunks and tiles", length=70, heads=(2, 1, 2, 1), keys=70, values=130),
    Row("tiny gates", gates=1e-6),
    Row("huge gates", gates=300.0),
    Row("huge gates, bonus", gates=300.0, bonus=True),
    Row("exact zeros", zero=True),
    Row("exact zeros, bonus", zero=True, bonus=True),
    Row("float16", dtype=torch.float16),
    Row("bfloat16", dtype=torch.bfloat16),
    Row("bfloat16, several tiles of keys, bonus", dtype=torch.bfloat16, keys=70, bonus=True),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """Drawn quantities (q, k, v, g, state, bonus), cotangents, and what the kernel is told."""

    row: Row
    leaves: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    do: Tensor
    dfinal: Tensor

    @property
    def quantities(self) -> diagonal.Quantities:
        *tensors, bonus = self.leaves
        starts = None if self.row.starts is None else torch.tensor(self.row.starts)
        given = (*tensors, self.row.scale, starts, bonus if self.row.bonus else None)
        return diagonal.Quantities.of(*given)

    def piece(self, sequences: slice, steps: slice) -> list[Tensor]:
        """The leaves of one run in float32, those of q, k and v per head."""
        q, k, v, g, state, bonus = self.leaves
        wide = (repeated(x, g.shape[2])[:, steps].float() for x in (q, k, v))
        return [*wide, g[:, steps], state[sequences], bonus]


def drawn(row: Row) -> Case:
    draw = torch.Generator().manual_seed(len(row.name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    lead, (H, Hq, Hk, Hv) = (row.batch, row.length), row.heads
    q, k = normal(*lead, Hq, row.keys), normal(*lead, Hk, row.keys) / math.sqrt(row.keys)
    q, k, v = (x.to(row.dtype) for x in (q, k, normal(*lead, Hv, row.values)))
    g = -row.gates * torch.rand((*lead, H, row.keys), generator=draw)
    if row.zero:
        g = torch.where(torch.rand(g.shape, generator=draw) < 0.15, -torch.inf, g)
    sequences = row.batch if row.starts is None else len(row.starts) - 1
    state = normal(sequences, H, row.keys, row.values)
    do, dfinal = normal(*lead, H, row.values).to(row.dtype), normal(*state.shape)
    return Case(row, (q, k, v, g, state, normal(H, row.keys)), do, dfinal)


def pieces(row: Row) -> list[tuple[slice, slice]]:
    """Sequences and steps of each run."""
    if row.starts is None:
        return [(slice(0, row.batch), slice(0, row.length))]
    pairs = zip(row.starts[:-1], row.starts[1:], strict=True)
    return [(slice(n, n + 1), slice(*pair)) for n, pair in enumerate(pairs)]


def recurrence(row: Row, leaves: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The definition, step by step, in the type of the leaves."""
    q, k, v, g, S, bonus = leaves
    outputs = [v[:, :0]]
    for t in range(q.shape[1]):
        entering = k[:, t, :, :, None] * v[:, t, :, None, :]
        before = S + bonus[..., None] * entering
        S = g[:, t].exp()[..., None] * S + entering
        read = (before if row.bonus else S) * q[:, t, :, :, None]
        outputs.append(row.scale * read.sum(-2)[:, None])
    return torch.cat(outputs, 1), S


@dataclass(frozen=True)
class Stored(DiagonalDecay):
    """The kernel's roundings where products are of a narrower type: six more per path, of that type."""

    dtype: torch.dtype = torch.float32

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        found = super().roundings(system, sizes)
        times = unit_roundoff(self.dtype) / unit_roundoff(torch.float32)
        return replace(found, path=found.path + (6 * times if times > 1 else 0))


def limits_of(row: Row, leaves: list[Tensor], up: Tensor, last: Tensor) -> dict[str, Tensor]:
    """Bounds of outputs "o", final states "h", and of the gradients of each leaf, float64.

    A read before the update is one after a step without decay and write, and its bonus one from keys of its own that
    forget at once: twice the steps and twice the keys make it a system that is read after the update.
    """
    q, k, v, g, S, bonus = leaves
    read, K = row.scale * q, q.shape[-1]
    if row.bonus:
        none, forget = torch.zeros_like(k), torch.full_like(_twice(g, g), -torch.inf)
        own = torch.cat([_twice(none, k), _twice(k, none)], -1)
        read = torch.cat([_twice(read, none), _twice(read * bonus, none)], -1)
        g, k = torch.cat([_twice(torch.zeros_like(g), g), forget], -1), own
        v, up = _twice(v, v), _twice(up, torch.zeros_like(up))
        S, last = (torch.cat([x, torch.zeros_like(x)], -2) for x in (S, last))
    system = System(Diagonal.from_log(g), OuterCoupling(k), OuterCoupling(read))
    bounds = error_bound(system, v, State(S), form=Stored(row.dtype), cotangents=(up, last))
    given = (g, k, read, v, S)
    of_g, of_k, of_q, of_v, of_S = (
        x.expand(like.shape) for x, like in zip(bounds.gradients, given, strict=True)
    )
    o, h = bounds.outputs.expand_as(up), bounds.memory.expand_as(S)
    of_u = torch.zeros(bonus.shape, dtype=torch.float64)
    rest_q = rest_k = torch.zeros((), dtype=torch.float64)
    if row.bonus:
        ahead = of_q[:, 0::2, :, K:]
        rest_q, rest_k = row.scale * bonus.abs() * ahead, of_k[:, 0::2, :, K:]
        of_u = (row.scale * q.abs() * ahead).sum((0, 1))
        of_g, of_k, of_q = of_g[:, 1::2, :, :K], of_k[:, 1::2, :, :K], of_q[:, 0::2, :, :K]
        o, of_v = o[:, 0::2], of_v[:, 0::2] + of_v[:, 1::2]
        h, of_S, last = h[..., :K, :], of_S[..., :K, :], last[..., :K, :]
    of_q = row.scale * of_q
    # The gates' gradient is a sum over later steps of differences: so is its bound.
    each = (q.abs() * of_q + leaves[1].abs() * of_k).flip(1).cumsum(1).flip(1)
    of_g = of_g + each + (last.abs() * h).sum(-1)[:, None]
    found = (o, h, of_q + rest_q, of_k + rest_k, of_v, of_g, of_S, of_u)
    return dict(zip("ohqkvgSu", found, strict=True))


def _twice(first: Tensor, second: Tensor) -> Tensor:
    """Two steps in place of each one."""
    return torch.stack([first, second], 2).flatten(1, 2)


def launched(case: Case) -> tuple[Tensor | None, ...]:
    """Outputs, final states and the six gradients, as the programs compute them."""
    x, narrow = case.quantities, case.row.dtype == torch.bfloat16
    o, final = diagonal.forward(x, upcast=narrow)
    return o, final, *diagonal.backward(x, case.do, case.dfinal, upcast=narrow)


def law_within_bounds(row: Row) -> None:
    """Every result is within its bound of the recurrence in float64; gradients by the adjoint's own paths."""
    case = drawn(row)
    o, final, *gradients = launched(case)
    assert o is not None and final is not None and o.dtype == row.dtype
    exact = [torch.zeros(x.shape, dtype=torch.float64) for x in case.leaves]
    about = [torch.zeros(x.shape, dtype=torch.float64) for x in case.leaves]
    for sequences, steps in pieces(row):
        told = case.piece(sequences, steps)
        up, last = case.do[:, steps].float(), case.dfinal[sequences]
        wide = [x.double().requires_grad_() for x in told]
        outputs, end = recurrence(row, wide)
        found = torch.autograd.grad(
            (outputs, end), wide, (up.double(), last.double()), allow_unused=True
        )
        limits = limits_of(row, told, up, last)
        rounded = 2 * unit_roundoff(row.dtype) * outputs.detach().abs()
        require_within(o[:, steps], outputs, limits["o"] + rounded, "outputs")
        require_within(final[sequences], end, limits["h"], "final states")
        whole = slice(None)
        places = ((whole, steps),) * 4 + ((sequences,), (whole,))
        for i, (name, place) in enumerate(zip("qkvgSu", places, strict=True)):
            value, limit = found[i], limits[name]
            if name in "qkv":
                own = (case.leaves[i].shape[2], -1)
                value = None if value is None else value.unflatten(2, own).sum(3)
                limit = limit.unflatten(2, own).sum(3)
            exact[i][place] += 0 if value is None else value
            about[i][place] += limit
    heads = case.leaves[3].shape[2]
    for name, one, value, bound in zip("qkvgSu", gradients, exact, about, strict=True):
        if one is None:
            assert name == "u" and not row.bonus
            continue
        narrow = row.dtype if name in "qkv" else torch.float32
        rounded = 2 * unit_roundoff(narrow) * value.abs()
        rounded = rounded + heads * unit_roundoff(torch.float32) * bound
        require_within(one, value, bound + rounded, f"gradient of {name}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_within_bounds_of_the_recurrence(row: Row) -> None:
    law_within_bounds(row)


@pytest.mark.parametrize("bonus", [False, True])
def test_in_sixty_digits(bonus: bool) -> None:
    """Outputs and final state of a short run, against the recurrence in sixty digits."""
    row = Row("small", length=5, keys=2, values=3, bonus=bonus)
    case = drawn(row)
    o, final = diagonal.forward(case.quantities)
    q, k, v, g, state, u = (x.double().tolist() for x in case.leaves)
    with mpmath.workdps(60):
        S = [[mpmath.mpf(x) for x in line] for line in state[0][0]]
        rows = []
        for t in range(row.length):
            enters = [[mpmath.mpf(x) * mpmath.mpf(y) for y in v[0][t][0]] for x in k[0][t][0]]
            before = [
                [S[i][j] + mpmath.mpf(u[0][i]) * enters[i][j] for j in range(3)] for i in (0, 1)
            ]
            S = [
                [mpmath.exp(g[0][t][0][i]) * S[i][j] + enters[i][j] for j in range(3)]
                for i in (0, 1)
            ]
            seen = before if bonus else S
            rows.append(
                [sum(row.scale * q[0][t][0][i] * seen[i][j] for i in (0, 1)) for j in range(3)]
            )
        exact, end = (torch.tensor([[float(x) for x in y] for y in z]).double() for z in (rows, S))
    limits = limits_of(row, case.piece(slice(0, 1), slice(0, 5)), case.do, case.dfinal)
    require_within(o[0, :, 0], exact, limits["o"][0, :, 0], "outputs")
    require_within(final[0, 0], end, limits["h"][0, 0], "final state")  # fmt: skip


@pytest.mark.parametrize("bonus", [False, True])
def test_forward_and_backward_are_adjoint(bonus: bool) -> None:
    """⟨dy, L v⟩ + ⟨dh, M v⟩ = ⟨dv, v⟩ for the map of v alone, from an empty state."""
    row = replace(ROWS[0], bonus=bonus)
    case = drawn(row)
    leaves = [*case.leaves]
    leaves[4] = torch.zeros_like(leaves[4])
    case = replace(case, leaves=tuple(leaves))
    o, final, _, _, dv, *_ = launched(case)
    assert o is not None and final is not None and dv is not None

    def inner(x: Tensor, y: Tensor) -> float:
        return float((x.double() * y.double()).sum())

    there, back = inner(case.do, o) + inner(case.dfinal, final), inner(dv, leaves[2])
    limits = limits_of(row, case.piece(slice(None), slice(None)), case.do, case.dfinal)
    bound = inner(case.do.abs(), limits["o"]) + inner(case.dfinal.abs(), limits["h"])
    bound += inner(limits["v"], leaves[2].abs())
    assert abs(there - back) <= bound


@triton.jit
def without_its_own_decay(logs, BEFORE: tl.constexpr):
    return tl.full(logs.shape, 1.0, tl.float32), tl.full(logs.shape, 1.0, tl.float32), tl.exp(logs)


@triton.jit
def across_every_block(table, offsets, level):
    half = offsets >> level
    return tl.where(half[:, None] % 2 != half[None, :] % 2, table, 0.0)


@triton.jit
def within_larger_blocks(offsets, level):
    block = offsets >> (level + 1)
    return block[:, None] == block[None, :]


@triton.jit
def never_joined(
    reach, onward, whole, offsets, level, C: tl.constexpr, BK: tl.constexpr, LEVELS: tl.constexpr
):
    _, _, pairs = right_joined(reach, onward, whole, offsets, level, C, BK, LEVELS)
    return reach, onward, pairs


@triton.jit
def forgetting_the_whole(
    reach, onward, whole, offsets, level, C: tl.constexpr, BK: tl.constexpr, LEVELS: tl.constexpr
):
    reach, onward, pairs = right_joined(reach, onward, whole, offsets, level, C, BK, LEVELS)
    return reach, onward, pairs * 0.0 + 1.0


@triton.jit
def not_weighed(Q, W, bonus, head, offsets, keys, K: tl.constexpr, BEFORE: tl.constexpr):
    return right_entries(Q, W, bonus, head, offsets, keys, K, False)


@triton.jit
def never_fading(whole, index, keys, K: tl.constexpr):
    return tl.full((keys.shape[0], 1), 1.0, tl.float32)


@triton.jit
def of_the_first_chunk(
    pointer, index, keys, values, K: tl.constexpr, V: tl.constexpr, UPCAST: tl.constexpr
):
    return right_kept(pointer, index * 0, keys, values, K, V, UPCAST)


right_joined, right_entries = halves.joined, diagonal_pairs.own_entries
right_kept = diagonal_values.kept
PLANTED = {
    "pairs without their own decay": (diagonal_pairs, "alone", without_its_own_decay),
    "gradients without their own decay": (diagonal_keys, "alone", without_its_own_decay),
    "pairs of other blocks": (diagonal_pairs, "within", within_larger_blocks),
    "gradients of other blocks": (diagonal_keys, "across", across_every_block),
    "pairs never joined": (diagonal_pairs, "joined", never_joined),
    "gradients never joined": (diagonal_keys, "joined", never_joined),
    "wholes forgotten by pairs": (diagonal_pairs, "joined", forgetting_the_whole),
    "wholes forgotten by gradients": (diagonal_keys, "joined", forgetting_the_whole),
    "states that do not fade": (diagonal_states, "gate_of", never_fading),
    "another chunk's state": (diagonal_values, "kept", of_the_first_chunk),
    "another chunk's state in gradients": (diagonal_keys, "kept", of_the_first_chunk),
    "no bonus": (diagonal_pairs, "own_entries", not_weighed),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    module, place, bug = PLANTED[name]
    monkeypatch.setattr(module, place, bug)
    with pytest.raises(BoundExceeded):
        law_within_bounds(Row("planted", batch=2, length=70, bonus=name == "no bonus"))


def test_a_read_before_its_gate_does_not_pass_it(monkeypatch) -> None:
    """Gradients of gates of reads after the update are not those of reads before it."""
    right = diagonal.run

    def through_the_read_itself(x, name, upcast, given):
        right(replace(x, bonus=None) if name == "of_keys" else x, name, upcast, given)

    monkeypatch.setattr(diagonal, "run", through_the_read_itself)
    with pytest.raises(BoundExceeded):
        law_within_bounds(Row("planted", length=20, bonus=True))

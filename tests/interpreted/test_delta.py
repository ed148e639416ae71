"""The programs of the delta family, interpreted: against sixty digits, and the float64 recurrence at larger size."""

from __future__ import annotations

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
from dsf.kernels.delta import chunks
from dsf.kernels.delta.form import Delta
from dsf.kernels.delta.quantities import Quantities
from dsf.kernels.shapes import repeated
from dsf.kernels.triton_code import (
    delta_fading,
    delta_gates,
    delta_gradients,
    delta_prepare,
    delta_walk,
)
from dsf.numerics import BoundExceeded, Roundings, require_within, unit_roundoff
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Scalar
from dsf.system import System

U = unit_roundoff(torch.float32)


@dataclass(frozen=True)
class Row:
    """Sizes of one case. `heads` are those of β, q, k and b, v; `rows` of a token act one by one or together."""

    name: str
    batch: int = 1
    length: int = 20
    heads: tuple[int, int, int, int] = (2, 2, 2, 2)
    keys: int = 16
    values: int = 16
    rows: int = 1
    together: bool = False
    keyed: bool = False
    dtype: torch.dtype = torch.float32
    starts: tuple[int, ...] | None = None
    gates: float = 1.0  # the size of log-decays
    zero: bool = False  # some decays are exact zeros
    same: bool = False  # every key is the same, strengths near 2
    size: float = 1.0  # the length of keys
    scale: float = 0.5


ALONE = (1, 1, 1, 1)
ROWS = (
    Row("two chunks", batch=2, length=20, heads=ALONE),
    Row("two chunks, a gate per key", keyed=True),
    Row("one step", length=1),
    Row("no step", length=0),
    Row("no sequence", batch=0, length=5),
    Row("one channel", keys=1, values=1, length=19, keyed=True),
    Row("sizes that are no powers of two", keys=20, values=24, keyed=True, heads=ALONE),
    Row("several tiles of keys and values", keys=130, values=70, length=9, heads=ALONE),
    Row("the same with a gate per key", keys=40, values=70, length=9, heads=ALONE, keyed=True),
    Row("one key and query for four heads", heads=(4, 1, 1, 4)),
    Row("one value for two heads", heads=(2, 2, 1, 1), keyed=True),
    Row("four rows, one by one", rows=4, length=7),
    Row("four rows, a gate per key", rows=4, length=7, keyed=True, heads=ALONE),
    Row("two rows together", rows=2, together=True, length=13, heads=ALONE),
    Row("two rows together, a gate per key", rows=2, together=True, length=13, keyed=True),
    Row("four rows together, a gate per key", rows=4, together=True, length=7, keyed=True, heads=ALONE),
    Row("packed, one empty", length=24, starts=(0, 0, 3, 24), heads=ALONE),
    Row("packed, a gate per key", length=16, starts=(0, 10, 10, 16), rows=2, together=True, keyed=True, heads=ALONE),
    Row("tiny gates", gates=1e-6, keyed=True, heads=ALONE),
    Row("huge gates", gates=300.0, heads=ALONE),
    Row("huge gates per key", gates=3000.0, keyed=True, heads=ALONE),
    Row("exact zeros", zero=True),
    Row("exact zeros per key", zero=True, keyed=True, heads=ALONE),
    Row("equal keys", same=True, length=36, gates=0.0, heads=ALONE),
    Row("equal keys, a gate per key", same=True, keyed=True, gates=1e-3, heads=ALONE),
    Row("keys that are not of unit length", size=1.3, length=6),
    Row("float16, several tiles of keys", dtype=torch.float16, length=34, keys=70, heads=ALONE),
    Row("float16, a gate per key", dtype=torch.float16, keyed=True, rows=2, together=True, heads=ALONE),
    Row("bfloat16", dtype=torch.bfloat16, length=18),
    Row("bfloat16, a gate per key", dtype=torch.bfloat16, length=18, keyed=True),
)  # fmt: skip

CHUNK = 32
NAMES = (
    "outputs",
    "final states",
    *(f"gradient of {x}" for x in ("q", "k", "b", "v", "β", "g", "h")),
)


@dataclass(frozen=True, eq=False)
class Case:
    """Drawn q, k, b, v, β, g and states, and cotangents."""

    row: Row
    leaves: tuple[Tensor, ...]
    do: Tensor
    dfinal: Tensor

    @property
    def quantities(self) -> Quantities:
        row, starts = self.row, None
        if row.starts is not None:
            starts = torch.tensor(row.starts)
        q, k, b, v, beta, g, state = self.leaves
        return Quantities.of(q, k, b, v, beta, g, state, row.scale, row.together, starts)


def drawn(row: Row) -> Case:
    draw = torch.Generator().manual_seed(len(row.name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    H, Hq, Hk, Hv = row.heads
    lead, many = (row.batch, row.length), (row.batch, row.length * row.rows)
    q, v = normal(*lead, Hq, row.keys), normal(*many, Hv, row.values)
    k = torch.nn.functional.normalize(normal(*many, Hk, row.keys), dim=-1) * row.size
    if row.same:
        k = k[:, :1].expand_as(k).contiguous()
    beta = 2 * torch.rand((*many, H), generator=draw)
    beta = 2 - beta / 1000 if row.same else beta / row.size
    beta = beta / 2 if row.together else beta
    b = k.clone()
    q, k, b, v = (x.to(row.dtype) for x in (q, k, b, v))
    shape = (*lead, H, row.keys) if row.keyed else (*lead, H)
    g = -row.gates * torch.rand(shape, generator=draw)
    if row.zero:
        g = torch.where(torch.rand(shape, generator=draw) < 0.15, -torch.inf, g)
    sequences = row.batch if row.starts is None else len(row.starts) - 1
    state = normal(sequences, H, row.keys, row.values)
    do, dfinal = normal(*lead, H, row.values).to(row.dtype), normal(*state.shape)
    return Case(row, (q, k, b, v, beta, g, state), do, dfinal)


def pieces(row: Row) -> list[tuple[slice, slice]]:
    """Sequences and tokens of each run."""
    if row.starts is None:
        return [(slice(0, row.batch), slice(0, row.length))]
    pairs = zip(row.starts[:-1], row.starts[1:], strict=True)
    return [(slice(n, n + 1), slice(*pair)) for n, pair in enumerate(pairs)]


def recurrence(
    row: Row, leaves: list[Tensor], stored: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """The rule row by row: outputs and final states; products of a narrower type round what they take."""

    def rounded(x: Tensor) -> Tensor:
        return x if stored is None else x.to(stored).to(x.dtype)

    q, k, b, v, beta, g, state = leaves
    q, k, b, v = (repeated(x, beta.shape[2]) for x in (q, k, b, v))
    decays = g.exp() if row.keyed else g.exp()[..., None]
    outputs, finals = [v[:, :0]], [state[:0]]
    for sequences, tokens in pieces(row):
        S = state[sequences]
        for t in range(tokens.start, tokens.stop):
            before, S = S, decays[:, t, ..., None] * S
            for i in range(t * row.rows, (t + 1) * row.rows):
                seen = rounded(before if row.together else S)
                r = v[:, i] - (b[:, i, :, :, None] * seen).sum(-2)
                S = S + k[:, i][..., None] * rounded(beta[:, i, :, None] * r)[..., None, :]
            y = row.scale * (q[:, t, :, :, None] * rounded(S)).sum(-2)
            outputs.append(y[:, None])
        finals.append(S)
    return torch.cat(outputs, 1), torch.cat(finals)


@dataclass(frozen=True)
class Stored(Delta):
    """The kernels' roundings where products are of a narrower type: some more per chunk and path, of that type."""

    dtype: torch.dtype = torch.float32

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        found = super().roundings(system, sizes)
        times = unit_roundoff(self.dtype) / U
        more = times if times > 1 else 0
        return replace(found, step=found.step + 3 * more, path=found.path + 6 * more)


def limits_of(case: Case, sequences: slice, tokens: slice) -> tuple[Tensor, Tensor]:
    """Bounds of outputs and final states, from a system with a step per row, or per token where rows act together."""
    row, n = case.row, case.row.rows
    q, k, b, v, beta, g, state = case.leaves
    heads = beta.shape[2]
    inner = slice(tokens.start * n, tokens.stop * n)
    q = repeated(q, heads)[:, tokens].double() * row.scale
    k, b, v = (repeated(x, heads)[:, inner].double() for x in (k, b, v))
    write, g = beta[:, inner, :, None].double() * k, g[:, tokens].double()
    if row.together:
        size = (tokens.stop - tokens.start, n)
        write, b, v = (x.unflatten(1, size).transpose(2, 3) for x in (write, b, v))
        left, right = -write.mT, b.mT
    else:
        spread, reads = (torch.zeros(*x.shape[:2], n, *x.shape[2:]).double() for x in (g, q))
        spread[:, :, 0], reads[:, :, n - 1] = g, q
        g, q = spread.flatten(1, 2), reads.flatten(1, 2)
        decay = g.exp() if row.keyed else g.exp()[..., None]
        left, right = -write[..., None], (decay * b)[..., None]
    gate = Diagonal.from_log(g) if row.keyed else Scalar.from_log(g)
    system = System(DPLR(gate, left, right), OuterCoupling(write), OuterCoupling(q))
    system, first = system.map(Tensor.float), State(state[sequences])
    found = error_bound(system, v.float(), first, form=Stored(row.dtype))
    outputs = found.outputs if row.together else found.outputs[:, n - 1 :: n]
    return outputs, found.memory


def launched(case: Case) -> tuple[Tensor, ...]:
    """Outputs, final states and the gradients of q, k, b, v, β, g and the states, as the programs compute them."""
    x, narrow = case.quantities, case.row.dtype == torch.bfloat16
    o, final = chunks.forward(x, upcast=narrow)
    return o, final, *chunks.backward(x, case.do, case.dfinal, upcast=narrow)


def results(case: Case, precision: torch.dtype) -> list[Tensor]:
    """The same nine from the recurrence, by autograd, in float64 or in the arithmetic of the case's type."""
    row, exact = case.row, precision == torch.float64
    leaves = [x.to(precision).requires_grad_() for x in case.leaves]
    stored = None if exact or row.dtype == torch.float32 else row.dtype
    pair = recurrence(row, leaves, stored)
    up = [x.to(precision) for x in (case.do, case.dfinal)]
    found = list(torch.autograd.grad(pair, leaves, up, allow_unused=True))
    found = [torch.zeros_like(x) if y is None else y for x, y in zip(leaves, found, strict=True)]
    found[5] = torch.where(torch.isneginf(case.leaves[5]), 0.0, found[5])
    both = [*(x.detach() for x in pair), *found]
    if exact:
        return both
    return [x.to(row.dtype) if i in (0, *range(2, 6)) else x for i, x in enumerate(both)]


def errors_of(case: Case, exact: list[Tensor]) -> list[Tensor]:
    """How far the recurrence is off in the same arithmetic: the largest error of each result, and one rounding more.

    A chunk sums over up to 32 rows what the recurrence adds row by row; narrower types round a few times per chunk and
    not per sum. The gates' gradient is a sum over later steps of differences of products, so its error is that of
    what is multiplied.
    """
    row, n = case.row, case.row.rows
    plain = results(case, torch.float32)
    u, times = unit_roundoff(row.dtype), CHUNK if row.dtype == torch.float32 else 4

    def largest(x: Tensor) -> Tensor:
        return x.double().abs().max() if x.numel() else torch.zeros(()).double()

    found = [
        times * (largest(x.double() - y) + 2 * u * largest(y))
        for x, y in zip(plain, exact, strict=True)
    ]
    heads = row.heads[0]
    q, k, b = (repeated(x, heads).double().abs() for x in case.leaves[:3])
    k = k * case.leaves[4].double().abs()[..., None]
    products = k * found[3] + b * found[4]
    each = q * found[2] + products.unflatten(1, (-1, n) if row.length else (0, n)).sum(2)
    last = case.dfinal.double().abs().sum(-1) * found[1]
    each, last = (each, last) if row.keyed else (each.sum(-1), last.sum(-1))
    of_gates = torch.zeros_like(each)
    for sequences, tokens in pieces(row):
        later = each[:, tokens].flip(1).cumsum(1).flip(1)
        of_gates[:, tokens] = later + last[sequences][:, None]
    found[7] = found[7] + of_gates
    return found


def law_within_bounds(row: Row) -> None:
    """Outputs and states within their proven bounds, and all nine as near the exact ones as the recurrence can be."""
    case = drawn(row)
    found, exact = launched(case), results(case, torch.float64)
    for sequences, tokens in pieces(row):
        outputs, memory = limits_of(case, sequences, tokens)
        outputs = outputs + 2 * unit_roundoff(row.dtype) * exact[0][:, tokens].abs()
        require_within(found[0][:, tokens], exact[0][:, tokens], outputs, "outputs")
        require_within(found[1][sequences], exact[1][sequences], memory, "final states")
    for name, one, other, limit in zip(NAMES, found, exact, errors_of(case, exact), strict=True):
        require_within(one, other, limit, name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_within_bounds_of_the_recurrence(row: Row) -> None:
    law_within_bounds(row)


SMALL = Row("small", length=5, keys=2, values=3, heads=ALONE, keyed=True)


def test_in_sixty_digits() -> None:
    """Outputs and final state of a short run, against the recurrence in sixty digits."""
    case = drawn(SMALL)
    q, k, b, v, beta, g, state = case.leaves
    o, final = chunks.forward(case.quantities)
    with mpmath.workdps(60):
        S = mpmath.matrix(state[0, 0].tolist())
        rows = []
        for t in range(SMALL.length):
            key, value = mpmath.matrix(k[0, t, 0].tolist()), mpmath.matrix(v[0, t, 0].tolist())
            S = mpmath.diag([mpmath.exp(mpmath.mpf(x)) for x in g[0, t, 0].tolist()]) * S
            erase = S.T * mpmath.matrix(b[0, t, 0].tolist())
            S = S + mpmath.mpf(float(beta[0, t, 0])) * key * (value - erase).T
            rows.append((S.T * mpmath.matrix(q[0, t, 0].tolist()) * mpmath.mpf(SMALL.scale)).T)
        exact = torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)
        end = torch.tensor(
            [[float(S[i, j]) for j in range(3)] for i in range(2)], dtype=torch.float64
        )
    outputs, memory = limits_of(case, slice(0, 1), slice(0, SMALL.length))
    require_within(o[0, :, 0], exact, outputs[0, :, 0], "outputs")
    require_within(final[0, 0], end, memory[0, 0], "final state")


@pytest.mark.parametrize("row", ROWS[:2], ids=lambda row: row.name)
def test_forward_and_backward_are_adjoint(row: Row) -> None:
    """⟨dy, L v⟩ + ⟨dh, M v⟩ = ⟨dv, v⟩ for the map of v alone, from an empty state."""
    case = drawn(row)
    case = replace(case, leaves=(*case.leaves[:6], torch.zeros_like(case.leaves[6])))
    o, final, *gradients = launched(case)
    pairs = ((case.do, o), (case.dfinal, final))
    there = float(sum((a.double() * b.double()).sum() for a, b in pairs))
    back = float((gradients[3].double() * case.leaves[3].double()).sum())
    size = float(sum((a.abs() * b.abs()).sum() for a, b in pairs))
    assert abs(there - back) <= 64 * (16 + row.length) * U * size


def law_of_residuals(row: Row) -> float:
    """(I + L) R - (V - B S) of each chunk is no larger than substitution leaves: γ (|I + L| |R| + |V| + |B| |S|).

    The bound of substitution (Higham 2002, theorem 8.5) does not grow with the condition of I + L.
    """
    case = drawn(row)
    before, rests = chunks.residuals(case.quantities)
    k, v, beta = (x[0].double() for x in (*case.leaves[1::2][:2], case.leaves[4]))
    k, v, beta = k[:, 0], v[:, 0], beta[:, 0]
    worst, size = 0.0, int(chunks.program_of(case.quantities, "walk")[1].constants["C"])
    for slot, at in enumerate(range(0, row.length, size)):
        K, V, R = (x[at : at + size] for x in (k, v, rests[0, :, 0].double()))
        S = before[slot, 0].double()
        L = torch.eye(len(K)).double() + (K @ K.T).tril(-1) * beta[at : at + size]
        left = L @ R - (V - K @ S)
        limit = L.abs() @ R.abs() + V.abs() + K.abs() @ S.abs()
        limit = 4 * (row.keys + size) * U * limit
        worst = max(worst, require_within(left, torch.zeros_like(left), limit, "residual"))
    return worst


EQUAL = next(row for row in ROWS if row.name == "equal keys")


def test_equal_keys_leave_the_residuals_of_substitution() -> None:
    assert 0 < law_of_residuals(EQUAL) <= 1


@triton.jit
def by_powers(L, offsets, C: tl.constexpr, LEVELS: tl.constexpr, PRECISION: tl.constexpr):
    """(I - L)(I + L²)(I + L⁴)…: the same in exact arithmetic."""
    same = tl.where(offsets[:, None] == offsets[None, :], 1.0, 0.0)
    T, power = same - L, L
    for _level in range(1, LEVELS):
        power = tl.dot(power, power, input_precision=PRECISION)
        T = tl.dot(T, same + power, input_precision=PRECISION)
    return T


def test_powers_do_not_solve_equal_keys(monkeypatch) -> None:
    monkeypatch.setattr(delta_prepare, "inverse_of", by_powers)
    assert law_of_residuals(replace(EQUAL, name="other keys", same=False)) <= 1
    with pytest.raises(BoundExceeded):
        law_of_residuals(EQUAL)


@triton.jit
def itself_too(offsets, N: tl.constexpr, TOGETHER: tl.constexpr):
    return offsets[:, None] >= offsets[None, :]


@triton.jit
def one_by_one(offsets, N: tl.constexpr, TOGETHER: tl.constexpr):
    return offsets[:, None] > offsets[None, :]


@triton.jit
def left_halves_too(offsets, half):
    own = offsets // half
    return own[:, None] == own[None, :] + 1


@triton.jit
def never_fading(between, large, small):
    return large.to(tl.float32) * 0.0 + 1.0


@triton.jit
def without_the_rest(now):
    large = (now * 256.0).to(tl.float16)
    return large, large * 0.0


@triton.jit
def own_token_too(offsets, N: tl.constexpr, TOGETHER: tl.constexpr):
    return offsets[None, :] <= offsets[:, None]


@triton.jit
def itself_faded(offsets):
    return offsets[None, :] >= offsets[:, None]


@triton.jit
def after_the_first(rows, tokens, N: tl.constexpr):
    return tl.where(rows % N == 0, rows // N, tokens)


@triton.jit
def before_the_last(rows, tokens, N: tl.constexpr):
    return tl.where(rows % N == N - 1, rows // N, tokens)


@triton.jit
def own_gate_too(rows, offsets, tokens, N: tl.constexpr):
    return tl.where(rows % N == 0, rows // N, tokens)


@triton.jit
def two_after(rows, offsets, tokens, C: tl.constexpr, N: tl.constexpr):
    return tl.where((rows % N == N - 1) & (offsets < C - 1), rows // N + 2, tokens)


@triton.jit
def undecayed(whole, slot, heads, head, part, K: tl.constexpr, BK: tl.constexpr):
    return tl.where(part * BK + tl.arange(0, BK) < K, 1.0, 0.0)[:, None]


@triton.jit
def no_strength(pointer, first, rows, length, heads, head):
    return tl.where(rows < length, 1.0, 0.0)


def named(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


PLANTED = {
    "an erase sees its own write": (delta_prepare, "erased", itself_too, "two chunks"),
    "rows together act one by one": (delta_prepare, "erased", one_by_one, "two rows together"),
    "the same in gradients": (delta_fading, "erased", one_by_one, "two rows together, a gate per key"),
    "halves of other blocks": (delta_prepare, "pairs", left_halves_too, "two chunks"),
    "halves of other blocks in gradients": (delta_fading, "pairs", left_halves_too, "two chunks, a gate per key"),
    "blocks that do not fade": (delta_prepare, "faded", never_fading, "two chunks, a gate per key"),
    "blocks that do not fade backwards": (delta_fading, "faded", never_fading, "two chunks, a gate per key"),
    "gates in float16": (delta_prepare, "split", without_the_rest, "two chunks, a gate per key"),
    "a gate that own erases see": (delta_fading, "to_row", own_token_too, "two rows together"),
    "the same per key": (delta_fading, "to_row", own_token_too, "two rows together, a gate per key"),
    "a write faded by its own gate": (delta_fading, "from_row", itself_faded, "two chunks, a gate per key"),
    "the same in blocks": (delta_gates, "from_row", itself_faded, "two chunks, a gate per key"),
    "read too early": (delta_walk, "read_after", after_the_first, "four rows, one by one"),
    "gradients read too early": (delta_gradients, "read_after", after_the_first, "four rows, one by one"),
    "faded too late": (delta_prepare, "faded_before", before_the_last, "four rows, one by one"),
    "faded too late per key": (delta_gates, "faded_before", before_the_last, "four rows, a gate per key"),
    "an erase after its gate": (delta_walk, "faded_earlier", own_gate_too, "two rows together"),
    "writes that fade too late": (delta_walk, "faded_after", two_after, "two chunks"),
    "a chunk that does not fade": (delta_walk, "state_gate", undecayed, "two chunks, a gate per key"),
    "writes at full strength": (delta_walk, "column", no_strength, "equal keys, a gate per key"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    module, function, bug, row = PLANTED[name]
    monkeypatch.setattr(module, function, bug)
    with pytest.raises(BoundExceeded):
        law_within_bounds(named(row))


def test_a_planted_bug_of_what_is_gathered_is_caught(monkeypatch) -> None:
    right = chunks.gathered

    def erases_as_writes(x, found):
        return right(x, found | {"dk": found["db"], "db": found["dk"]})

    monkeypatch.setattr(chunks, "gathered", erases_as_writes)
    with pytest.raises(BoundExceeded):
        law_within_bounds(ROWS[0])

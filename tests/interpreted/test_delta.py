"""The programs of the delta family, interpreted: against sixty digits at small size, the float64 recurrence at larger."""

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
from dsf.kernels.shapes import repeated
from dsf.kernels.triton_code import delta_gates, delta_gradients, delta_prepare, delta_walk
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


ROWS = (
    Row("two chunks", batch=2, length=37, heads=(1, 1, 1, 1)),
    Row("two chunks, a gate per key", length=37, keyed=True),
    Row("one step", length=1),
    Row("no step", length=0),
    Row("no sequence", batch=0, length=5),
    Row("one channel", keys=1, values=1, length=19, keyed=True),
    Row("sizes that are no powers of two", keys=20, values=24, keyed=True, heads=(1, 1, 1, 1)),
    Row("several tiles of keys and values", keys=130, values=70, length=9, heads=(1, 1, 1, 1)),
    Row("the same with a gate per key", keys=40, values=70, length=9, heads=(1, 1, 1, 1), keyed=True),
    Row("one key and query for four heads", heads=(4, 1, 1, 4)),
    Row("one value for two heads", heads=(2, 2, 1, 1), keyed=True),
    Row("four rows, one by one", rows=4, length=10),
    Row("four rows, a gate per key", rows=4, length=10, keyed=True, heads=(1, 1, 1, 1)),
    Row("two rows together", rows=2, together=True, length=20, heads=(1, 1, 1, 1)),
    Row("two rows together, a gate per key", rows=2, together=True, length=20, keyed=True),
    Row("four rows together, a gate per key", rows=4, together=True, length=9, keyed=True),
    Row("packed, one empty", length=45, starts=(0, 0, 8, 45), heads=(1, 1, 1, 1)),
    Row("packed, a gate per key", length=30, starts=(0, 20, 20, 30), rows=2, together=True, keyed=True, zero=True),
    Row("tiny gates", gates=1e-6, keyed=True),
    Row("huge gates", gates=300.0),
    Row("huge gates per key", gates=3000.0, keyed=True),
    Row("exact zeros", zero=True),
    Row("exact zeros per key", zero=True, keyed=True, length=36, heads=(1, 1, 1, 1)),
    Row("equal keys", same=True, length=36, gates=0.0, heads=(1, 1, 1, 1)),
    Row("equal keys, a gate per key", same=True, keyed=True, gates=1e-3, heads=(1, 1, 1, 1)),
    Row("keys that are not of unit length", size=1.3, length=6),
    Row("float16", dtype=torch.float16, length=34, heads=(1, 1, 1, 1)),
    Row("float16, a gate per key", dtype=torch.float16, keyed=True, rows=2, together=True),
    Row("bfloat16", dtype=torch.bfloat16, length=18),
    Row("bfloat16, a gate per key", dtype=torch.bfloat16, length=18, keyed=True),
)  # fmt: skip

NAMES = ("q", "k", "b", "v", "strengths", "gates", "states")


@dataclass(frozen=True, eq=False)
class Case:
    """Drawn q, k, b, v, β, g and states, and cotangents."""

    row: Row
    leaves: tuple[Tensor, ...]
    do: Tensor
    dfinal: Tensor

    @property
    def quantities(self) -> chunks.Quantities:
        row, starts = self.row, None
        if row.starts is not None:
            starts = torch.tensor(row.starts)
        return chunks.Quantities.of(*self.leaves, row.scale, row.together, starts)


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
    b = k.clone()
    if row.together:  # an erase and, beside it, writes of other keys: diagonal plus low rank
        place = torch.arange(many[1]) % row.rows
        first = (place == 0)[:, None, None]
        b, v, beta = b * first, v * ~first, torch.where(first[..., 0], beta, 1.0)
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


def recurrence(row: Row, leaves: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The rule row by row: outputs and final states."""
    q, k, b, v, beta, g, state = leaves
    q, k, b, v = (repeated(x, beta.shape[2]) for x in (q, k, b, v))
    decays = g.exp() if row.keyed else g.exp()[..., None]
    outputs, finals = [v[:, :0]], [state[:0]]
    for sequences, tokens in pieces(row):
        S = state[sequences]
        for t in range(tokens.start, tokens.stop):
            before, S = S, decays[:, t, ..., None] * S
            for i in range(t * row.rows, (t + 1) * row.rows):
                seen = before if row.together else S
                r = v[:, i] - (b[:, i, :, :, None] * seen).sum(-2)
                S = S + (beta[:, i, :, None] * k[:, i])[..., None] * r[..., None, :]
            outputs.append(row.scale * (q[:, t, :, :, None] * S).sum(-2)[:, None])
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


def system_of(case: Case, tokens: slice) -> tuple[System, Tensor, Tensor]:
    """A step per row, or per token where rows act together; its tokens, and what it reads outside of them."""
    row, n = case.row, case.row.rows
    q, k, b, v, beta, g, _ = case.leaves
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
        spread = torch.zeros(g.shape[0], g.shape[1], n, *g.shape[2:], dtype=g.dtype)
        spread[:, :, 0] = g
        g, reads = spread.flatten(1, 2), torch.zeros(*q.shape[:2], n, *q.shape[2:]).double()
        reads[:, :, n - 1] = q
        q = reads.flatten(1, 2)
        decay = g.exp() if row.keyed else g.exp()[..., None]
        left, right = -write[..., None], (decay * b)[..., None]
    gate = Diagonal.from_log(g) if row.keyed else Scalar.from_log(g)
    return (
        System(DPLR(gate, left, right), OuterCoupling(write), OuterCoupling(q)).map(Tensor.float),
        v.float(),
        torch.linalg.vector_norm(b, dim=-1),
    )


@dataclass(frozen=True, eq=False)
class Limits:
    """Bounds of outputs, final states and the seven gradients per head."""

    outputs: Tensor
    memory: Tensor
    gradients: tuple[Tensor, ...]


def limits_of(case: Case, sequences: slice, tokens: slice) -> Limits:
    """From those of the system's leaves: k and β are in P = -β k and in the write, b in Q, gates in all later paths."""
    row, n = case.row, case.row.rows
    system, values, erase = system_of(case, tokens)
    first, last = case.leaves[6][sequences], case.dfinal[sequences]
    up = case.do[:, tokens].float()
    count = up.shape[1]
    if not row.together:
        wide = torch.zeros(*up.shape[:2], n, *up.shape[2:])
        wide[:, :, n - 1] = up
        up = wide.flatten(1, 2)
    found = error_bound(
        system, values, State(first), form=Stored(row.dtype), cotangents=(up, last)
    )
    of_gate, of_left, of_right, of_write, of_read, of_tokens, of_state = found.gradients
    lead = (up.shape[0], count, case.leaves[4].shape[2])

    def each_row(x: Tensor) -> Tensor:
        """A bound of a step, (B, steps, H), for its rows (B, T n, H)."""
        x = x.expand(lead[0], x.shape[1], lead[2])
        return x.repeat_interleave(n, 1) if row.together else x

    inner = slice(tokens.start * n, tokens.stop * n)
    strength = case.leaves[4][:, inner].abs().double()
    if row.together:
        of_write, of_tokens = (
            x.expand(*lead, n, x.shape[-1]).transpose(2, 3).flatten(1, 2)
            for x in (of_write, of_tokens)
        )
        erase = erase.transpose(2, 3).flatten(1, 2)
    of_both = of_write[..., 0] + each_row(of_left)
    size = torch.linalg.vector_norm(
        repeated(case.leaves[1], lead[2])[:, inner].double(), dim=-1
    )
    of_erase = each_row(of_right)
    reads = torch.linalg.vector_norm(system.read.weights.double(), dim=-1)
    paths = strength * size * of_both + erase * of_erase
    per_token = paths.unflatten(1, (count, n)).sum(2)
    of_read = of_read[..., 0] if row.together else of_read[..., 0][:, n - 1 :: n]
    reads = reads if row.together else reads[:, n - 1 :: n]
    per_token = per_token + reads * of_read
    rest = (last.abs().double() * found.memory).sum((-1, -2))[:, None]
    gates = of_gate if row.together else of_gate[:, ::n]
    gates = per_token.flip(1).cumsum(1).flip(1) + rest + gates
    outputs = found.outputs if row.together else found.outputs[:, n - 1 :: n]
    return Limits(
        outputs,
        found.memory,
        (
            row.scale * of_read[..., None],
            (strength * of_both)[..., None],
            of_erase[..., None],
            of_tokens,
            size * of_both,
            gates[..., None] if row.keyed else gates,
            of_state,
        ),
    )


def launched(case: Case) -> tuple[Tensor, ...]:
    """Outputs, final states and the seven gradients, as the programs compute them."""
    x, narrow = case.quantities, case.row.dtype == torch.bfloat16
    o, final = chunks.forward(x, upcast=narrow)
    return o, final, *chunks.backward(x, case.do, case.dfinal, final, upcast=narrow)


def shared_bound(bound: Tensor, exact: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Bounds (B, ·, H, ·) of heads that are summed to those of `exact`, and of rounding the sum."""
    bound = bound.expand(*bound.shape[:3], exact.shape[-1])
    bound = bound.unflatten(2, (exact.shape[2], -1)).sum(3)
    return (1 + heads * U) * bound + (2 * unit_roundoff(dtype) + heads * U) * exact.abs()


def law_within_bounds(row: Row) -> None:
    """Every result is within its bound of the recurrence in float64."""
    case = drawn(row)
    o, final, *gradients = launched(case)
    wide = [x.double().requires_grad_() for x in case.leaves]
    outputs, last = recurrence(row, wide)
    found = torch.autograd.grad(
        (outputs, last), wide, (case.do.double(), case.dfinal.double()), allow_unused=True
    )
    exact = [
        torch.zeros_like(x) if one is None else one for one, x in zip(found, wide, strict=True)
    ]
    exact[5] = torch.where(torch.isneginf(case.leaves[5]), 0.0, exact[5])
    heads = row.heads[0]
    for sequences, tokens in pieces(row):
        limits = limits_of(case, sequences, tokens)
        inner = slice(tokens.start * row.rows, tokens.stop * row.rows)
        rounded = 2 * unit_roundoff(row.dtype) * outputs[:, tokens].detach().abs()
        require_within(o[:, tokens], outputs[:, tokens], limits.outputs + rounded, "outputs")
        require_within(final[sequences], last[sequences], limits.memory, "final states")
        places = (tokens, inner, inner, inner, inner, tokens, sequences)
        for i, (name, place) in enumerate(zip(NAMES, places, strict=True)):
            at = (slice(None), place) if i < 6 else place
            bound = limits.gradients[i]
            if i < 4:
                bound = shared_bound(bound, exact[i][at], heads, row.dtype)
            require_within(gradients[i][at], exact[i][at], bound, f"gradient of {name}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_within_bounds_of_the_recurrence(row: Row) -> None:
    law_within_bounds(row)

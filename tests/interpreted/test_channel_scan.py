"""The programs of the gated scan, interpreted: against exact rationals, real and complex."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

import dsf
from dsf.coupling import OuterCoupling
from dsf.forms.bounds import error_bound
from dsf.kernels.scans import channel as channel_scan
from dsf.kernels.triton_code import channel_scan as code
from dsf.numerics import BoundExceeded, require_within, unit_roundoff
from dsf.state import State
from dsf.structure import Scalar
from dsf.system import System


@dataclass(frozen=True)
class Row:
    name: str
    batch: int = 1
    length: int = 20
    channels: int = 5
    dtype: torch.dtype = torch.float32
    starts: tuple[int, ...] | None = None
    size: float = 1.0  # of the gates


ROWS = (
    Row("odd length", batch=2, length=37),
    Row("several tiles of steps", length=150, channels=3),
    Row("several tiles of channels", channels=10),
    Row("one step", length=1),
    Row("no step", length=0),
    Row("no channel", channels=0),
    Row("packed, one empty", length=90, starts=(0, 0, 70, 90)),
    Row("tiny gates", size=1e-20),
    Row("huge gates", length=12, size=1e3),
    Row("zero gates", size=0.0),
    Row("complex", batch=2, length=45, dtype=torch.complex64),
    Row("complex, packed", length=50, dtype=torch.complex64, starts=(0, 33, 50)),
    Row("float16", dtype=torch.float16, length=40),
    Row("bfloat16, odd channels", dtype=torch.bfloat16, length=65, channels=5),
    Row("growing gates", length=70, channels=3, size=1.5),
    Row("packed, the first and last empty", length=5, starts=(0, 0, 5, 5)),
    Row("complex, one step", length=1, channels=1, dtype=torch.complex64),
)


@dataclass(frozen=True, eq=False)
class Case:
    row: Row
    a: Tensor
    b: Tensor
    state: Tensor
    dh: Tensor
    dfinal: Tensor

    @property
    def quantities(self) -> channel_scan.Quantities:
        starts = None if self.row.starts is None else torch.tensor(self.row.starts)
        return channel_scan.Quantities.of(self.a, self.b, self.state, starts)


def drawn(row: Row) -> Case:
    draw = torch.Generator().manual_seed(len(row.name))
    sequences = row.batch if row.starts is None else len(row.starts) - 1
    many, one = (row.batch, row.length, row.channels), (sequences, row.channels)
    wide = torch.complex64 if row.dtype.is_complex else torch.float32

    def normal(shape: tuple[int, ...], dtype: torch.dtype = wide) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=wide).to(dtype)

    gates = (row.size * normal(many)).to(row.dtype)
    return Case(row, gates, normal(many, row.dtype), normal(one), normal(many), normal(one))


def pieces(row: Row) -> list[tuple[slice, slice]]:
    if row.starts is None:
        return [(slice(0, row.batch), slice(0, row.length))]
    pairs = zip(row.starts[:-1], row.starts[1:], strict=True)
    return [(slice(n, n + 1), slice(*pair)) for n, pair in enumerate(pairs)]


def law_within_bounds(row: Row) -> None:
    """States, last states and all gradients are within the bounds of a scan."""
    case = drawn(row)
    x = case.quantities
    h, final = channel_scan.forward(x)
    da, db, dstate = channel_scan.backward(x, h, case.dh, case.dfinal)
    double = torch.complex128 if row.dtype.is_complex else torch.float64
    for sequences, steps in pieces(row):
        inputs = (case.a[:, steps], case.b[:, steps], case.state[sequences])
        up, last = case.dh[:, steps], case.dfinal[sequences]
        a, b, state = (each.to(double).requires_grad_() for each in inputs)
        one = torch.ones(1, 1, row.channels, 1)
        wide = System(Scalar(a), OuterCoupling(one.to(double)), OuterCoupling(one.to(double)))
        states, end = dsf.run(wide, b[..., None], State(state[..., None, None]), form="recurrent")
        results = (states[..., 0], end.memory[..., 0, 0])
        found = torch.autograd.grad(
            results, (a, b, state), (up.to(double), last.to(double)), allow_unused=True
        )
        exact = [
            torch.zeros_like(i) if g is None else g
            for g, i in zip(found, (a, b, state), strict=True)
        ]
        plain = x.state.dtype
        told = System(
            Scalar(inputs[0].to(plain)), OuterCoupling(one.to(plain)), OuterCoupling(one.to(plain))
        )
        limits = error_bound(
            told,
            inputs[1][..., None].to(plain),
            State(inputs[2][..., None, None]),
            form="scan",
            cotangents=(up[..., None], last[..., None, None]),
        )
        of_a, _, _, of_b, of_state = limits.gradients
        rounded = 2 * unit_roundoff(row.dtype)  # stored in the type of a and b
        require_within(h[:, steps], results[0], limits.outputs[..., 0], "states")
        require_within(final[sequences], results[1], limits.memory[..., 0, 0], "last states")
        require_within(da[:, steps], exact[0], of_a + rounded * exact[0].abs(), "gradient of a")
        require_within(
            db[:, steps], exact[1], of_b[..., 0] + rounded * exact[1].abs(), "gradient of b"
        )
        require_within(dstate[sequences], exact[2], of_state[..., 0, 0], "gradient of states")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_within_bounds_of_the_recurrence(row: Row) -> None:
    law_within_bounds(row)


def test_exact_rationals() -> None:
    """A run of powers of two and small integers has no roundings: every state is exact."""
    draw = torch.Generator().manual_seed(0)
    a = 2.0 ** torch.randint(-1, 2, (1, 12, 3), generator=draw)
    b = torch.randint(-4, 5, (1, 12, 3), generator=draw).float()
    h, final = channel_scan.forward(channel_scan.Quantities.of(a, b, None, None))
    for channel in range(3):
        state = Fraction(0)
        for t in range(12):
            state = Fraction(float(a[0, t, channel])) * state + Fraction(float(b[0, t, channel]))
            assert Fraction(float(h[0, t, channel])) == state
        assert Fraction(float(final[0, channel])) == state


def test_conjugates_are_taken_before_the_programs_read() -> None:
    """torch conjugates when a tensor is read; a program reads memory as it is."""
    case = drawn(next(row for row in ROWS if row.name == "complex"))
    starts = None
    turned = [x.conj().resolve_conj().conj() for x in (case.a, case.b, case.state)]
    assert all(x.is_conj() for x in turned)
    expected = channel_scan.forward(case.quantities)
    x = channel_scan.Quantities.of(*turned, starts)
    found = channel_scan.forward(x)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    given = (expected[0], case.dh, case.dfinal)
    lazy = (expected[0], case.dh.conj().resolve_conj().conj(), case.dfinal)
    backward = channel_scan.backward(case.quantities, *given), channel_scan.backward(x, *lazy)
    assert all(torch.equal(one, other) for one, other in zip(*backward, strict=True))


@triton.jit
def in_the_wrong_order(a, b, later_a, later_b):
    return later_a * a, a * later_b + b


@triton.jit
def without_conjugates(ar, ai, br, bi, cr, ci, dr, di):
    return cr * ar - ci * ai, cr * ai + ci * ar, cr * br + ci * bi + dr, cr * bi - ci * br + di


@triton.jit
def first_row(tile, rows, at):
    return tl.sum(tl.where((rows == 0)[:, None], tile, 0.0), 0)


PLANTED = {
    "then": (in_the_wrong_order, ROWS[0]),
    "then_complex": (without_conjugates, next(r for r in ROWS if r.name == "complex")),
    "row_at": (first_row, ROWS[1]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    bug, row = PLANTED[name]
    monkeypatch.setattr(code, name, bug)
    with pytest.raises(BoundExceeded):
        law_within_bounds(row)

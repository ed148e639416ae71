"""The programs of single steps, interpreted: against the recurrence in float64, and exact rationals or sixty digits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import mpmath
import pytest
import torch
import triton
import triton.language as tl
from step_families import FAMILIES, Row
from stepping import Steps, drawn, law_micro_steps_are_steps, law_steps_are_the_run, stepped

from dsf.forms.bounds import error_bound
from dsf.kernels import decay_step, delta_step, scan_step, selective_step
from dsf.kernels.steps import matrix, matrix_operator, mlstm_operator, vector_operator
from dsf.kernels.triton_code import steps as code
from dsf.kernels.triton_code import vector_steps
from dsf.numerics import BoundExceeded, require_within


@pytest.fixture(autouse=True)
def launched(monkeypatch) -> None:
    """The public steps launch the programs instead of asking torch for the operator of the CPU."""
    monkeypatch.setattr(matrix_operator, "_operator", matrix_operator._on_cuda)
    monkeypatch.setattr(mlstm_operator, "_operator", mlstm_operator._on_cuda)
    monkeypatch.setattr(vector_operator, "_scan", vector_operator._scan_on_cuda)
    monkeypatch.setattr(vector_operator, "_selective", vector_operator._selective_on_cuda)


PLAIN = {name: Row(name, name, batch=1, length=3) for name in FAMILIES}
ROWS = (
    *PLAIN.values(),
    *(
        replace(PLAIN[name], name=f"{name}, several tiles of keys and of values",
                keys=260, values=10, heads=(1, 1, 1, 1), length=2)
        for name in ("ssd", "rwkv6", "kda", "delta product", "dplr", "mlstm")
    ),
    Row("one step", "gla", length=1),
    Row("no sequence", "gla", batch=0, rows=2, slots=(), length=1),
    Row("no value", "kda", values=0, length=1),
    Row("no channel", "scan", values=0, length=1),
    Row("one channel", "delta product", keys=1, values=1),
    Row("large heads", "gated deltanet", keys=64, values=64, heads=(1, 1, 1, 1), length=2),
    Row("one key for four heads", "gla", heads=(4, 2, 1, 4), length=2, batch=1),
    Row("one value for two heads", "delta product", heads=(2, 2, 1, 1), length=2, batch=1),
    Row("groups of rwkv-7", "dplr", heads=(4, 4, 2, 1), length=2, batch=1),
    Row("one query for two heads", "mlstm", heads=(2, 1, 2, 1), length=2, batch=1),
    *(
        Row(f"{name}, some at rest", name, batch=3, rows=5, slots=(4, -1, 1), length=2)
        for name in ("rwkv6", "mlstm", "kda", "scan", "s6")
    ),
    Row("huge gates", "gla", gates=300.0),
    Row("huge rates", "s6", gates=300.0),
    Row("huge gates of the mlstm", "mlstm", gates=100.0),
    Row("exact zeros", "kda", zero=True),
    Row("exact zeros of a scalar", "ssd", zero=True),
    Row("gates of the mlstm that are zero", "mlstm", zero=True, length=6),
    *(
        Row(f"{name} in {str(dtype)[6:]}", name, dtype=dtype, batch=1, length=3)
        for name in ("rwkv6", "delta product", "dplr", "mlstm", "scan", "s6")
        for dtype in (torch.float16, torch.bfloat16)
    ),
    Row("complex", "scan", dtype=torch.complex64, batch=3, rows=4, slots=(3, -1, 0), values=300),
    Row("several tiles of channels", "s6", keys=16, values=300, length=2, batch=1, heads=(1, 1, 3, 1)),
    Row("sixty states a channel", "s6", keys=60, length=2, batch=1),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_steps_are_the_run(row: Row) -> None:
    law_steps_are_the_run(row)


def test_micro_steps_are_steps() -> None:
    law_micro_steps_are_steps()


def test_mlstm_in_sixty_digits() -> None:
    """Exponential gates without a stabiliser: sixty digits do not overflow."""
    case = drawn(Row("sixty", "mlstm", batch=1, heads=(1, 1, 1, 1), keys=2, values=3, gates=20.0))
    found, (S, n, m) = stepped(case)
    system, tokens, start = case.problem(torch.float32)
    limits = error_bound(system, tokens, start, form=Steps(deepest=20.0))
    x = {name: value[0].tolist() for name, value in case.x.items()}
    with mpmath.workdps(60):
        memory, total = mpmath.matrix(2, 3), mpmath.matrix(2, 1)
        for t in range(case.row.length):
            q, k, v = (mpmath.matrix(x[name][t][0]) for name in "qkv")
            keep, gain = (mpmath.exp(mpmath.mpf(x[name][t][0])) for name in "fi")
            memory, total = keep * memory + gain * k * v.T, keep * total + gain * k
            q = q * mpmath.mpf(case.row.scale)
            size = mpmath.fabs((total.T * q)[0])
            y = (memory.T * q) / max(size, mpmath.mpf(1))
            exact = torch.tensor([float(each) for each in y], dtype=torch.float64)
            require_within(found[0, t, 0], exact, limits.outputs[0, t, 0], f"output of step {t}")


def integers(*shape: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=draw).float()


def exactly(x: torch.Tensor) -> list:
    return [exactly(each) for each in x] if x.ndim else Fraction(float(x))  # type: ignore[return-value]


def test_delta_step_in_rationals() -> None:
    """Small integers have no roundings: the state and the output of two micro-steps are exact."""
    S, q = integers(1, 1, 2, 2, seed=0), integers(1, 1, 2, seed=1)
    k, v = integers(1, 1, 2, 2, seed=2), integers(1, 1, 2, 2, seed=3)
    beta = integers(1, 1, 2, seed=4)
    h, keys, values, betas = (exactly(x[0, 0]) for x in (S, k, v, beta))
    for key, value, strength in zip(keys, values, betas, strict=True):
        read = [sum(key[i] * h[i][j] for i in range(2)) for j in range(2)]
        h = [
            [h[i][j] + strength * key[i] * (value[j] - read[j]) for j in range(2)] for i in range(2)
        ]
    y = delta_step(S, q, k, v, beta)
    assert exactly(S[0, 0]) == h
    assert exactly(y[0, 0]) == [
        sum(a * row[j] for a, row in zip(exactly(q[0, 0]), h, strict=True)) for j in range(2)
    ]


def test_vector_steps_in_rationals() -> None:
    h, a, b = (integers(2, 3, seed=n) for n in range(3))
    expected = [
        [x * y + z for x, y, z in zip(*rows, strict=True)]
        for rows in zip(exactly(a), exactly(h), exactly(b), strict=True)
    ]
    y = scan_step(h, a, b)
    assert exactly(y) == exactly(h) == expected
    state, x, delta = integers(1, 2, 2, seed=3), integers(1, 2, seed=4), integers(1, 2, seed=5)
    write, read = integers(1, 1, 2, seed=6), integers(1, 1, 2, seed=7)
    after = [
        [
            s + Fraction(float(x[0, d] * delta[0, d])) * w
            for s, w in zip(row, exactly(write[0, 0]), strict=True)
        ]
        for d, row in enumerate(exactly(state[0]))
    ]
    y = selective_step(state, x, delta, torch.zeros(2, 2), write, read)
    assert exactly(state[0]) == after
    assert exactly(y[0]) == [
        sum(s * c for s, c in zip(row, exactly(read[0, 0]), strict=True)) for row in after
    ]


@pytest.mark.parametrize("name", ["gla", "mlstm", "scan", "s6"])
def test_a_slot_that_is_not_there_touches_nothing(name: str) -> None:
    """It gives NaN, which is seen, and the cache is bit for bit as it was."""
    case = drawn(Row(name, name, batch=2, rows=2, slots=(1, 0), length=1))
    beyond = replace(case, slots=torch.tensor([1, 2]))
    outputs, cache = stepped(beyond)
    assert outputs[0].isfinite().all() and outputs[1].isnan().all()
    for before, after in zip(case.cache, cache, strict=True):
        assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_rows_beyond_thirty_two_bits(tmp_path) -> None:
    """A cache of more than 2³¹ numbers: a file with holes, of which only what is touched exists."""
    keys, apart = 64, 2**30 + 4096
    path, size = str(tmp_path / "cache"), 2 * apart + keys * keys
    cache = torch.from_file(path, shared=True, size=size, dtype=torch.float32)
    state = cache.as_strided((3, 1, keys, keys), (apart, keys * keys, keys, 1))
    one = torch.ones(1, 1, keys)
    y = decay_step(state, one, one, one, slots=torch.tensor([2], dtype=torch.int32))
    assert torch.equal(y, torch.full_like(y, keys))
    assert torch.equal(state[2], torch.ones_like(state[2])) and not state[:2].any()


@triton.jit
def decayed_after(S, W, U, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr):
    return code.faded(code.written(S, W, U), g, row, turn, keys, K, GATE)


@triton.jit
def decayed(S, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr, ERASE: tl.constexpr):
    return code.faded(S, g, row, turn, keys, K, GATE)


@triton.jit
def undecayed(S, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr, ERASE: tl.constexpr):
    return S


@triton.jit
def no_bonus(Q, bonus, head, W, keys, K: tl.constexpr):
    return 0.0


@triton.jit
def every_turn(S, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr):
    if GATE == "diagonal":
        return S * tl.exp(code.numbers(g, row, keys, K))[:, None]
    elif GATE == "scalar":
        return S * tl.exp(code.number(g, row))
    else:
        return S


@triton.jit
def own_row(slots, sequence):
    return sequence.to(tl.int64)


@triton.jit
def always_one(pointer, place):
    return 1.0


@triton.jit
def in_the_wrong_order(a, b, later_a, later_b):
    return later_a * a, a * later_b + b


@triton.jit
def unconjugated(ar, ai, br, bi, cr, ci, dr, di):
    return ar, ai, cr * br + ci * bi + dr, cr * bi + ci * br + di


SLOTS = "some at rest"
PLANTED = {
    "the decay comes after the write": (code, "updated", decayed_after, PLAIN["gla"]),
    "the erase reads the undecayed state": (code, "seen", undecayed, PLAIN["gated deltanet"]),
    "the erase of DPLR reads the decayed state": (code, "seen", decayed, PLAIN["dplr"]),
    "the bonus is dropped": (code, "bonus_of", no_bonus, PLAIN["rwkv6"]),
    "every micro-step decays": (code, "faded", every_turn, PLAIN["delta product"]),
    "the strength is dropped": (code, "number", always_one, PLAIN["deltanet"]),
    "the divisor is dropped": (code, "number", always_one, PLAIN["mlstm"]),
    "slots are ignored": (
        code, "slot_of", own_row, Row("slots", "gla", rows=3, slots=(2, 0), length=2)
    ),
    "gate and input exchange": (vector_steps, "then", in_the_wrong_order, PLAIN["scan"]),
    "gate and input of S6 exchange": (vector_steps, "then", in_the_wrong_order, PLAIN["s6"]),
    "i² = 1": (
        vector_steps, "then_complex", unconjugated,
        Row("complex", "scan", dtype=torch.complex64, length=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    module, function, bug, row = PLANTED[name]
    monkeypatch.setattr(module, function, bug)
    with pytest.raises((BoundExceeded, AssertionError)):
        law_steps_are_the_run(row)


def test_the_tile_is_narrower_where_sequences_are_few() -> None:
    program = matrix.PROGRAMS[0]
    one, many = (matrix.tile_for(program, "float32", 128, 90, 128, n) for n in (16, 4096))
    assert one.constants["BV"] == 8 and many.constants["BV"] == 32

"""Steps of decoding on the CPU: T steps are the whole run, in place, in the rows of the slots and in no other."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stepping import (
    FAMILIES,
    Row,
    Steps,
    drawn,
    law_micro_steps_are_steps,
    law_steps_are_the_run,
    stepped,
)
from torch import Tensor

import dsf
from dsf.errors import InvalidInput, Refused
from dsf.forms.bounds import error_bound
from dsf.kernels import (
    bytes_of_step,
    decay_step,
    delta_step,
    dplr_step,
    gated_scan,
    mlstm_step,
    scalar_decay,
    scan_step,
    selective_scan,
    selective_step,
)
from dsf.mixers import comba, hgrn2, mlstm, retnet, rwkv7, s6, ssd
from dsf.mixers.rwkv7 import RATE
from dsf.numerics import BoundExceeded, require_within
from dsf.state import State
from dsf.system import System

ROOT = Path(__file__).parents[1]
WIDE = torch.float64
PLAIN = {name: Row(name, name) for name in FAMILIES}
ROWS = (
    *PLAIN.values(),
    *(Row(f"{name} in float64", name, dtype=WIDE, length=9) for name in FAMILIES),
    *(
        Row(f"{name}, some at rest", name, batch=4, rows=6, slots=(4, -1, 1, -3))
        for name in FAMILIES
    ),
    *(
        Row(f"{name} in {str(dtype)[6:]}", name, dtype=dtype)
        for name in ("rwkv6", "dplr", "mlstm", "scan", "s6")
        for dtype in (torch.float16, torch.bfloat16)
    ),
    Row("complex", "scan", dtype=torch.complex64, length=9),
    Row("complex, twice as wide", "scan", dtype=torch.complex128, length=9),
    Row("shared heads", "gla", heads=(4, 2, 1, 4)),
    Row("shared micro-steps", "delta product", heads=(4, 1, 2, 1)),
    Row("shared erasers", "dplr", heads=(4, 4, 2, 1)),
    Row("shared heads of the mlstm", "mlstm", heads=(4, 1, 2, 4)),
    Row("no sequence", "kda", batch=0, rows=2, slots=()),
    Row("no value", "kda", values=0),
    Row("one channel", "delta product", keys=1, values=1),
    Row("huge gates", "gla", gates=300.0),
    Row("huge gates of the mlstm", "mlstm", gates=100.0),
    Row("exact zeros", "kda", zero=True),
    Row("gates of the mlstm that are zero", "mlstm", zero=True, length=6),
    Row("three groups", "s6", heads=(2, 2, 3, 2)),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_steps_are_the_run(row: Row) -> None:
    law_steps_are_the_run(row)


def test_micro_steps_are_steps() -> None:
    law_micro_steps_are_steps()


def test_a_step_too_many_is_caught(monkeypatch) -> None:
    monkeypatch.setitem(FAMILIES, "gla", replace(FAMILIES["gla"], step=_twice))
    with pytest.raises(BoundExceeded):
        law_steps_are_the_run(PLAIN["gla"])


def _twice(states, x, scale, slots):
    given = {"g": x["g"], "scale": scale, "slots": slots}
    decay_step(*states, x["q"], x["k"], x["v"], **given)
    return decay_step(*states, x["q"], x["k"], x["v"], **given)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


B, T, H, K, V = 2, 7, 2, 3, 4
q, k, v = normal(B, T, H, K, seed=1), normal(B, T, H, K, seed=2), normal(B, T, H, V, seed=3)
START = normal(B, H, K, V, seed=4)
gates, keyed = -normal(B, T, H, seed=5).abs(), normal(B, T, H, K, seed=6)
unit = torch.nn.functional.normalize(k, dim=-1)


def _log(*decays: float) -> Tensor:
    return torch.tensor(decays, dtype=WIDE).log()


CONVENTIONS = {
    "RetNet": (
        retnet(q, k, decay=torch.tensor([0.5, 0.9], dtype=WIDE)),
        lambda S, t: decay_step(S, q[:, t], k[:, t], v[:, t], _log(0.5, 0.9).expand(B, H)),
    ),
    "SSD": (
        ssd(-gates, _log(0.5, 0.9), k, q),
        lambda S, t: decay_step(
            S, q[:, t], k[:, t], v[:, t], -gates[:, t] * _log(0.5, 0.9), beta=-gates[:, t]
        ),
    ),
    "HGRN2": (
        hgrn2(q, keyed, torch.zeros(H, K, dtype=WIDE)),
        lambda S, t: decay_step(
            S, q[:, t], (-keyed[:, t]).sigmoid(), v[:, t], torch.nn.functional.logsigmoid(keyed[:, t])
        ),
    ),
    "RWKV-7": (
        rwkv7(q, keyed, k, unit, k.sigmoid()),
        lambda S, t: dplr_step(
            S, q[:, t], k[:, t], v[:, t], -k[:, t].sigmoid() * unit[:, t], unit[:, t],
            -RATE * keyed[:, t].sigmoid(),
        ),
    ),
    "Comba": (
        comba(q, unit, -gates, gates, *torch.tensor([[0.5, 1.0], [0.25, 0.0]], dtype=WIDE)),
        lambda S, t: _comba(S, t),
    ),
}  # fmt: skip


def _comba(S: Tensor, t: int) -> Tensor:
    inner, d = torch.tensor([[0.5, 1.0], [0.25, 0.0]], dtype=WIDE)
    strength = -gates[:, t, :, None]
    key, erasing = unit[:, t], inner.sigmoid()[:, None] * unit[:, t]
    left = -gates[:, t, :, None].exp() * strength * key
    reading = q[:, t] - d[:, None] * erasing
    return dplr_step(S, reading, strength * key, v[:, t], left, erasing, gates[:, t])


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_are_those_of_the_mixers(name: str) -> None:
    system, step = CONVENTIONS[name]
    state = START.clone()
    outputs = torch.stack([step(state, t) for t in range(T)], 1)
    expected, end = dsf.run(system, v, State(START), form="recurrent")
    limits = error_bound(system, v, State(START), form=Steps(deepest=10.0))
    require_within(outputs, expected, 2 * limits.outputs, "outputs")
    require_within(state, end.memory, 2 * limits.memory, "state")


def test_conventions_of_the_mlstm() -> None:
    """With raw gates, and the paper's √K as a scale: the same outputs from the empty state."""
    system = mlstm(q, k, 3 * gates, keyed[..., 0])
    state, n = torch.zeros_like(START), torch.zeros(B, H, K, dtype=WIDE)
    m = torch.full((B, H), -torch.inf, dtype=WIDE)
    fades = torch.nn.functional.logsigmoid(keyed[..., 0])
    outputs = torch.stack(
        [
            mlstm_step(
                state, n, m, q[:, t], k[:, t], v[:, t], 3 * gates[:, t], fades[:, t], scale=K**-0.5
            )
            for t in range(T)
        ],
        1,
    )
    limits = error_bound(system, v, form=Steps(deepest=10.0))
    require_within(outputs, dsf.run(system, v, form="recurrent")[0], 2 * limits.outputs, "outputs")


def test_steps_are_the_chunks_of_scalar_decay() -> None:
    state = START.clone()
    steps = [decay_step(state, q[:, t], k[:, t], v[:, t], gates[:, t], scale=0.5) for t in range(T)]
    whole, final = scalar_decay(q, k, v, gates, START, scale=0.5)
    system = _scalar()
    of_steps, of_chunks = (
        error_bound(system, v, State(START), form=form)
        for form in (Steps(deepest=10.0), "chunkwise")
    )
    outputs = of_steps.outputs + of_chunks.outputs
    require_within(torch.stack(steps, 1), whole, outputs, "outputs")
    require_within(state, final, of_steps.memory + of_chunks.memory, "state")


def _scalar() -> System:
    from dsf.coupling import OuterCoupling
    from dsf.structure import Scalar

    return System(Scalar.from_log(gates), OuterCoupling(k), OuterCoupling(0.5 * q))


@pytest.mark.parametrize("dtype", [WIDE, torch.complex128])
def test_steps_are_the_gated_scan(dtype: torch.dtype) -> None:
    case = drawn(Row("scan", "scan", dtype=dtype, length=9))
    outputs, (state,) = stepped(case)
    whole, final = gated_scan(case.x["a"], case.x["b"], case.cache[0])
    system, tokens, start = case.problem(WIDE)
    pairs = [error_bound(system, tokens, start, form=f) for f in (Steps(), "scan")]
    limit = sum(each.outputs[..., 0] for each in pairs)
    require_within(outputs, whole, limit, "states")  # type: ignore[arg-type]
    require_within(state, final, sum(each.memory[..., 0, 0] for each in pairs), "last states")  # type: ignore[arg-type]


def test_steps_are_the_selective_scan() -> None:
    case = drawn(Row("selective", "s6", dtype=WIDE, length=9))
    outputs, (state,) = stepped(case)
    x = case.x
    given = [x[name] for name in ("x", "delta", "A", "b", "c")]
    whole, final = selective_scan(*given, case.cache[0], skip=x["skip"])
    system, tokens, start = case.problem(WIDE)
    pairs = [error_bound(system, tokens, start, form=f) for f in (Steps(deepest=1.0), "scan")]
    require_within(outputs, whole, sum(each.outputs[:, :, 0] for each in pairs), "outputs")  # type: ignore[arg-type]
    require_within(state, final, sum(each.memory[:, 0].mT for each in pairs), "last states")  # type: ignore[arg-type]


def test_s6_with_one_group_is_the_mixer() -> None:
    case = drawn(Row("one group", "s6", heads=(1, 1, 1, 1), dtype=WIDE))
    outputs, (state,) = stepped(case)
    x = case.x
    system = s6(x["delta"], x["A"], x["b"][:, :, 0], x["c"][:, :, 0], skip=x["skip"])
    start, tokens = State(case.cache[0].mT[:, None]), x["x"][:, :, None]
    expected, end = dsf.run(system, tokens, start, form="recurrent")
    limits = error_bound(system, tokens, start, form=Steps(deepest=1.0))
    require_within(outputs, expected[:, :, 0], 2 * limits.outputs[:, :, 0], "outputs")
    require_within(state, end.memory[:, 0].mT, 2 * limits.memory[:, 0].mT, "states")


@pytest.mark.parametrize("name", FAMILIES)
def test_sequences_come_and_go(name: str) -> None:
    """A step of all is the steps of each alone, whatever the rows are and whoever rests."""
    case = drawn(Row(f"{name}, coming and going", name, batch=3, rows=4, slots=(2, 0, 3), length=5))
    together = tuple(each.clone() for each in case.cache)
    alone = tuple(each.clone() for each in case.cache)
    for t, slots in enumerate([(2, 0, 3), (2, -1, 3), (-1, 0, -1), (-1, -1, -1), (2, 0, 3)]):
        x = case.at(t)
        y = case.family.step(together, x, 0.5, torch.tensor(slots, dtype=torch.int32))
        for n, slot in enumerate(slots):
            one = {key: z if key in case.family.constant else z[n : n + 1] for key, z in x.items()}
            found = case.family.step(alone, one, 0.5, torch.tensor([slot]))
            assert torch.equal(found[0], y[n]) and (slot >= 0 or not y[n].any())
    for one, other, before in zip(alone, together, case.cache, strict=True):
        assert torch.equal(one, other) and torch.equal(one[1], before[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_a_cache_may_be_apart(name: str) -> None:
    """Rows with other things between them, as pages of a serving engine have."""
    case = drawn(Row(name, name, rows=3, slots=(2, 0)))
    expected, dense = stepped(case)
    pages = [torch.zeros(3, 7 + x[0].numel(), dtype=x.dtype) for x in case.cache]
    apart = tuple(
        p[:, 3:-4].view(x.shape)
        if p[:, 3:-4].is_contiguous()
        else p[:, 3:-4].unflatten(1, x.shape[1:])
        for p, x in zip(pages, case.cache, strict=True)
    )
    for view, x in zip(apart, case.cache, strict=True):
        view.copy_(x)
    outputs = [case.family.step(apart, case.at(t), 0.5, case.slots) for t in range(case.row.length)]
    assert torch.equal(torch.stack(outputs, 1), expected)
    for view, x, page in zip(apart, dense, pages, strict=True):
        assert torch.equal(view, x) and not page[:, :3].any() and not page[:, -4:].any()


def operators() -> dict[str, tuple]:
    """Each operator of torch and arguments for it."""
    x, slots = [z[:, 0] for z in (q, k, v)], torch.tensor([2, -1])
    cache, n, m = normal(3, H, K, V), normal(3, H, K), normal(3, H)
    names, step = torch.ops.dsf, torch.ops.dsf.matrix_step
    a = normal(B, K, seed=8)
    rates, write = -normal(K, V, seed=9).abs(), normal(B, 1, V, seed=10)
    return {
        "decay": (step, (cache, *x, gates[:, 0], None, None, None, normal(H, K), slots, 0.5, "none", True)),
        "delta": (step, (cache, *x, keyed[:, 0], gates[:, 0], None, None, None, slots, 0.5, "delta", False)),
        "dplr": (step, (cache, *x, None, None, x[0], x[1], None, slots, 0.5, "dplr", False)),
        "mlstm": (names.mlstm_step, (cache, n, m, *x, gates[:, 0], gates[:, 1], slots, 0.5)),
        "scan": (names.scan_step, (normal(3, K), a, a, slots)),
        "selective": (names.selective_step, (normal(3, K, V), a, a.abs(), rates, write, write, None, slots)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["decay", "delta", "dplr", "mlstm", "scan", "selective"])
def test_operators_are_what_torch_asks_for(name: str) -> None:
    operator, given = operators()[name]
    torch.library.opcheck(operator.default, given)
    state = given[0]
    before = state._version
    operator(*given)
    assert state._version > before, "autograd is not told that the state changed"


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        half = {"device": "cuda", "dtype": torch.bfloat16}
        x = [torch.empty(B, H, size, **half) for size in (K, K, V)]
        state, n, m = (torch.empty(5, H, *s, device="cuda") for s in ((K, V), (K,), ()))
        gate = torch.empty(B, H, device="cuda")
        slots = torch.empty(B, dtype=torch.int64, device="cuda")
        found = [
            decay_step(state, *x, slots=slots),
            delta_step(state, *x, gate, slots=slots),
            dplr_step(state, *x, x[0], x[1], slots=slots),
            mlstm_step(state, n, m, *x, gate, gate, slots=slots),
        ]
        for y in found:
            assert y.shape == (B, H, V) and y.dtype == torch.bfloat16 and y.device.type == "cuda"
        a = torch.empty(B, K, **half)
        h = scan_step(torch.empty(B, K, device="cuda"), a, a)
        assert h.shape == (B, K) and h.dtype == torch.float32


COMPILED = """
import torch
from dsf.kernels import decay_step, mlstm_step
sizes = [(4, 2, 3, 5), (4, 2, 3), (4, 2), (2, 2, 3), (2, 2, 3), (2, 2, 5), (2, 2), (2, 2)]
given = [torch.randn(size) for size in sizes]
slots = torch.tensor([3, -1])
def both(S, n, m, q, k, v, i, f):
    y = decay_step(S, q, k, v, f.neg().exp().neg(), slots=slots)
    return y + mlstm_step(S, n, m, q, k, v, i, f, slots=slots)
run = torch.compile(both, fullgraph=True, backend="aot_eager")
one, two = ([x.clone() for x in given] for _ in range(2))
pairs = zip([run(*one), *one], [both(*two), *two])
print(all(torch.equal(a, b) for a, b in pairs), torch.equal(one[0][3], given[0][3]))
"""


def test_compiles_without_a_break() -> None:
    """The mutation is seen by the compiler: the state changes as it does eagerly."""
    found = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == "True False", found.stderr[-4000:]


@pytest.mark.parametrize("name", FAMILIES)
def test_there_is_no_gradient(name: str) -> None:
    """It is refused where autograd would record, and only there; the state is as it was."""
    case = drawn(Row(name, name, length=1))
    first = next(iter(case.at(0)))
    x = {key: z.requires_grad_() if key == first else z for key, z in case.at(0).items()}
    cache = tuple(each.clone() for each in case.cache)
    with pytest.raises(Refused, match=rf"no gradient, which {first} would need.*no_grad\(\)"):
        case.family.step(cache, x, 0.5, None)
    for one, other in zip(cache, case.cache, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        outside = case.family.step(tuple(each.clone() for each in case.cache), x, 0.5, None)
    with torch.inference_mode():
        inside = case.family.step(cache, x, 0.5, None)
    assert torch.equal(outside, inside) and not outside.requires_grad


def one(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


def matrix(rows: int = 2, **other: Tensor):
    """A call of `decay_step` with one argument replaced."""
    given = {"state": one(rows, 2, 3, 4), "q": one(2, 2, 3), "k": one(2, 2, 3), "v": one(2, 2, 4)}
    return lambda: decay_step(**(given | other))


BAD = {
    "heads of the state": (matrix(state=one(2, 2, 4, 4)), r"must be \(rows, 2, 3, 4\): \(rows, H, K, V\)"),
    "axes of the state": (matrix(state=one(2, 3, 4)), r"`state` must be \(rows, H, K, V\)"),
    "type of the state": (matrix(state=one(2, 2, 3, 4, dtype=torch.float16)), "must be torch.float32"),
    "a narrow state of wide data": (
        matrix(**{name: one(2, 2, s, dtype=WIDE) for name, s in (("q", 3), ("k", 3), ("v", 4))}),
        "must be torch.float64",
    ),
    "strides": (matrix(state=one(2, 2, 4, 3).mT), "must be contiguous"),
    "an expanded state": (matrix(state=one(1, 2, 3, 4).expand(2, 2, 3, 4)), "overlap"),
    "rows": (matrix(rows=3), "2 sequences need as many rows"),
    "slots": (matrix(slots=torch.tensor([0])), r"`slots` must be \(2,\)"),
    "type of slots": (matrix(slots=torch.tensor([0.0, 1.0])), "int32 or int64"),
    "a slot beyond": (matrix(slots=torch.tensor([0, 2])), "from -1 .at rest. to 1"),
    "a slot twice": (matrix(slots=torch.tensor([1, 1])), "one slot"),
    "a sequence of tokens": (matrix(q=one(2, 1, 2, 3)), "one token"),
    "micro-steps": (matrix(k=one(2, 2, 1, 3)), "`k` must be"),
    "shared heads": (matrix(k=one(2, 3, 3)), "cannot share"),
    "key sizes": (matrix(k=one(2, 2, 5)), "must agree"),
    "types": (matrix(k=one(2, 2, 3, dtype=torch.float16)), "of one type"),
    "gates": (matrix(g=one(2, 3)), r"`g` must be \(2, 2\) or \(2, 2, 3\)"),
    "strengths": (matrix(beta=one(2, 2, 1)), r"`beta` must be \(2, 2\)"),
    "bonus": (matrix(bonus=one(2, 3)), 'timing="before"'),
    "no micro-step": (
        lambda: delta_step(one(1, 1, 1, 1), one(1, 1, 1), one(1, 1, 0, 1), one(1, 1, 0, 1)), "1 or more"
    ),
    "values of micro-steps": (
        lambda: delta_step(one(1, 1, 1, 1), one(1, 1, 1), one(1, 1, 2, 1), one(1, 1, 1)), "`v` must be"
    ),
    "erasers": (lambda: dplr_step(one(1, 1, 1, 1), *[one(1, 1, 1)] * 3, one(1, 1, 1), one(1, 1, 2)), "`b` must be"),
    "normaliser": (
        lambda: mlstm_step(one(1, 1, 1, 1), one(1, 1, 2), one(1, 1), *[one(1, 1, 1)] * 3, *[one(1, 1)] * 2),
        "`normaliser` must be",
    ),
    "rows of the stabiliser": (
        lambda: mlstm_step(one(1, 1, 1, 1), one(1, 1, 1), one(2, 1), *[one(1, 1, 1)] * 3, *[one(1, 1)] * 2),
        "as many rows",
    ),
    "forget gates": (
        lambda: mlstm_step(
            one(1, 1, 1, 1), one(1, 1, 1), one(1, 1), *[one(1, 1, 1)] * 3, one(1, 1), one(1, 1, 1)
        ),
        r"`log_forget` must be \(B, H\)",
    ),
    "scan": (lambda: scan_step(one(2, 3), one(2, 3), one(2, 4)), r"must be \(B, D\)"),
    "scan's state": (lambda: scan_step(one(2, 4), one(2, 3), one(2, 3)), r"must be \(rows, 3\)"),
    "steps": (lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 3), *[one(2, 1)] * 3), "`delta`"),
    "rates": (lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 2), *[one(3, 1)] * 3), r"`A` must be \(2, N\)"),
    "groups": (
        lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 2), one(2, 1), *[one(1, 3, 1)] * 2), "a divisor of D"
    ),
    "reads": (
        lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 2), one(2, 1), one(1, 1, 1), one(1, 1)), "`c` must be"
    ),
    "skip": (
        lambda: selective_step(
            one(1, 2, 1), one(1, 2), one(1, 2), one(2, 1), *[one(1, 1, 1)] * 2, skip=one(3)
        ),
        r"`skip` must be \(2,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()


def test_bytes_are_those_of_the_states_twice_and_of_the_rest_once() -> None:
    state, token = torch.zeros(9, 2, 3, 4), torch.zeros(5, 2, 4, dtype=torch.float16)
    assert bytes_of_step(state, 5, token, None, token) == 2 * 5 * 2 * 3 * 4 * 4 + 2 * 5 * 2 * 4 * 2

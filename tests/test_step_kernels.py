"""Steps of decoding on the CPU: T steps are the whole run, in place, in the rows of the slots and in no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from step_families import FAMILIES, Row
from stepping import Steps, drawn, law_micro_steps_are_steps, law_steps_are_the_run, stepped
from torch import Tensor

import dsf
from dsf.forms.bounds import error_bound
from dsf.kernels import (
    decay_step,
    dplr_step,
    gated_scan,
    mlstm_step,
    scalar_decay,
    selective_scan,
)
from dsf.mixers import comba, hgrn2, mlstm, retnet, rwkv7, s6, ssd
from dsf.mixers.rwkv7 import RATE
from dsf.numerics import BoundExceeded, require_within
from dsf.state import State
from dsf.system import System

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
    *(Row(f"a long run of {name}", name, length=100) for name in ("gla", "kda", "mlstm", "s6")),
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

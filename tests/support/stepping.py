"""Steps of decoding under one law: T of them, in place, are the whole run, and touch no other row of the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import dsf
from dsf.coupling import ChannelCoupling, OuterCoupling
from dsf.forms.base import Sizes
from dsf.forms.bounds import error_bound
from dsf.forms.recurrent import Recurrent
from dsf.kernels import (
    decay_step,
    delta_step,
    dplr_step,
    mlstm_step,
    scan_step,
    selective_step,
)
from dsf.mixers import (
    delta_product,
    deltanet,
    gated_deltanet,
    gla,
    kda,
    mlstm,
    rwkv6,
)
from dsf.numerics import Roundings, require_within, smallest, unit_roundoff
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Elementwise, Identity, Scalar
from dsf.system import System

Quantities = dict[str, Tensor]


@dataclass(frozen=True)
class Row:
    """One case. `heads` are those of the state, q, k, v; `slots` places sequences in a cache of `rows`."""

    name: str
    family: str
    heads: tuple[int, int, int, int] = (2, 2, 2, 2)
    keys: int = 5
    values: int = 6
    length: int = 4
    batch: int = 2
    dtype: torch.dtype = torch.float32
    slots: tuple[int, ...] | None = None
    rows: int | None = None
    gates: float = 1.0  # the size of log-decays
    zero: bool = False  # some decays are exact zeros
    scale: float = 0.5

    @property
    def active(self) -> list[int]:
        """The sequences that are not at rest."""
        return [n for n in range(self.batch) if self.slots is None or self.slots[n] >= 0]


class Draw:
    """Random quantities of a row, over all its steps: (B, T, …)."""

    def __init__(self, row: Row) -> None:
        self.row, self.generator = row, torch.Generator().manual_seed(len(row.name))
        self.lead = (row.batch, row.length)

    def normal(self, *shape: int) -> Tensor:
        wide = torch.promote_types(self.row.dtype, torch.float32)
        return torch.randn(shape, generator=self.generator, dtype=wide)

    def uniform(self, *shape: int) -> Tensor:
        wide = torch.promote_types(self.row.dtype, torch.float32)
        return torch.rand(shape, generator=self.generator, dtype=wide)

    def data(self, *shape: int) -> Tensor:
        return self.normal(*self.lead, *shape).to(self.row.dtype)

    def logs(self, *shape: int) -> Tensor:
        """Log-decays, some of them -inf."""
        g = -self.row.gates * self.uniform(*self.lead, *shape)
        if self.row.zero:
            g = torch.where(self.uniform(*g.shape) < 0.3, -torch.inf, g)
        return g

    def tokens(self, unit: bool = False, turns: tuple[int, ...] = ()) -> Quantities:
        """q, k, v; keys of length one where the delta rule needs them."""
        _, Hq, Hk, Hv = self.row.heads
        k = self.normal(*self.lead, Hk, *turns, self.row.keys)
        k = torch.nn.functional.normalize(k, dim=-1) if unit else k / self.row.keys**0.5
        v = self.data(Hv, *turns, self.row.values)
        return {"q": self.data(Hq, self.row.keys), "k": k.to(self.row.dtype), "v": v}


@dataclass(frozen=True)
class Family:
    """What is drawn, its system (from wide quantities with all heads), and the step of one token.

    `constant` names quantities without time; `shared` those that heads share.
    """

    draw: Callable[[Draw], Quantities]
    system: Callable[[Quantities], System]
    step: Callable[[tuple[Tensor, ...], Quantities, float, Tensor | None], Tensor]
    constant: tuple[str, ...] = ()
    shared: tuple[str, ...] = ("q", "k", "v", "a", "b")
    turns: int = 1
    kind: str = "matrix"  # of state


def _by_decay(states, x, scale, slots):
    given = {name: x[name] for name in ("g", "beta", "bonus") if name in x}
    timing = "before" if "bonus" in x else "after"
    return decay_step(
        *states, x["q"], x["k"], x["v"], **given, timing=timing, scale=scale, slots=slots
    )


def _by_delta(states, x, scale, slots):
    given = {name: x[name] for name in ("g", "beta") if name in x}
    return delta_step(*states, x["q"], x["k"], x["v"], **given, scale=scale, slots=slots)


def _by_dplr(states, x, scale, slots):
    given = (x[name] for name in ("q", "k", "v", "a", "b"))
    return dplr_step(*states, *given, x.get("g"), scale=scale, slots=slots)


def _rwkv6(x: Quantities) -> System:
    return rwkv6(x["q"], x["k"], (-x["g"]).log(), x["bonus"])


def _dplr(x: Quantities) -> System:
    gate = Diagonal.from_log(x["g"]) if x["g"].ndim == 4 else Scalar.from_log(x["g"])
    low_rank = DPLR(gate, x["a"][..., None], x["b"][..., None])
    return System(low_rank, OuterCoupling(x["k"]), OuterCoupling(x["q"]))


def _draw_dplr(d: Draw) -> Quantities:
    x = d.tokens()
    b = torch.nn.functional.normalize(d.normal(*x["k"].shape), dim=-1)
    a = -d.uniform(*b.shape) * b
    return x | {
        "a": a.to(d.row.dtype),
        "b": b.to(d.row.dtype),
        "g": d.logs(d.row.heads[0], d.row.keys),
    }


def _draw_mlstm(d: Draw) -> Quantities:
    H = d.row.heads[0]
    i = 3 * d.row.gates * d.normal(*d.lead, H)
    if d.row.zero:
        i = torch.where(d.uniform(*i.shape) < 0.5, -torch.inf, i)
    return d.tokens() | {"i": i, "f": d.logs(H)}


def _mlstm(x: Quantities) -> System:
    """The mixer divides k by √K; here the caller does."""
    return mlstm(x["q"], x["k"] * x["k"].shape[-1] ** 0.5, x["i"], x["f"], forget="exp")


def _step_mlstm(states, x, scale, slots):
    given = (x[name] for name in ("q", "k", "v", "i", "f"))
    return mlstm_step(*states, *given, scale=scale, slots=slots)


def _scan(x: Quantities) -> System:
    one = torch.ones_like(x["a"][:1, :1, :, None])
    return System(Scalar(x["a"]), OuterCoupling(one), OuterCoupling(one))


def _draw_scan(d: Draw) -> Quantities:
    return {"a": d.data(d.row.values), "b": d.data(d.row.values)}


def _draw_s6(d: Draw) -> Quantities:
    D, G, N = d.row.values, d.row.heads[2], d.row.keys
    rates = -d.row.gates * d.uniform(D, N)
    delta = d.uniform(*d.lead, D).to(d.row.dtype)
    return {"x": d.data(D), "delta": delta, "A": rates, "b": d.data(G, N), "c": d.data(G, N),
            "skip": d.normal(D)}  # fmt: skip


def _s6(x: Quantities) -> System:
    """As the mixer `s6`, but that groups of channels have their own b and c."""
    own = x["x"].shape[2] // x["b"].shape[2]
    b, c = (x[n].repeat_interleave(own, 2).mT[:, :, None] for n in ("b", "c"))  # (B, T, 1, N, D)
    step = x["delta"][:, :, None, None]
    return System(
        Elementwise.from_log(step * x["A"].mT),
        ChannelCoupling(step * b),
        ChannelCoupling(c),
        feedthrough=Diagonal(x["skip"][None, None, None]),
    )


def _step_s6(states, x, scale, slots):
    given = (x[name] for name in ("x", "delta", "A", "b", "c"))
    return selective_step(*states, *given, skip=x["skip"], slots=slots)


def _heads(d: Draw) -> tuple[int, int]:
    return d.row.heads[0], d.row.keys


FAMILIES = {
    "linear": Family(
        Draw.tokens,
        lambda x: System(Identity(), OuterCoupling(x["k"]), OuterCoupling(x["q"])),
        _by_decay,
    ),
    "ssd": Family(
        lambda d: d.tokens() | {"g": d.logs(d.row.heads[0]), "beta": d.uniform(*d.lead, d.row.heads[0])},
        lambda x: System(
            Scalar.from_log(x["g"]), OuterCoupling(x["beta"][..., None] * x["k"]), OuterCoupling(x["q"])
        ),
        _by_decay,
    ),
    "gla": Family(
        lambda d: d.tokens() | {"g": d.logs(*_heads(d))},
        lambda x: gla(x["q"], x["k"], x["g"]),
        _by_decay,
    ),
    "rwkv6": Family(
        lambda d: d.tokens() | {"g": d.logs(*_heads(d)), "bonus": d.normal(*_heads(d))},
        _rwkv6,
        _by_decay,
        constant=("bonus",),
    ),
    "deltanet": Family(
        lambda d: d.tokens(unit=True) | {"beta": 2 * d.uniform(*d.lead, d.row.heads[0])},
        lambda x: deltanet(x["q"], x["k"], x["beta"]),
        _by_delta,
    ),
    "gated deltanet": Family(
        lambda d: d.tokens(unit=True)
        | {"beta": 2 * d.uniform(*d.lead, d.row.heads[0]), "g": d.logs(d.row.heads[0])},
        lambda x: gated_deltanet(x["q"], x["k"], x["g"], x["beta"]),
        _by_delta,
    ),
    "kda": Family(
        lambda d: d.tokens(unit=True)
        | {"beta": 2 * d.uniform(*d.lead, d.row.heads[0]), "g": d.logs(*_heads(d))},
        lambda x: kda(x["q"], x["k"], x["beta"], x["g"]),
        _by_delta,
    ),
    "delta product": Family(
        lambda d: d.tokens(unit=True, turns=(3,))
        | {"beta": 2 * d.uniform(*d.lead, d.row.heads[0], 3), "g": d.logs(d.row.heads[0])},
        lambda x: delta_product(x["q"], x["k"], x["beta"], x["g"]),
        _by_delta,
        turns=3,
    ),
    "dplr": Family(_draw_dplr, _dplr, _by_dplr),
    "mlstm": Family(
        _draw_mlstm,
        _mlstm,
        _step_mlstm,
        kind="mlstm",
    ),
    "scan": Family(
        _draw_scan,
        _scan,
        lambda states, x, scale, slots: scan_step(*states, x["a"], x["b"], slots=slots),
        shared=(),
        kind="vector",
    ),
    "s6": Family(
        _draw_s6,
        _s6,
        _step_s6,
        constant=("A", "skip"),
        shared=(),
        kind="channels",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Steps(Recurrent):
    """The recurrence, with `turns` inner steps, and exponentials whose exponents are rounded (none beyond e^-104)."""

    turns: int = 1
    deepest: float = 0.0

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        found = super().roundings(system, sizes)
        step = self.turns * found.step + 2 * min(self.deepest, 104.0)
        return Roundings(step, found.path + 4 * self.turns * system.key_size)


@dataclass(frozen=True, eq=False)
class Case:
    """A row's quantities over all steps, the cache before, and the slots."""

    row: Row
    family: Family
    x: Quantities
    cache: tuple[Tensor, ...]
    slots: Tensor | None

    @property
    def places(self) -> Tensor:
        """The rows of the active sequences."""
        row = self.row
        return torch.tensor([n if row.slots is None else row.slots[n] for n in row.active]).long()

    def at(self, t: int) -> Quantities:
        constant = self.family.constant
        return {name: v if name in constant else v[:, t] for name, v in self.x.items()}

    def told(self, dtype: torch.dtype) -> Quantities:
        """The quantities of the active sequences in a wider type, for every head."""
        found = {}
        for name, value in self.x.items():
            value = value.to(dtype.to_complex() if value.is_complex() else dtype)
            if name not in self.family.constant:
                value = value[self.row.active]
                if name in self.family.shared:
                    value = value.repeat_interleave(self.row.heads[0] // value.shape[2], 2)
            found[name] = self.row.scale * value if name == "q" else value
        return found

    def problem(self, dtype: torch.dtype) -> tuple[System, Tensor, State]:
        """The system, its tokens and initial state."""
        x, kind = self.told(dtype), self.family.kind
        memory, *others = (each[self.places] for each in self.cache)
        memory = memory.to(dtype.to_complex() if memory.is_complex() else dtype)
        if kind == "vector":
            return self.family.system(x), x["b"][..., None], State(memory[..., None, None])
        if kind == "channels":
            return self.family.system(x), x["x"][:, :, None], State(memory.mT[:, None])
        state = State(memory, *(each.to(dtype) for each in others))
        return self.family.system(x), x["v"], state


def drawn(row: Row) -> Case:
    family, draw = FAMILIES[row.family], Draw(row)
    x = family.draw(draw)
    rows = row.rows if row.rows is not None else row.batch
    H, K, V = row.heads[0], row.keys, row.values
    shapes = {
        "matrix": [(H, K, V)],
        "mlstm": [(H, K, V), (H, K), (H,)],
        "vector": [(V,)],
        "channels": [(V, K)],
    }[family.kind]
    cache = [draw.normal(rows, *shape) for shape in shapes]
    if family.kind == "vector":
        cache = [each.to(torch.promote_types(each.dtype, row.dtype)) for each in cache]
    if row.family == "mlstm":
        cache[2][::2] = -torch.inf  # half of the rows are new
        cache[0][::2], cache[1][::2] = 0.0, 0.0
    slots = None if row.slots is None else torch.tensor(row.slots, dtype=torch.int64)
    return Case(row, family, x, tuple(cache), slots)


def stepped(case: Case) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs of all steps (B, T, …) and the cache after them."""
    cache = tuple(each.clone() for each in case.cache)
    outputs = [
        case.family.step(cache, case.at(t), case.row.scale, case.slots)
        for t in range(case.row.length)
    ]
    return torch.stack(outputs, 1), cache


def law_steps_are_the_run(row: Row) -> None:
    """Outputs and states within their bounds of the recurrence in float64; other rows bit for bit as they were."""
    case = drawn(row)
    outputs, cache = stepped(case)
    resting = [n for n in range(row.batch) if n not in row.active]
    assert not outputs[resting].any(), "a sequence at rest has an output"
    others = [n for n in range(len(cache[0])) if n not in case.places.tolist()]
    for before, after in zip(case.cache, cache, strict=True):
        assert torch.equal(before[others], after[others]), "a row without a sequence changed"
    wide = torch.promote_types(row.dtype, torch.float32).to_real()
    system, tokens, start = case.problem(torch.float64)
    expected, end = dsf.run(system, tokens, start, form="recurrent")
    deepest = max((_largest(case.x[name]) for name in case.x if name in "gfA"), default=0.0)
    form = Steps(turns=case.family.turns, deepest=deepest)
    told, told_tokens, told_start = case.problem(wide)
    limits = error_bound(told, told_tokens, told_start, form=form)
    u = unit_roundoff(row.dtype.to_real())
    found, exact = outputs[row.active], _like_outputs(case, expected)
    rounded = 2 * u * exact.abs() + smallest(row.dtype.to_real())
    require_within(found, exact, _like_outputs(case, limits.outputs) + rounded, "outputs")
    memory, limit = (_like_cache(case, each) for each in (end.memory, limits.memory))
    require_within(cache[0][case.places], memory, limit, "states")
    if case.family.kind == "mlstm":
        assert end.normaliser is not None and end.stabiliser is not None
        assert limits.normaliser is not None
        require_within(cache[1][case.places], end.normaliser, limits.normaliser, "normalisers")
        size = sum(_largest(x) for x in (end.stabiliser, case.x["f"], case.x["i"]))
        bound = torch.tensor(2 * row.length * unit_roundoff(wide) * size)
        require_within(cache[2][case.places], end.stabiliser, bound, "stabilisers")


def _largest(x: Tensor) -> float:
    """The largest finite |x|, 0 where there is none."""
    finite = x[x.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def law_micro_steps_are_steps() -> None:
    """A token of several micro-steps is as many tokens, of which the first decays; bit for bit."""
    draw = Draw(Row("micro-steps", "delta product", length=1, heads=(2, 1, 2, 1)))
    x = {name: value[:, 0] for name, value in draw.tokens(unit=True, turns=(3,)).items()}
    beta, g = draw.uniform(2, 2, 3), -draw.uniform(2, 2, 5)
    one = draw.normal(2, 2, 5, 6)
    other = one.clone()
    y = delta_step(one, x["q"], x["k"], x["v"], beta, g)
    for turn in range(3):
        key, value = x["k"][:, :, turn], x["v"][:, :, turn]
        last = delta_step(other, x["q"], key, value, beta[..., turn], None if turn else g)
    assert torch.equal(one, other) and torch.equal(y, last)


def _like_outputs(case: Case, x: Tensor) -> Tensor:
    return (
        x[..., 0]
        if case.family.kind == "vector"
        else x[:, :, 0]
        if case.family.kind == "channels"
        else x
    )


def _like_cache(case: Case, x: Tensor) -> Tensor:
    if case.family.kind == "vector":
        return x[..., 0, 0]
    return x[:, 0].mT if case.family.kind == "channels" else x

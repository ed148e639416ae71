"""What steps of decoding are tried on: rows of cases, and families of recurrences with their systems and steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, OuterCoupling
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

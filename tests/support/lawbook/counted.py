"""Mixers written naively over numbers that count their products: formulas and costs from one source."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.structure import DPLR, Block, Dense, Identity
from dsf.system import System


@dataclass
class Tally:
    products: int = 0


class Number:
    """A float that adds 1 to its tally for each product with another `Number`."""

    def __init__(self, value: float, tally: Tally) -> None:
        self.value, self.tally = value, tally

    def _made(self, value: float) -> Number:
        return Number(value, self.tally)

    def __add__(self, other: Any) -> Number:
        return self._made(self.value + float(other))

    def __sub__(self, other: Any) -> Number:
        return self._made(self.value - float(other))

    def __rsub__(self, other: float) -> Number:
        return self._made(other - self.value)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        self.tally.products += isinstance(other, Number)
        return self._made(self.value * float(other))

    def __truediv__(self, other: Any) -> Number:
        return self._made(self.value / float(other))

    def __float__(self) -> float:
        return self.value

    __radd__ = __add__
    __rmul__ = __mul__


def numbers(x: np.ndarray, tally: Tally) -> np.ndarray:
    """An array of real numbers, counted."""
    made = np.empty(x.shape, dtype=object)
    for place in np.ndindex(x.shape):
        made[place] = Number(float(x[place]), tally)
    return made


def each(function: Callable[[float], float], x: Any) -> Any:
    """A function of one number, which is not counted."""
    if isinstance(x, Number):
        return Number(function(x.value), x.tally)
    if np.ndim(x) == 0:
        return function(float(x))
    made = np.empty(x.shape, dtype=object if x.dtype == object else float)
    for place in np.ndindex(x.shape):
        made[place] = each(function, x[place])
    return made


def sigmoid(x: Any) -> Any:
    return each(lambda a: 1 / (1 + math.exp(-a)), x)


def softmax(row: list[Any]) -> list[Any]:
    raised = [each(math.exp, x) for x in row]
    return [x / sum(raised) for x in raised]


def window(q, k, v, before, after, weigh):
    """Σ over the band of what `weigh` makes of a row's scores; one head."""
    length, size = q.shape
    outputs = []
    for i in range(length):
        first = 0 if before is None else max(0, i - before)
        last = length if after is None else min(length, i + after + 1)
        row = weigh([(q[i] * k[j]).sum() / math.sqrt(size) for j in range(first, last)])
        outputs.append(sum(w * v[first + j] for j, w in enumerate(row)))
    return np.array(outputs)


def convolved(taps, v):
    return np.array(
        [sum(taps[s] * v[i - s] for s in range(min(len(taps), i + 1))) for i in range(len(v))]
    )


def read_by_all(written, asked, v):
    """One summary Σ_j B_j v_jᵀ that every query reads."""
    held = sum(b[:, None] * x for b, x in zip(written, v, strict=True))
    return np.array([(c[:, None] * held).sum(0) for c in asked])


def agent(q, k, v, agents):
    length, size = q.shape
    each_one = length // agents
    pooled = [q[a * each_one : (a + 1) * each_one].sum(0) / each_one for a in range(agents)]
    root = math.sqrt(size)
    seen = np.array([softmax([(a * x).sum() / root for x in k]) for a in pooled]).T
    asked = np.array([softmax([(a * x).sum() / root for a in pooled]) for x in q])
    return read_by_all(seen, asked, v)


def inline(q, k, v):
    """With divisions: (q·(k - k̄)/√K + 1)/N."""
    length, size = q.shape
    mean, one = k.sum(0) / length, np.array([[_one(k)]] * length)
    written = np.concatenate([k - mean, one], 1)
    asked = np.concatenate([q / math.sqrt(size), one], 1)
    return np.array([y / length for y in read_by_all(written, asked, v)])


def inline_causal(q, k, v):
    length, size = q.shape
    outputs, held, total = [], 0, 0
    for i in range(length):
        key = np.concatenate([k[i], [_one(k)]])
        held, total = held + key[:, None] * v[i], total + k[i]
        rest = 1 - (q[i] * total).sum() / ((i + 1) * math.sqrt(size))
        asked = np.concatenate([q[i] / math.sqrt(size), [rest]]) / (i + 1)
        outputs.append((asked[:, None] * held).sum(0))
    return np.array(outputs)


def flow(q, k, v, eps):
    sinks, sources, length = sigmoid(q), sigmoid(k), len(q)
    into = [((x + eps) * (sources.sum(0) + eps)).sum() for x in sinks]
    out = [((x + eps) * (sinks.sum(0) + eps)).sum() for x in sources]
    from_sources = sum(x / o for x, o in zip(sources, out, strict=True)) + eps
    from_sinks = sum(x / i for x, i in zip(sinks, into, strict=True)) + eps
    kept_in = [((x + eps) * from_sources).sum() for x in sinks]
    kept_out = [((x + eps) * from_sinks).sum() for x in sources]
    competition = softmax([each(lambda a: min(1.0, max(-1.0, a)), x) for x in kept_out])
    written = np.array([x * (c * length) for x, c in zip(sources, competition, strict=True)])
    asked = np.array([x * sigmoid(a) / i for x, a, i in zip(sinks, kept_in, into, strict=True)])
    return read_by_all(written, asked, v)


def _one(like: np.ndarray) -> Number | float:
    first = like.ravel()[0]
    return Number(1.0, first.tally) if isinstance(first, Number) else 1.0


def products_of_a_run(system: System, length: int, values: int) -> int:
    """The products of one head of a recurrence, by running it on counted ones; values all 1."""
    tally = Tally()
    one = numbers(np.ones(1), tally)[0]

    def ones(*shape: int) -> np.ndarray:
        return numbers(np.ones(shape), tally)

    keys = system.key_size
    vector = isinstance(system.write, DenseCoupling)
    width = 1 if vector else values
    state, normaliser = ones(keys, width), ones(keys, 1)

    def move(held: np.ndarray) -> np.ndarray:
        kind, channels = system.transition, held.shape[1]
        if isinstance(kind, Identity):
            return held
        if isinstance(kind, Dense):
            return (ones(keys, keys)[:, :, None] * held).sum(1)
        if isinstance(kind, Block):
            group = held.reshape(-1, kind.width, channels)
            blocks = ones(len(group), kind.width, kind.width)
            return (blocks[..., None] * group[:, None]).sum(2).reshape(keys, channels)
        if isinstance(kind, DPLR):
            pushed = (ones(kind.rank, keys, 1) * held).sum(1)
            added = (ones(keys, kind.rank, 1) * pushed).sum(1)
            return (held if isinstance(kind.gate, Identity) else one * held) + added
        return ones(*held.shape) * held

    for _ in range(length):
        state = move(state)
        if vector:
            state = state + (ones(keys, values) * ones(values)).sum(1)[:, None]
            _ = ones(values, keys) * state[:, 0]
        else:
            for _ in range(system.writes or 1):
                state = state + ones(keys, 1) * ones(values)
            reads = system.read.several if isinstance(system.read, OuterCoupling) else None
            for _ in range(reads or 1):
                _ = ones(keys, 1) * state
        if system.normaliser is not None:
            normaliser = move(normaliser) + ones(keys, 1)
            _ = ones(keys, 1) * normaliser
        if system.feedthrough is not None:
            width = values if isinstance(system.feedthrough, Dense) else 1
            _ = ones(values, width) * ones(values, 1)
    return tally.products

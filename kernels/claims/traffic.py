r"""Bytes that a forward pass reads and writes: states kept on chip against states that go through memory.

One pass: a program per tile of values walks the chunks with its part of the state in registers; it reads q and k whole,
and its columns of v, and writes its columns of y. Two passes: the first reads k and v and writes the state before every
chunk, the second reads q, k, v and these states and writes y. Elements are of two bytes. Reads are those of
programs: what caches save is not counted, nor are decays and the first and last state, which both share.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from dsf.certificate import Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

_KEYS = _VALUES = 128
_CHUNKS = 4
_BYTES = 2
_CITATION = (
    "Yang et al., arXiv 2312.06635 (FlashLinearAttention without and with states in memory), "
    "own wording and count"
)


class Accesses:
    """How often programs touch every element of q, k, v, y and of the states between chunks."""

    def __init__(self, chunk: int) -> None:
        T = chunk * _CHUNKS
        shapes = {"q": (T, _KEYS), "k": (T, _KEYS), "v": (T, _VALUES), "y": (T, _VALUES)}
        shapes["states"] = (_CHUNKS * _KEYS, _VALUES)
        self.counts = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}

    def touch(self, name: str, rows: slice, columns: slice = slice(None)) -> None:
        self.counts[name][rows, columns] += 1

    @property
    def bytes(self) -> int:
        return _BYTES * sum(int(count.sum()) for count in self.counts.values())


def one_pass(chunk: int, tile: int) -> Accesses:
    """A program per tile of values, over all keys."""
    found = Accesses(chunk)
    for first in range(0, _VALUES, tile):
        columns = slice(first, first + tile)
        for n in range(_CHUNKS):
            rows = slice(n * chunk, (n + 1) * chunk)
            found.touch("q", rows)
            found.touch("k", rows)
            found.touch("v", rows, columns)
            found.touch("y", rows, columns)
    return found


def two_passes(chunk: int) -> Accesses:
    """Every tensor once a pass: the least that two passes need."""
    found = Accesses(chunk)
    for n in range(_CHUNKS):
        rows, state = slice(n * chunk, (n + 1) * chunk), slice(n * _KEYS, (n + 1) * _KEYS)
        for name in ("k", "v"):
            found.touch(name, rows)
        found.touch("states", state)
    for n in range(_CHUNKS):
        rows, state = slice(n * chunk, (n + 1) * chunk), slice(n * _KEYS, (n + 1) * _KEYS)
        for name in ("q", "k", "v", "y"):
            found.touch(name, rows)
        found.touch("states", state)
    return found


def ratio(chunk: int, tile: int) -> Fraction:
    """Bytes of two passes over those of one: (3K + 3V + 2KV/C) / (2K ⌈V/tile⌉ + 2V).

    >>> ratio(64, 128), ratio(64, 64), ratio(64, 32)
    (Fraction(5, 2), Fraction(5, 3), Fraction(1, 1))
    """
    two = 3 * _KEYS + 3 * _VALUES + Fraction(2 * _KEYS * _VALUES, chunk)
    return two / (2 * _KEYS * -(-_VALUES // tile) + 2 * _VALUES)


def _nothing(task: Task) -> Evidence:
    return {}


def _stated(chunk: int, tiles: tuple[int, ...]) -> Callable[[Evidence], Evidence]:
    def witness(_: Evidence) -> Evidence:
        return {"chunk": chunk, "tiles": list(tiles), "ratios": [ratio(chunk, t) for t in tiles]}

    return witness


def _judge(least: Fraction, strict: bool) -> Callable[[Evidence], Verdict]:
    """The walks of the programs, element by element; `least` bounds the smallest ratio, strictly or not."""

    def judge(evidence: Evidence) -> Verdict:
        chunk, tiles = int(evidence["chunk"]), [int(x) for x in evidence["tiles"]]
        stated = [Fraction(x) for x in evidence["ratios"]]
        fit = chunk in (32, 64, 128, 256) and all(x in (16, 32, 64, 128) for x in tiles)
        known = Hypothesis("chunk and tiles", chunk, fit and 0 < len(tiles) == len(stated))

        def conclude() -> Verdict:
            two = two_passes(chunk).bytes
            found = [Fraction(two, one_pass(chunk, tile).bytes) for tile in tiles]
            if found != stated:
                return Verdict(Status.INCONCLUSIVE, remark="the ratios are not those of the walks")
            worst = min(found)
            enough = worst > least if strict else worst >= least
            remark = ", ".join(f"tiles of {t}: {x}" for t, x in zip(tiles, found, strict=True))
            status = Status.HOLDS if enough else Status.VIOLATED
            return Verdict(status, -float(worst), None, -float(least), remark=remark)

        return under([known], conclude)

    return judge


CLAIMS = (
    Claim(
        id="yang2023.states-in-registers-move-less",
        title="States kept in registers move 5/2 or 5/3 times fewer bytes, with one or two tiles of values",
        statement=(
            r"$\frac{3K + 3V + 2KV/C}{2K n + 2V} = \frac{5}{2}, \frac{5}{3}$ for $n = 1, 2$ tiles of values, "
            r"$K = V = 128, C = 64$"
        ),
        citation=_CITATION,
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="accesses of every element, counted; at least 5/3; the control's states are of chunks of 128",
        instance=_nothing,
        witness=_stated(64, (128, 64)),
        control=_stated(128, (128, 64)),
        judge=_judge(Fraction(5, 3), strict=False),
    ),
    Claim(
        id="yang2023.states-in-registers-always-move-less",
        title="States kept in registers always move fewer bytes (four tiles of values read q and k too often)",
        statement=r"$\frac{3K + 3V + 2KV/C}{2K n + 2V} > 1$ for every $n$; it is 1 for $n = 4, K = V = 128, C = 64$",
        citation=_CITATION,
        level=Level.ENCLOSED,
        expected=Status.VIOLATED,
        bound_rule="accesses of every element, counted; caches may hide them; the control has one and two tiles",
        instance=_nothing,
        witness=_stated(64, (32,)),
        control=_stated(64, (128, 64)),
        judge=_judge(Fraction(1), strict=True),
    ),
)

"""A small sample of a large product in which every two levels of two factors meet."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Levels = Mapping[str, Any]
Pair = tuple[tuple[str, str], tuple[str, str]]


def pairs_of(levels: Levels) -> set[Pair]:
    """Every two factors of a row with their levels."""
    return set(itertools.combinations([(name, str(level)) for name, level in levels.items()], 2))


def candidates(
    factors: Mapping[str, Sequence[Any]], possible: Callable[[Levels], bool], seed: int, count: int
) -> list[Levels]:
    """`count` random rows of the product, and one for every pair of levels, where possible."""
    draw = random.Random(seed)

    def row(fixed: Levels) -> Levels:
        return {name: fixed.get(name, draw.choice(levels)) for name, levels in factors.items()}

    rows = [row({}) for _ in range(count)]
    for a, b in itertools.combinations(factors, 2):
        for x, y in itertools.product(factors[a], factors[b]):
            rows += [row({a: x, b: y}) for _ in range(20)]
    return [r for r in rows if possible(r)]


def spanning(
    factors: Mapping[str, Sequence[Any]],
    possible: Callable[[Levels], bool] = lambda row: True,
    seed: int = 0,
) -> list[Levels]:
    """Rows of the product of `factors` that hold every possible pair of levels, chosen greedily."""
    rows = candidates(factors, possible, seed, 500)
    contents = [pairs_of(row) for row in rows]
    missing = set().union(*contents)
    chosen: list[Levels] = []
    draw = random.Random(seed)
    while missing:
        first = next(i for i, found in enumerate(contents) if found & missing)
        tried = [first, *(draw.randrange(len(rows)) for _ in range(60))]
        best = max(tried, key=lambda i: len(contents[i] & missing))
        chosen.append(rows[best])
        missing -= contents[best]
    return chosen


def name_of(levels: Levels) -> str:
    """A name for a row."""
    return "-".join(str(level).replace(" ", "_") for level in levels.values())

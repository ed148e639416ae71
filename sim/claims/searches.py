"""What the search over strides finds: the paper's strides, and that larger is not faster."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import prod

import numpy as np

from dsf.certificate import Claim, Evidence, Level, Status, Task, Verdict

from ..pattern import Pattern
from ..published import COSMOS, HUNYUAN, UseCase
from ..search import front, sweep
from .definition import axis_mask, axis_tiles

_STRIDES = {
    "hunyuan": [
        (1, 1, 1),
        (2, 1, 1),
        (1, 1, 8),
        (2, 1, 8),
        (1, 8, 8),
        (2, 8, 8),
        (16, 8, 8),
    ],
    "cosmos": [(1, 1, 1), (1, 8, 1), (1, 1, 16), (1, 8, 16)],
}


def _nothing(task: Task) -> Evidence:
    return {}


def _tables(case: UseCase) -> list[list[int]]:
    """Per axis, KV tiles of the worst query tile by stride, by the definition."""
    rows = zip(case.layout, case.window, case.tiling.q, case.tiling.kv, strict=True)
    return [
        [int(axis_tiles(axis_mask(n, w, s), q, kv)[0].max()) for s in range(1, w + 1)]
        for n, w, q, kv in rows
    ]


def _pruned(tables: list[list[int]]) -> list[tuple[int, ...]]:
    """Walk up the products of strides and keep what is strictly faster; of equals the first."""
    best: dict[int, tuple[int, tuple[int, ...]]] = {}
    for stride in product(*(range(1, len(table) + 1) for table in tables)):
        most = prod(table[s - 1] for table, s in zip(tables, stride, strict=True))
        key = prod(stride)
        if key not in best or most < best[key][0]:
            best[key] = most, stride
    kept, least = [], None
    for key in sorted(best):
        most, stride = best[key]
        if least is None or most < least:
            kept.append(stride)
            least = most
    return kept


def _found(case: UseCase) -> Evidence:
    candidates = front([sweep(Pattern(case.layout, case.window), case.tiling)])
    return {"strides": np.array([candidate.stride for candidate in candidates])}


def _judge_front(case: UseCase) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        given = [tuple(row) for row in evidence["strides"].tolist()]
        true, printed = _pruned(_tables(case)), _STRIDES[case.slug]
        missing = len(set(printed) ^ set(given)) + (given != true)
        status = Status.HOLDS if given == printed == true else Status.VIOLATED
        return Verdict(status, float(missing), 0.0, 0.0, remark=f"{len(given)} strides are left")

    return judge


def _front_claim(case: UseCase) -> Claim:
    return Claim(
        id=f"hassani2025.strides-{case.slug}",
        title=f"{case.name}: of all strides the pruning leaves those that the paper shows",
        statement=rf"{len(_STRIDES[case.slug])} of {prod(case.window)} strides are strictly faster "
        "than all with a smaller product",
        citation=f"Hassani et al. 2025, arXiv 2504.16922, strides of the table of {case.name}",
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="every stride, tiles counted by the definition",
        instance=_nothing,
        witness=lambda _: _found(case),
        control=lambda drawn: {"strides": _found(case)["strides"][:-1]},
        judge=_judge_front(case),
    )


# A larger stride can be slower, and mostly is no faster.


def _speeds(stride: int) -> Callable[[Evidence], Evidence]:
    return lambda _: {"stride": stride}


def _judge_monotone(evidence: Evidence) -> Verdict:
    stride = evidence["stride"]
    if stride not in (8, 11):
        return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
    tables = _tables(HUNYUAN)
    one, other = (
        Fraction(900, tables[0][0] * tables[1][0] * tables[2][s - 1]) for s in (1, stride)
    )
    status = Status.HOLDS if other >= one else Status.VIOLATED
    remark = f"stride 1: {float(one):.3f}, stride {stride} on the last axis: {float(other):.3f}"
    return Verdict(status, float(one - other), None, 0.0, remark=remark)


MONOTONE = Claim(
    id="hassani2025.strides-monotone",
    title="A larger stride is never slower",
    statement=r"HunyuanVideo: $s = 1 \times 1 \times 11$ is at least as fast as $1 \times 1 \times 1$",
    citation="Own; against a reading of Hassani et al. 2025, arXiv 2504.16922, section 4.2",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rationals, tiles counted by the definition",
    instance=_nothing,
    witness=_speeds(11),
    control=_speeds(8),
    judge=_judge_monotone,
)


# Blocked attention is GNA with stride = window only where blocks divide the layout.


def _blocks(length: int, block: int) -> Evidence:
    return {"length": length, "block": block}


def _judge_blocked(evidence: Evidence) -> Verdict:
    length, block = evidence["length"], evidence["block"]
    if (length, block) not in ((20, 8), (24, 8)):
        return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
    group = np.arange(length) // block
    blocked = group[:, None] == group[None, :]
    differ = int((blocked != axis_mask(length, block, block)).sum())
    status = Status.VIOLATED if differ else Status.HOLDS
    return Verdict(status, float(differ), 0.0, 0.0, remark=f"{differ} pairs differ")


BLOCKED = Claim(
    id="hassani2025.blocked-is-stride-window",
    title="Blocked attention is stride = window, whatever the length",
    statement=r"$s = w$: a query sees its own block, here for 20 tokens and blocks of 8",
    citation="NATTEN documentation, special cases of GNA; false unless blocks divide the layout",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="pair by pair",
    instance=_nothing,
    witness=lambda _: _blocks(20, 8),
    control=lambda _: _blocks(24, 8),
    judge=_judge_blocked,
)

CLAIMS: tuple[Claim, ...] = (*map(_front_claim, (HUNYUAN, COSMOS)), MONOTONE, BLOCKED)

"""Published shares of tiles and pairs of other sparse attentions: do they follow from the patterns?"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import prod

import numpy as np

from dsf.certificate import Claim, Evidence, Level, Status, Task, Verdict

from ..counts import count
from ..pattern import Pattern
from ..published import BLOCK_ROWS, BlockRow
from ..tiling import Tiling
from .definition import axis_mask, axis_tiles

_VIDEO = (30, 48, 80)


def _nothing(task: Task) -> Evidence:
    return {}


def _digits(decimals: int) -> Fraction:
    """Half of the last printed digit."""
    return Fraction(1, 2 * 10**decimals)


# Shares of full and of partial tiles (STA's table of block ratios).


def _totals(row: BlockRow, stride: tuple[int, ...]) -> tuple[int, int, int]:
    """(query tile, KV tile) pairs in all, visited ones and full ones, by the definition."""
    tiles = visited = full = 1
    pattern, tiling = row.pattern, row.tiling
    rows = zip(pattern.layout, pattern.window, stride, tiling.q, tiling.kv, strict=True)
    for length, window, step, q, kv in rows:
        seen, whole = axis_tiles(axis_mask(length, window, step), q, kv)
        tiles *= len(seen) * -(-length // kv)
        visited, full = visited * int(seen.sum()), full * int(whole.sum())
    return tiles, visited, full


def _counted(row: BlockRow, stride: tuple[int, ...]) -> Evidence:
    pattern = Pattern(row.pattern.layout, row.pattern.window, stride)
    counts = count(pattern, row.tiling)
    return {"stride": list(stride), "visited": counts.visited, "full": counts.full}


def _judge_shares(row: BlockRow) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        stride = tuple(evidence["stride"])
        if stride not in (row.pattern.stride, _control_stride(row)):
            return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another row")
        tiles, visited, full = _totals(row, stride)
        if (evidence["visited"], evidence["full"]) != (visited, full):
            return Verdict(Status.INCONCLUSIVE, remark="the tiles are not those of the pattern")
        dense, mixed = Fraction(100 * full, tiles), Fraction(100 * (visited - full), tiles)
        printed = Fraction(str(row.dense_percent)), Fraction(str(row.mixed_percent))
        error = max(abs(dense - printed[0]), abs(mixed - printed[1]))
        bound = _digits(row.decimals)
        remark = f"dense {float(dense):.4f} %, mixed {float(mixed):.4f} % of all tiles"
        status = Status.HOLDS if error <= bound else Status.VIOLATED
        return Verdict(status, float(error), 0.0, float(bound), remark=remark)

    return judge


def _control_stride(row: BlockRow) -> tuple[int, ...]:
    """Stride 1 for a row that follows."""
    return (1,) * len(row.pattern.stride)


def _share_claim(row: BlockRow) -> Claim:
    return Claim(
        id=f"zhang2025.{row.name}",
        title=f"Share of dense and mixed tiles of {row.name} on 48 x 48 x 48 tokens",
        statement=rf"dense {row.dense_percent} %, mixed {row.mixed_percent} % of all tiles",
        citation="Zhang et al. 2025, arXiv 2502.04507, table of block ratios",
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="half of the last printed digit; tiles counted by the definition",
        instance=_nothing,
        witness=lambda _: _counted(row, row.pattern.stride),
        control=lambda _: _counted(row, _control_stride(row)),
        judge=_judge_shares(row),
    )


# Tiled NATTEN's row: printed are the shares of an inner query tile, not of all.

_TILED = next(row for row in BLOCK_ROWS if row.name == "tiled-natten-11")


def _tile_shares(of: str) -> Callable[[Evidence], Evidence]:
    return lambda _: {"of": of, **_counted(_TILED, _TILED.pattern.stride)}


def _judge_tiled(evidence: Evidence) -> Verdict:
    axis = axis_tiles(axis_mask(48, 11, 1), 4, 4)
    of_all = [int(side.sum()) ** 3 for side in axis], 12**6
    inner = [int(side[6]) ** 3 for side in axis], 12**3
    counted = evidence["visited"], evidence["full"], tuple(evidence["stride"])
    if counted != (*of_all[0], (1, 1, 1)):
        return Verdict(Status.INCONCLUSIVE, remark="the tiles are not those of the pattern")
    if evidence["of"] not in ("all tiles", "an inner query tile"):
        return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
    (visited, full), tiles = of_all if evidence["of"] == "all tiles" else inner
    dense, mixed = Fraction(100 * full, tiles), Fraction(100 * (visited - full), tiles)
    error = max(abs(dense - Fraction("0.06")), abs(mixed - Fraction("7.17")))
    # 124 of 1728 are 7.176 %: the table cuts, it does not round.
    bound = Fraction(1, 100)
    status = Status.HOLDS if error < bound else Status.VIOLATED
    remark = f"of {evidence['of']}: dense {float(dense):.4f} %, mixed {float(mixed):.4f} %"
    return Verdict(status, float(error), 0.0, float(bound), remark=remark)


TILED_NATTEN = Claim(
    id="zhang2025.tiled-natten-11",
    title="Share of dense and mixed tiles of tiled NATTEN: printed is that of an inner query tile",
    statement=r"dense 0.06 %, mixed 7.17 % of all tiles",
    citation="Zhang et al. 2025, arXiv 2502.04507, table of block ratios",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="one unit of the last printed digit; tiles counted by the definition",
    instance=_nothing,
    witness=_tile_shares("all tiles"),
    control=_tile_shares("an inner query tile"),
    judge=_judge_tiled,
)


# Sparsities of patterns over 30 x 48 x 80 tokens, in percent.


def _box(*window: int) -> Fraction:
    return Fraction(prod(window), prod(_VIDEO))


def _partition(*block: int) -> Fraction:
    """Blocks that see themselves, ragged at the end of each axis."""
    share = Fraction(1)
    for length, size in zip(_VIDEO, block, strict=True):
        whole, rest = divmod(length, size)
        share *= Fraction(whole * size**2 + rest**2, length**2)
    return share


def _ball(radius: int) -> Fraction:
    """Keys at a distance under the radius, pairs counted by their offset."""
    steps = np.arange(-radius, radius + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    inside = offsets[(offsets**2).sum(1) < radius**2]
    pairs = np.maximum(np.array(_VIDEO) - np.abs(inside), 0).prod(1).sum()
    return Fraction(int(pairs), prod(_VIDEO) ** 2)


_PATTERNS: dict[str, Callable[[], Fraction]] = {
    "clear": lambda: _ball(16),
    "natten": lambda: _box(19, 25, 25),
    "sta": lambda: _box(18, 24, 24),
    "swin": lambda: _partition(24, 32, 32),
    "dense": lambda: Fraction(1),
    "swin-printed": lambda: 1 - Fraction("0.8742"),
}


def _visible(name: str) -> Callable[[Evidence], Evidence]:
    def witness(_: Evidence) -> Evidence:
        share = _PATTERNS[name]()
        return {"pattern": name, "visible": [share.numerator, share.denominator]}

    return witness


def _judge_sparsity(name: str, control: str, printed: str) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        given = evidence["pattern"]
        if given not in (name, control):
            return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
        share = _PATTERNS[given]()
        if evidence["visible"] != [share.numerator, share.denominator]:
            return Verdict(Status.INCONCLUSIVE, remark="the share is not that of the pattern")
        sparsity = 100 * (1 - share)
        error, bound = abs(sparsity - Fraction(printed)), _digits(2)
        status = Status.HOLDS if error <= bound else Status.VIOLATED
        remark = f"sparsity {float(sparsity):.4f} %"
        return Verdict(status, float(error), 0.0, float(bound), remark=remark)

    return judge


def _sparsity_claim(
    name: str, title: str, printed: str, expected: Status = Status.HOLDS, control: str = "dense"
) -> Claim:
    return Claim(
        id=f"zhang2025.sparsity-{name}",
        title=title,
        statement=rf"{printed} % of the pairs of 30 x 48 x 80 tokens are left out",
        citation="Zhang et al. 2025, arXiv 2502.04507, table of kernels; parameters as printed there",
        level=Level.ENCLOSED,
        expected=expected,
        bound_rule="half of the last printed digit, in exact rationals",
        instance=_nothing,
        witness=_visible(name),
        control=_visible(control),
        judge=_judge_sparsity(name, control, printed),
    )


STA_CLAIMS: tuple[Claim, ...] = (
    *(_share_claim(row) for row in BLOCK_ROWS if row is not _TILED),
    TILED_NATTEN,
    _sparsity_claim("clear", "CLEAR with r = 16 keeps keys at a distance under 16", "90.46"),
    _sparsity_claim("natten", "NATTEN's window 19 x 25 x 25", "89.69"),
    _sparsity_claim("sta", "Sliding tile attention's window 18 x 24 x 24", "91.00"),
    _sparsity_claim(
        "swin",
        "Swin with blocks 24 x 32 x 32 is less sparse than printed",
        "87.42",
        Status.VIOLATED,
        "swin-printed",
    ),
)


# Cosmos-Predict2's two patterns (T x 44 x 80, the whole T axis), and attention-gym's.


def _cosmos(window: tuple[int, int], percent: str, name: str) -> Claim:
    tiling = Tiling((8, 4, 8), (4, 4, 8))

    def counted(stride: tuple[int, int, int]) -> Evidence:
        counts = count(Pattern((16, 44, 80), (16, *window), stride), tiling)
        return {"stride": list(stride), "visited": counts.visited, "full": counts.full}

    def judge(evidence: Evidence) -> Verdict:
        stride = tuple(evidence["stride"])
        if stride not in ((1, 4, 8), (1, 1, 1)):
            return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
        visited = full = 1
        rows = zip((16, 44, 80), (16, *window), stride, tiling.q, tiling.kv, strict=True)
        for length, wide, step, q, kv in rows:
            seen, whole = axis_tiles(axis_mask(length, wide, step), q, kv)
            visited, full = visited * int(seen.sum()), full * int(whole.sum())
        if (evidence["visited"], evidence["full"]) != (visited, full):
            return Verdict(Status.INCONCLUSIVE, remark="the tiles are not those of the pattern")
        sparsity = 100 * (1 - Fraction(window[0] * window[1], 44 * 80))
        error = abs(sparsity - int(percent))
        holds = visited == full and error <= Fraction(1, 2)
        remark = f"sparsity {float(sparsity):.2f} %, {visited - full} tiles need a mask"
        status = Status.HOLDS if holds else Status.VIOLATED
        return Verdict(status, float(visited - full), 0.0, 0.0, remark=remark)

    return Claim(
        id=f"hassani2025.{name}",
        title=f"Cosmos-Predict2's window {window[0]} x {window[1]}, stride 4 x 8, needs no mask",
        statement=rf"sparsity {percent} %, every visited tile full with tiles 8x4x8/4x4x8",
        citation="Cosmos-Predict2 source, sparse attention parameters; patterns as chosen with NATTENSim",
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="no partial tile, counted by the definition; sparsity to the printed percent",
        instance=_nothing,
        witness=lambda _: counted((1, 4, 8)),
        control=lambda _: counted((1, 1, 1)),
        judge=judge,
    )


GNA_CLAIMS: tuple[Claim, ...] = (
    _cosmos((12, 24), "92", "cosmos-predict2-12x24"),
    _cosmos((20, 40), "77", "cosmos-predict2-20x40"),
)

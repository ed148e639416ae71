r"""Published times and memory of Lightning attention 2: what follows from counts, and what does not.

Source: OpenNLPLab/lightning-attention, README.md (commit 0a291ce), benchmark of batch 4, 32 heads, 128 keys and values,
bfloat16; the GPU is not named there. Milliseconds in its first two tables. The third has the title of the first, but
its numbers are mebibytes: the claims about memory say of what.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from dsf.certificate import Claim, Evidence, Level, Status, Task, Verdict
from dsf.verify.judges import within

from .crossover import crossing

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
MILLISECONDS = {
    ("lightning2", "forward"): (0.351540, 0.585876, 1.134238, 2.240815, 4.414397, 8.832678, 17.661427),
    ("flash2", "forward"): (0.094412, 0.232286, 0.754831, 2.740033, 10.392551, 40.573997, 162.895615),
    ("lightning2", "backward"): (1.169621, 2.334296, 4.657026, 9.307817, 18.617611, 37.212578, 74.594788),
    ("flash2", "backward"): (0.397422, 0.957989, 2.739919, 8.891191, 31.986572, 121.685730, 470.666473),
}  # fmt: skip
MEBIBYTES = {
    "lightning2": ("64.000488", "128.000488", "256.000488", "512.000488", "1024.000488", "2048.000488", "4096.000488"),
    "flash2": ("64.250977", "128.500977", "257.000977", "514.000977", "1028.000977", "2056.000977", "4112.000977"),
}  # fmt: skip
_ROWS = 4 * 32  # batch and heads
_SIZE = 128
_README = "OpenNLPLab/lightning-attention, README.md, commit 0a291ce (benchmark)"
_REST = 1024 + Fraction(2**20, 2 * 10**6)  # a KiB, and half of the last printed digit of a MiB
_FROM = 1  # the time of 512 tokens is mostly that of the launch


def _nothing(task: Task) -> Evidence:
    return {}


def per_token(kernel: str, way: str) -> np.ndarray:
    """Nanoseconds a token of one head, from 1024 tokens on."""
    times = np.array(MILLISECONDS[kernel, way][_FROM:]) * 1e6
    return times / (np.array(LENGTHS[_FROM:]) * _ROWS)


def _times(kernel: str) -> Callable[[Evidence], Evidence]:
    def witness(_: Evidence) -> Evidence:
        return {"kernel": kernel} | {way: per_token(kernel, way) for way in ("forward", "backward")}

    return witness


def _judge_constant(evidence: Evidence) -> Verdict:
    """The largest time a token over the smallest, of both directions."""
    kernel, spread = evidence["kernel"], []
    for way in ("forward", "backward"):
        if (kernel, way) not in MILLISECONDS:
            return Verdict(Status.INCONCLUSIVE, remark="no such kernel was published")
        own, given = per_token(kernel, way), np.asarray(evidence[way])
        if own.shape != given.shape or not np.array_equal(own, given):
            return Verdict(
                Status.INCONCLUSIVE, remark="the times are not those that were published"
            )
        spread.append(float(own.max() / own.min()))
    verdict = within(max(spread), 1.1)
    remark = f"forward {spread[0]:.3f}, backward {spread[1]:.3f}"
    return Verdict(verdict.status, verdict.measured, 1.0, verdict.bound, remark=remark)


def _crosses(way: str) -> tuple[int, int]:
    """The published lengths between which Lightning 2 becomes the faster one."""
    ahead = [
        a < b
        for a, b in zip(MILLISECONDS["lightning2", way], MILLISECONDS["flash2", way], strict=True)
    ]
    first = ahead.index(True)
    return LENGTHS[first - 1], LENGTHS[first]


def _judge_crossing(evidence: Evidence) -> Verdict:
    """Where a number of tokens that is said to be the crossing lies against the published rows."""
    stated, (low, high) = Fraction(evidence["crossing"]), _crosses("forward")
    inside = low < stated <= high
    remark = f"published between {low} and {high} tokens, stated {float(stated):g}"
    status = Status.HOLDS if inside else Status.VIOLATED
    return Verdict(status, float(stated), None, float(high), remark=remark)


def _between(_: Evidence) -> Evidence:
    """Where straight lines through the logarithms of the published times cross."""
    low, high = _crosses("forward")
    places = [LENGTHS.index(n) for n in (low, high)]
    gaps = [
        np.log(MILLISECONDS["lightning2", "forward"][p] / MILLISECONDS["flash2", "forward"][p])
        for p in places
    ]
    share = gaps[0] / (gaps[0] - gaps[1])
    return {"crossing": Fraction(int(low * (high / low) ** share))}


def _memory(kernel: str, statistics: int) -> Callable[[Evidence], Evidence]:
    """q, k, v, y of two bytes an element, and float32 numbers a row."""

    def witness(_: Evidence) -> Evidence:
        tokens = np.array(LENGTHS) * _ROWS
        return {"kernel": kernel, "bytes": tokens * (4 * _SIZE * 2 + 4 * statistics)}

    return witness


def _judge_memory(evidence: Evidence) -> Verdict:
    """Published peaks less the stated bytes, in bytes: the same small rest at every length."""
    printed = MEBIBYTES[str(evidence["kernel"])]
    stated = [int(x) for x in np.asarray(evidence["bytes"])]
    if len(stated) != len(LENGTHS):
        return Verdict(Status.INCONCLUSIVE, remark="one number a length is needed")
    rest = [Fraction(a) * 2**20 - b for a, b in zip(printed, stated, strict=True)]
    most = max(map(abs, rest))
    remark = f"rests {', '.join(f'{float(x):.1f}' for x in rest)} bytes"
    status = Status.HOLDS if most <= _REST else Status.VIOLATED
    return Verdict(status, float(most), 0.0, float(_REST), remark=remark)


CLAIMS = (
    Claim(
        id="qin2024-lightning2.published-time-is-constant",
        title="The published times of Lightning 2 per token vary by less than 10 % from 1024 to 32768 tokens",
        statement=r"$\max_n \frac{t(n)}{n} \, / \, \min_n \frac{t(n)}{n} \leq 1.1$, forward and backward",
        citation=f"{_README}; Qin et al., arXiv 2401.04658, abstract (constant speed)",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="10 % on published times; the control are those of FlashAttention 2",
        instance=_nothing,
        witness=_times("lightning2"),
        control=_times("flash2"),
        judge=_judge_constant,
    ),
    Claim(
        id="qin2024-lightning2.counts-predict-the-crossover",
        title="Operations alone predict the length at which Lightning 2 overtakes FlashAttention 2 (they do not)",
        statement=r"the published times cross at $2C + 2D - 1 = 383$ tokens, where the counted operations do",
        citation=f"{_README}, times of the forward pass; counts: own",
        level=Level.MEASURED,
        expected=Status.VIOLATED,
        bound_rule="the published lengths around the crossing; the control interpolates them",
        instance=_nothing,
        witness=lambda _: {"crossing": crossing(64, 128, 128)},
        control=_between,
        judge=_judge_crossing,
    ),
    Claim(
        id="qin2024-lightning2.published-memory-is-four-tensors",
        title="The published peak memory of Lightning 2 is that of q, k, v and y: no states and no statistics",
        statement=r"$4 \cdot 2 \cdot 128$ bytes a token and head, and 1 KiB or less in all",
        citation=f"{_README}, memory of the forward pass",
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="printed digits in exact rationals, seven lengths; the control adds a float32 a row",
        instance=_nothing,
        witness=_memory("lightning2", 0),
        control=_memory("lightning2", 1),
        judge=_judge_memory,
    ),
)

FLASH_MEMORY = Claim(
    id="dao2022.published-memory-has-one-number-a-row",
    title="The published peak memory of FlashAttention 2 is that of q, k, v, y and one float32 a row",
    statement=r"$4 \cdot 2 \cdot 128 + 4$ bytes a token and head, and 1 KiB or less in all",
    citation=f"{_README}, memory of the forward pass; the number: Dao, arXiv 2307.08691 (log-sum-exp), own wording",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="printed digits in exact rationals, seven lengths; the control has no number a row",
    instance=_nothing,
    witness=_memory("flash2", 1),
    control=_memory("flash2", 0),
    judge=_judge_memory,
)

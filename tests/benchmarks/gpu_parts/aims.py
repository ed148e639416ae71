"""What each kernel is to reach: a number per size, and a bound for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import published
from .verdicts import Row, Rows, Verdict, best, dry_run, speed_up, verdicts


@dataclass(frozen=True)
class Aim:
    """A number per size that must be at most (or at least) a bound at every one of them."""

    name: str
    statement: str
    case: str
    number: Callable[[Rows, Row], float | str]
    bound: float
    least: bool = False
    group: str = "times"

    def __call__(self, rows: Rows) -> Verdict:
        if rows.dry:
            return dry_run(self.name, self.statement)
        jobs = rows.of("time", self.case, self.group)
        numbers: dict[str, float] = {}
        reasons: list[str] = []
        for job, row in jobs:
            found = "not measured" if row is None else self._number(rows, row)
            if isinstance(found, str):
                reasons.append(found)
            else:
                numbers[job["sizes"]] = found
        wrong = [x for x in numbers.values() if not self._reached(x)]
        choose = min if self.least else max
        where = choose(numbers, key=lambda each: numbers[each]) if numbers else ""
        worst = numbers.get(where)
        if wrong:
            return Verdict(self.name, self.statement, "violated", worst, self.bound, where)
        status = "holds" if jobs and not reasons else "inconclusive" if numbers else "not-run"
        if not jobs:
            reasons = [f"no {self.case} in this version or this run"]
        reason = "; ".join(dict.fromkeys(reasons))
        return Verdict(self.name, self.statement, status, worst, self.bound, where, reason)

    def _reached(self, number: float) -> bool:
        """False for NaN."""
        return number >= self.bound if self.least else number <= self.bound

    def _number(self, rows: Rows, row: Row) -> float | str:
        if "error" in row:
            return row["error"]
        return self.number(rows, row)


def _against_peer(peer: str, part: str) -> Callable[[Rows, Row], float | str]:
    def number(rows: Rows, row: Row) -> float | str:
        ours, theirs = best(row, part), row.get("peers", {}).get(peer, {})
        if "absent" in theirs:
            return f"{peer}: {theirs['absent']}"
        if not theirs.get("agrees", False):
            return f"{peer} gives another result"
        if "absent" in theirs.get(part, {}):
            return f"{peer}: {theirs[part]['absent']}"
        other = best(theirs, part)
        return "not measured" if ours is None or other is None else ours / other

    return number


def _against_published(part: str) -> Callable[[Rows, Row], float | str]:
    """Our eager time over the published one, which is eager too."""

    def number(rows: Rows, row: Row) -> float | str:
        if published.DEVICE not in rows.device:
            return f"published for the {published.DEVICE}, measured on {rows.device}"
        ours = (row.get(part) or {}).get("eager_ms")
        theirs = published.LINEAR_ATTENTION.get(row["sizes"])
        return "not measured" if ours is None or theirs is None else ours / theirs[part == "both"]

    return number


def _share(part: str) -> Callable[[Rows, Row], float | str]:
    return lambda rows, row: (row.get(part) or {}).get("share", "not measured")


def _of_bound(rows: Rows, row: Row) -> float | str:
    """The speed-up over dense attention, over what the simulator allows."""
    found = speed_up(rows, row)
    return "not measured" if found is None else found / row["bound"]


AIMS = (
    Aim(
        "scalar decay: forward against fla",
        "Forward is not slower than flash-linear-attention's at any shape",
        "scalar decay",
        _against_peer("fla", "forward"),
        1.0,
    ),
    Aim(
        "scalar decay: forward and backward against fla",
        "Forward and backward take at most 0.7 of flash-linear-attention's time at every shape",
        "scalar decay",
        _against_peer("fla", "both"),
        0.7,
    ),
    Aim(
        "scalar decay: forward against published times of fla",
        "Eager, forward is not slower than flash-linear-attention's published times on an H100",
        "scalar decay",
        _against_published("forward"),
        1.0,
    ),
    Aim(
        "scalar decay: forward and backward against published times of fla",
        "Eager, forward and backward take at most 0.7 of flash-linear-attention's published times on an H100",
        "scalar decay",
        _against_published("both"),
        0.7,
    ),
    Aim(
        "scalar decay: forward's share of its floor",
        "Forward reaches 60 % of the bandwidth of a copy, each input and output counted once",
        "scalar decay",
        _share("forward"),
        0.6,
        least=True,
    ),
    Aim(
        "scalar decay: forward and backward's share of their floor",
        "Forward and backward reach 60 % of the bandwidth of a copy, everything counted once",
        "scalar decay",
        _share("both"),
        0.6,
        least=True,
    ),
    Aim(
        "sigmoid attention: forward against softmax",
        "Forward is at least 1.1 times as fast as softmax of the same template",
        "sigmoid attention",
        lambda rows, row: speed_up(rows, row) or "not measured",
        1.1,
        least=True,
    ),
    Aim(
        "neighborhood attention: forward against the simulator",
        "The speed-up over dense attention of the same template is 90 % of the padding-aware bound",
        "neighborhood attention",
        _of_bound,
        0.9,
        least=True,
    ),
    Aim(
        "gated scan: share of copy bandwidth",
        "Forward reaches 80 % of the bandwidth of a copy",
        "gated scan",
        _share("forward"),
        0.8,
        least=True,
    ),
)


def judged(rows: Rows) -> list[Verdict]:
    """Every verdict of a run, those of correctness first."""
    return [*verdicts(rows), *(aim(rows) for aim in AIMS)]

"""Verdicts: what the rows of a run say about each aim. Rows are data; nothing is measured here.

A status is `holds`, `violated`, `inconclusive` (some of what it needs is missing) or `not-run` (all of it is).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Row = Mapping[str, Any]

FLAT = 1.10
"""The slowest length over the fastest, per token."""


@dataclass(frozen=True)
class Verdict:
    """An aim, its status, the worst number of what was measured, and why it is undecided."""

    aim: str
    statement: str
    status: str
    worst: float | None = None
    bound: float | None = None
    where: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Rows:
    """The rows of a run, by key, and the keys that were planned."""

    by_key: Mapping[str, Row]
    planned: tuple[Mapping[str, str], ...]
    dry: bool = False
    device: str = ""

    def of(self, kind: str, case: str, group: str | None = None) -> list[tuple[Row, Row | None]]:
        """Jobs that were planned, each with its row where it has one."""
        return [
            (job, self.by_key.get(job["key"]))
            for job in self.planned
            if job["kind"] == kind and job["case"] == case and group in (None, job["group"])
        ]

    def cases(self) -> list[str]:
        return list(dict.fromkeys(job["case"] for job in self.planned))


def verdicts(rows: Rows) -> list[Verdict]:
    """Of every case: that it is right, that it repeats, that its time per token is flat."""
    kinds = ("check", "repeat", "far", "time")
    found = [_passing(rows, case, kind) for kind in kinds for case in rows.cases()]
    found += [_flat(rows, case, part) for case in rows.cases() for part in ("forward", "both")]
    return [verdict for verdict in found if verdict is not None]


def _passing(rows: Rows, case: str, kind: str) -> Verdict | None:
    jobs = rows.of(kind, case)
    if not jobs:
        return None
    words = {
        "check": "Every result and gradient is at most twice as far from float64 as torch's own",
        "repeat": "Every repetition gives the same bits",
        "far": "The last steps are as right where tensors have more than 2^31 elements",
        "time": "Everything that is to be timed runs",
    }
    done = [row for _, row in jobs if row is not None and row.get("fits", True)]
    failed = [row for row in done if not row.get("passes", "error" not in row)]
    aim, statement = f"{case}: {kind}", words[kind]
    if failed:
        return Verdict(
            aim,
            statement,
            "violated",
            worst=float(len(failed)),
            bound=0.0,
            where=f"{failed[0]['sizes']}, {failed[0]['dtype']}",
            reason="; ".join(faults(failed[0])),
        )
    return _settled(aim, statement, len(done), len(jobs))


def faults(row: Row) -> list[str]:
    """What is wrong in a row of a check or repetition."""
    if "error" in row:
        return [row["error"]]
    if row.get("differing"):
        return [f"{name} differs" for name in row["differing"]]
    found = []
    for result in row.get("results", ()):
        if result["passes"]:
            continue
        if "fault" in result:
            found.append(f"{result['name']}: {result['fault']}")
            continue
        for kind in ("largest", "rms"):
            error, bound = result[kind]["error"], result[kind]["bound"]
            if not within(error, bound):
                found.append(
                    f"{result['name']}: {kind} error {_short(error)}, allowed {_short(bound)}"
                )
    if row.get("poisoned") is False:
        found.append("memory could not be filled with NaN")
    return found or ["a result is not finite"]


def within(error: Any, bound: Any) -> bool:
    """What is not finite is a word in a file, and within nothing."""
    return isinstance(error, float) and isinstance(bound, float) and error <= bound


def _short(x: Any) -> str:
    return f"{x:.2g}" if isinstance(x, float) else str(x)


def _settled(aim: str, statement: str, done: int, of: int, **more: Any) -> Verdict:
    """Nothing was violated: whether all of it is there."""
    if done == of:
        return Verdict(aim, statement, "holds", **more)
    status = "inconclusive" if done else "not-run"
    return Verdict(aim, statement, status, reason=f"{done} of {of} were measured", **more)


def _flat(rows: Rows, case: str, part: str) -> Verdict | None:
    """Time per token at every length, over the least of them."""
    jobs = rows.of("time", case, "long")
    if not jobs:
        return None
    name = {"forward": "forward", "both": "forward and backward"}[part]
    aim = f"{case}: flat, {name}"
    statement = f"Time per token is flat within {FLAT - 1:.0%} over all lengths, of as many tokens"
    if rows.dry:
        return dry_run(aim, statement)
    times = {
        job["sizes"]: ms / row["tokens"]
        for job, row in jobs
        if row is not None and (ms := best(row, part)) is not None
    }
    if len(times) < 2:
        return _settled(aim, statement, len(times), len(jobs))
    slowest = max(times, key=lambda each: times[each])
    worst = times[slowest] / min(times.values())
    if worst > FLAT:
        return Verdict(aim, statement, "violated", worst, FLAT, slowest)
    return _settled(aim, statement, len(times), len(jobs), worst=worst, bound=FLAT, where=slowest)


def best(row: Row | None, part: str) -> float | None:
    """The time of a part without the host, or where there is no graph with it."""
    found = (row or {}).get(part) or {}
    return found.get("graph_ms") or found.get("eager_ms")


def speed_up(rows: Rows, row: Row) -> float | None:
    """How many times faster a row's forward is than that of the case it is to be compared with, at its sizes."""
    jobs = rows.of("time", row["against"], "times")
    theirs = next((other for job, other in jobs if job["sizes"] == row["sizes"]), None)
    mine, its = best(row, "forward"), best(theirs, "forward")
    return None if mine is None or its is None else its / mine


def dry_run(aim: str, statement: str) -> Verdict:
    return Verdict(aim, statement, "not-run", reason="a dry run measures nothing")


def exit_code(found: Iterable[Verdict], left: int) -> int:
    """1 where an aim is violated, 3 where one is undecided or jobs are left, 0 where all hold."""
    statuses = {verdict.status for verdict in found}
    if "violated" in statuses:
        return 1
    return 3 if left or statuses - {"holds"} else 0

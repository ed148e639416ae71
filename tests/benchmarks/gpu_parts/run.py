"""A run: what is left of the plan is done until the time is up, and the file is written after every row."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import aims, machine, verdicts, workers
from .case import Case
from .cases import CASES
from .jobs import Job, Settings, plan, present, to_compile
from .journal import BadUsage, Journal

CHECKS = 0.55
"""The part of a sitting after which no check is begun before everything is timed."""


def chosen(only: Iterable[str]) -> list[Case]:
    """The cases whose name contains one of these words, all without any; raises `BadUsage` for a word in none."""
    words = list(only)
    for word in words:
        if not any(word in case.name for case in CASES):
            names = ", ".join(case.name for case in CASES)
            raise BadUsage(f"--only {word!r} is in no case; they are {names}")
    return [case for case in CASES if not words or any(word in case.name for word in words)]


def run(
    path: Path, settings: Settings, only: Sequence[str], count: int | None, budget_s: float
) -> int:
    """Do what is left, write the file, and return the exit code."""
    here, absent = present(chosen(only))
    jobs = plan(here, settings)
    journal = Journal(path, machine.identity(settings.device, settings.quick))
    print(f"measuring {machine.measured()}", file=sys.stderr)
    sitting = _Sitting(journal, jobs, [case.name for case in absent], settings, list(only))
    left = [job for job in jobs if job.key not in journal.rows]
    shared = [job for job in left if not job.alone]
    timed = [job for job in left if job.alone]
    started, before = time.monotonic(), journal.seconds

    def left_s(share: float = 1.0) -> float:
        spent = time.monotonic() - started
        journal.seconds = before + spent
        return share * budget_s - spent

    if count == 0:
        workers.here([*shared, *timed], settings, sitting.report, left_s)
    else:
        many = count or (1 if settings.dry else min(8, os.cpu_count() or 1))
        # Checks come first, but must not leave a sitting without a time.
        part = CHECKS if timed and not settings.dry else 1.0
        workers.together(shared, settings, many, sitting.report, lambda: left_s(part))
        if not settings.dry:
            workers.together(to_compile(timed), settings, many, _compiled, left_s)
        workers.alone(timed, settings, sitting.report, left_s)
        rest = [job for job in shared if job.key not in journal.rows]
        workers.together(rest, settings, many, sitting.report, left_s)
    left_s()
    return sitting.finish()


def _compiled(job: Job, found: dict[str, Any]) -> None:
    """What cannot even be compiled will say so where it is timed."""


class _Sitting:
    """Takes rows as they come: into the file, and a line each to standard error."""

    def __init__(
        self,
        journal: Journal,
        jobs: list[Job],
        absent: list[str],
        settings: Settings,
        only: list[str],
    ) -> None:
        self._journal, self._jobs, self._absent = journal, jobs, absent
        self._settings, self._only = settings, only
        self._date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        self._write()

    def report(self, job: Job, found: dict[str, Any]) -> None:
        self._journal.add({**job.to_json(), **found})
        self._write()
        done = sum(each.key in self._journal.rows for each in self._jobs)
        progress = f"[{done}/{len(self._jobs)}, {self._journal.seconds:.0f} s]"
        print(f"{progress} {job.key}: {said(found)}", file=sys.stderr, flush=True)

    def finish(self) -> int:
        found, left = self._write()
        for verdict in found:
            note = "; ".join(filter(None, (_numbers(verdict), verdict.where, verdict.reason)))
            print(f"{verdict.status:>12}  {verdict.aim}  {note}", file=sys.stderr)
        for name in self._absent:
            print(f"{'absent':>12}  {name}: this version has no such operator", file=sys.stderr)
        if left:
            print(f"{left} jobs are left: run again with the same --out", file=sys.stderr)
        return verdicts.exit_code(found, left)

    def _write(self) -> tuple[list[verdicts.Verdict], int]:
        planned = tuple(job.to_json() for job in self._jobs)
        rows = verdicts.Rows(
            self._journal.rows,
            planned,
            self._settings.dry,
            self._journal.identity["device"],
        )
        found = aims.judged(rows)
        left = [job.key for job in self._jobs if job.key not in self._journal.rows]
        self._journal.write(
            date=self._date,
            only=self._only,
            complete=not left,
            left=left,
            absent=self._absent,
            verdicts=[verdict.to_json() for verdict in found],
        )
        return found, len(left)


def _numbers(verdict: verdicts.Verdict) -> str:
    if verdict.worst is None or verdict.bound is None:
        return ""
    return f"{verdict.worst:.3g} against {verdict.bound:.3g}"


def said(found: dict[str, Any]) -> str:
    """A row in a line."""
    if "error" in found:
        return f"FAILED: {found['error']}"
    if "passes" in found:
        if found["passes"]:
            return "ok"
        return "FAILED: " + "; ".join(verdicts.faults(found))
    words = []
    for part, name in (("forward", "forward"), ("both", "with backward")):
        if (ms := verdicts.best(found, part)) is not None:
            words.append(f"{name} {ms:.3g} ms, {found[part].get('share', 0):.0%} of the floor")
            if fault := found[part].get("graph_fault"):
                words.append(f"no graph: {fault}")
    for name, peer in found.get("peers", {}).items():
        ms = verdicts.best(peer, "forward")
        words.append(f"{name} {peer['absent'] if ms is None else f'{ms:.3g} ms'}")
    return "; ".join(words)

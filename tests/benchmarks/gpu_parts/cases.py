"""The one list of cases."""

from __future__ import annotations

from . import attention, decays, scans, steps
from .case import Case

CASES: tuple[Case, ...] = (*decays.CASES, *scans.CASES, *attention.CASES, *steps.CASES)


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)

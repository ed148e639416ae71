"""The one place where a claim's judge is called: a run and a later verification share it."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np

from dsf.certificate import Claim, Hypothesis, Status, Verdict

OUTCOMES = ("as-expected", "unexpected", "control-passed", "undecided", "not-run")

_log = logging.getLogger("dsf")


def judged(claim: Claim, evidence: Any) -> Verdict:
    """The judge's verdict on decoded evidence, checked; `inconclusive` where the judge failed.

    A verdict must hold finite floats, and may be definite only where every hypothesis holds.
    `KeyboardInterrupt` and its like pass through.
    """
    try:
        if not isinstance(evidence, dict):
            raise TypeError(f"evidence must be a mapping, not {type(evidence).__name__}")
        return _checked(claim.judge(evidence))
    except Exception as error:
        return Verdict(Status.INCONCLUSIVE, remark=failure(claim, "judge", error))


def failure(claim: Claim, stage: str, error: BaseException) -> str:
    """The remark for an exception in one stage of a claim; it is logged with its traceback too."""
    _log.warning("claim %s failed in %s", claim.id, stage, exc_info=error)
    return _text(f"{stage} raised {type(error).__name__}: {error}")


def _text(value: Any) -> str:
    """Text of any origin made fit for JSON (a lone surrogate has no UTF-8), of bounded length."""
    return str(value)[:4000].encode("utf-8", "backslashreplace").decode("utf-8")


def outcome_of(expected: Status, status: Status, control: Status) -> str:
    """One of `OUTCOMES`, from the expected status, the judged one, and the negative control's."""
    if status is Status.NOT_RUN:
        return "not-run"
    if status.definite and status is not expected:
        return "unexpected"
    if control is expected:
        return "control-passed"
    return "as-expected" if status.definite and control.definite else "undecided"


def _checked(verdict: Any) -> Verdict:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"a judge must return a Verdict, not {type(verdict).__name__}")
    if verdict.status is Status.NOT_RUN:
        raise ValueError("a judge cannot return not-run: there is evidence to judge")
    hypotheses = tuple(_hypothesis(h) for h in verdict.hypotheses)
    met = all(h.holds for h in hypotheses)
    if verdict.status.definite and not met:
        raise ValueError(f"status {verdict.status.value} although a hypothesis is not met")
    if verdict.status is Status.HYPOTHESIS_NOT_MET and met:
        raise ValueError("status hypothesis-not-met although every hypothesis is met")
    return replace(
        verdict,
        measured=_finite("measured", verdict.measured),
        predicted=_finite("predicted", verdict.predicted),
        bound=_finite("bound", verdict.bound),
        hypotheses=hypotheses,
        remark=_text(verdict.remark),
    )


def _hypothesis(given: Hypothesis) -> Hypothesis:
    value = given.value
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"hypothesis {given.name!r} has a value of type {type(value).__name__}")
    if isinstance(value, str):
        value = _text(value)
    if isinstance(value, float):
        value = _finite(f"hypothesis {given.name!r}", value)
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError(f"hypothesis {given.name!r} has a value beyond 2^53; give it as a string")
    return Hypothesis(_text(given.name), value, bool(given.holds))  # type: ignore[arg-type]


def _finite(name: str, value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}: not a finite number, so nothing can be concluded")
    return number

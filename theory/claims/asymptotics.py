"""Rates: the slope of a logarithm over a decade or more, with the error that certificates allow."""

from __future__ import annotations

import numpy as np

from dsf.certificate import Verdict
from dsf.verify.judges import within

from .problem import need

BAND = 0.1
"""How far a slope over one decade or more may be from its limit: lower-order terms."""


def slope(at: np.ndarray, errors: np.ndarray, bars: np.ndarray) -> tuple[float, float]:
    """The least-squares slope of log error against log `at`, and what the bars may change in it."""
    need(at.shape == errors.shape == bars.shape and len(at) >= 4, "four points or more are needed")
    need((np.diff(at) > 0).all() and at[-1] >= 10 * at[0] > 0, "a decade or more is needed")
    need((errors > 0).all() and (bars < errors).all(), "an error is below its bar")
    x = np.log(at) - np.log(at).mean()
    weights = x / (x**2).sum()
    return float(weights @ np.log(errors)), float(-np.abs(weights) @ np.log1p(-bars / errors))


def rate(at: np.ndarray, errors: np.ndarray, bars: np.ndarray, limit: float = -1.0) -> Verdict:
    """`holds` where the slope is within `BAND` of its limit; measured is the distance."""
    found, spread = slope(at, errors, bars)
    verdict = within(abs(found - limit), BAND, error=spread)
    return _with(verdict, f"slope {found:.4f} over {at[0]:.4g} to {at[-1]:.4g}")


def at_least(at: np.ndarray, errors: np.ndarray, bars: np.ndarray, limit: float) -> Verdict:
    """`holds` where errors fall at least as fast as `at` to the power `limit`: one-sided."""
    found, spread = slope(at, errors, bars)
    verdict = within(found, limit, error=spread)
    return _with(verdict, f"slope {found:.4f} over {at[0]:.4g} to {at[-1]:.4g}")


def _with(verdict: Verdict, said: str) -> Verdict:
    remark = f"{said}; {verdict.remark}" if verdict.remark else said
    return Verdict(
        verdict.status, verdict.measured, verdict.predicted, verdict.bound, remark=remark
    )

r"""Losses ℓ of the margin Y f, each with log|ℓ'| and the logarithm of what a small drop costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dsf.errors import InvalidInput

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Loss:
    r"""A decreasing ℓ: its value, log|ℓ'|, and log of the excess ℓ(x - δ) - ℓ(x) over |ℓ'(x)| δ."""

    name: str
    value: Function
    log_slope: Function
    log_ratio: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def log_excess(self, at: np.ndarray, log_drop: np.ndarray, sign: np.ndarray) -> np.ndarray:
        """log|ℓ(x - sδ) - ℓ(x)| from log δ and s = ±1; exact also where δ underflows."""
        drop = sign * np.exp(np.maximum(log_drop, -600.0))
        with np.errstate(divide="ignore"):  # a log-loss may be infinite
            return self.log_slope(at) + log_drop + self.log_ratio(at, drop)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def _log_growth(drop: np.ndarray) -> np.ndarray:
    """log((e^δ - 1)/δ), for any δ but 0."""
    large = np.maximum(drop, 1.0)
    near = np.minimum(drop, 1.0)
    far = large + np.log(-np.expm1(-large)) - np.log(large)
    return np.where(drop > 1, far, np.log(np.expm1(near) / near))


def _logistic_log_ratio(x: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """With z = |ℓ'| (e^δ - 1), the excess is log(1 + z); |ℓ'| may underflow, e^δ overflow, z round to -1."""
    growth = _log_growth(drop)
    log_z = np.log(np.abs(drop)) + growth - _softplus(x)
    z = np.sign(drop) * np.exp(np.minimum(log_z, 300.0))
    usual = (np.abs(z) > 1e-300) & (z > -0.5)
    middle = np.where(usual, z, 1.0)
    ratio = growth + np.where(usual, np.log(np.log1p(middle) / middle), 0.0)
    large = np.maximum(log_z, 300.0)
    ratio = np.where(log_z > 300, growth + np.log(large) - large, ratio)
    fall = np.minimum(drop, -0.1)
    deep = np.logaddexp(-_softplus(-x), fall - _softplus(x))
    below = np.log(np.abs(deep)) + _softplus(x) - np.log(-fall)
    return np.where(z <= -0.5, below, ratio)


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("logistic", lambda x: _softplus(-x), lambda x: -_softplus(x), _logistic_log_ratio),
        Loss("exponential", lambda x: np.exp(-x), lambda x: -x, lambda _, drop: _log_growth(drop)),
        Loss("linear", lambda x: -x, np.zeros_like, lambda _, drop: np.zeros_like(drop)),
        Loss(
            "log",
            lambda x: -np.log(x),
            lambda x: -np.log(x),
            lambda x, drop: np.log(-np.log1p(-drop / x) * x / drop),
        ),
    )
}


def loss_named(name: str) -> Loss:
    """The loss of a name; raises `InvalidInput` for one that is not in `LOSSES`."""
    if name not in LOSSES:
        raise InvalidInput(f"no loss {name!r}; the losses are {', '.join(LOSSES)}")
    return LOSSES[name]

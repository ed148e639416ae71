r"""Losses ℓ of the margin Y f, each with log|ℓ'| and the logarithm of what a small drop costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dsf.errors import InvalidInput

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Loss:
    r"""A decreasing ℓ: its value, log|ℓ'|, and the excess ℓ(x - δ) - ℓ(x) over |ℓ'(x)| δ."""

    name: str
    value: Function
    log_slope: Function
    ratio: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def log_excess(self, at: np.ndarray, log_drop: np.ndarray, sign: np.ndarray) -> np.ndarray:
        """log|ℓ(x - sδ) - ℓ(x)| from log δ and s = ±1; exact also where δ underflows."""
        drop = sign * np.exp(np.maximum(log_drop, -600.0))
        with np.errstate(divide="ignore"):  # a log-loss may be infinite
            return self.log_slope(at) + log_drop + np.log(self.ratio(at, drop))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def _logistic_ratio(x: np.ndarray, drop: np.ndarray) -> np.ndarray:
    slope = np.exp(-_softplus(x))
    return np.log1p(slope * np.expm1(drop)) / (slope * drop)


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("logistic", lambda x: _softplus(-x), lambda x: -_softplus(x), _logistic_ratio),
        Loss(
            "exponential", lambda x: np.exp(-x), lambda x: -x, lambda _, drop: np.expm1(drop) / drop
        ),
        Loss("linear", lambda x: -x, np.zeros_like, lambda _, drop: np.ones_like(drop)),
        Loss(
            "log",
            lambda x: -np.log(x),
            lambda x: -np.log(x),
            lambda x, drop: -np.log1p(-drop / x) * x / drop,
        ),
    )
}


def loss_named(name: str) -> Loss:
    """The loss of a name; raises `InvalidInput` for one that is not in `LOSSES`."""
    if name not in LOSSES:
        raise InvalidInput(f"no loss {name!r}; the losses are {', '.join(LOSSES)}")
    return LOSSES[name]

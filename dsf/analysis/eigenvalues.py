"""Eigenvalues of every step, with the gauge in which they were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsf.errors import InvalidInput
from dsf.gauges import normaliser_into_state
from dsf.structure import Gate, Identity
from dsf.system import System

from .realization import transitions_of

GaugeName = Literal["read-out", "state"]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues (…, T, K) of Λ_i, largest modulus first, and the `gauge` that they belong to.

    Another gauge has other eigenvalues: a modulus above 1 says something of stability only where the
    gauge is bounded.
    """

    eigenvalues: np.ndarray
    gauge: str

    @property
    def moduli(self) -> np.ndarray:
        """|λ| (…, T, K)."""
        return np.abs(self.eigenvalues)

    @property
    def phases(self) -> np.ndarray:
        """arg λ (…, T, K), in (-π, π]."""
        return np.angle(self.eigenvalues)

    def share_within(self, low: float, high: float) -> np.ndarray:
        """The share of eigenvalues with low <= |λ| <= high (…), over all steps."""
        inside = (self.moduli >= low) & (self.moduli <= high)
        return np.asarray(inside.mean((-2, -1)))


def spectrum(
    system: System, length: int | None = None, *, gauge: GaugeName = "read-out"
) -> Spectrum:
    """The eigenvalues of each Λ_i of a system, batched over heads.

    `gauge="state"` first moves the normaliser into the state (`dsf.gauges.normaliser_into_state`), as
    the paper has it; "read-out" leaves it where `System` has it. Raises `InvalidInput` where there is
    no normaliser to move.

    >>> import torch
    >>> from dsf.mixers import linear_attention
    >>> q = torch.zeros(1, 3, 1, 1)
    >>> found = spectrum(linear_attention(q, q), gauge="state")
    >>> found.moduli[0, 0, :, 0].round(3).tolist(), found.gauge
    ([1.0, 0.5, 0.667], 'normaliser in the state')
    """
    if gauge not in ("read-out", "state"):
        raise InvalidInput(f"`gauge` must be 'read-out' or 'state'; got {gauge!r}")
    name = "the system's own"
    if system.normaliser is not None:
        name = "normaliser at the read-out"
    if system.log_write is not None:
        name += ", stabiliser divided out"
    if gauge == "state":
        system, name = normaliser_into_state(system).system, "normaliser in the state"
    matrices = transitions_of(system, length).matrices
    if isinstance(system.transition, Gate | Identity):
        values = np.diagonal(matrices, axis1=-2, axis2=-1)
    else:
        values = np.linalg.eigvals(matrices)
    order = np.argsort(-np.abs(values), -1, kind="stable")
    return Spectrum(np.take_along_axis(values, order, -1), name)

r"""Growth rates of the transition products Ψ(T, 0) = Λ_T … Λ_1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsf.errors import InvalidInput
from dsf.structure import Gate, Identity
from dsf.system import System

from .realization import transitions_of


@dataclass(frozen=True, eq=False)
class Lyapunov:
    r"""Exponents per step (…, K), largest first: how fast volumes in the state grow or fade.

    The sum of the first j is the mean of log vol_j(Λ_i) along the QR frame; the sum of all is
    log|det Ψ(T, 0)| / T. They are finite-time values: they tend to the growth rates of the singular
    values of Ψ(T, 0), and do not change under gauges that stay bounded with their inverses.
    -inf is an exact loss of rank.
    """

    exponents: np.ndarray
    length: int

    @property
    def half_lives(self) -> np.ndarray:
        """ln 2 / -exponent (…, K), in steps; inf where nothing fades, 0 for what is lost at once."""
        fading = self.exponents < 0
        rate = np.where(fading, -self.exponents, 1.0)
        return np.where(fading, np.log(2) / rate, np.inf)


def lyapunov_spectrum(system: System, length: int | None = None) -> Lyapunov:
    r"""Exponents of the products of the system's own transitions, by QR iteration, T K³.

    Q_i R_i = Λ_i Q_{i-1}; exponents are the means of log|r_jj|, sorted. Gates, which do not mix
    keys, need no QR: means of log|a|. A system with a normaliser is taken in the gauge of its
    read-out, one with a logarithmic write gate in that of its stabiliser.
    Source: Benettin, Galgani, Giorgilli, Strelcyn, Meccanica 15 (1980), part 2.

    >>> import torch
    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 8, 1, 1)
    >>> lyapunov_spectrum(retnet(q, q, decay=torch.tensor([0.5]))).half_lives
    array([[[1.]]])
    """
    found = transitions_of(system, length)
    if found.steps == 0:
        raise InvalidInput("the system has no steps, so there are no products of transitions")
    if isinstance(system.transition, Gate | Identity):
        gates = np.abs(np.diagonal(found.matrices, axis1=-2, axis2=-1))
        with np.errstate(divide="ignore"):
            rates = np.log(gates).mean(-2)
    else:
        rates = _by_qr(found.matrices)
    return Lyapunov(-np.sort(-rates, -1), found.steps)


def _by_qr(matrices: np.ndarray) -> np.ndarray:
    """Means of log|r_jj| (…, K) for matrices (…, T, K, K)."""
    steps, size = matrices.shape[-3], matrices.shape[-1]
    frame = np.broadcast_to(np.eye(size), (*matrices.shape[:-3], size, size))
    total = np.zeros((*matrices.shape[:-3], size))
    for i in range(steps):
        frame, triangle = np.linalg.qr(matrices[..., i, :, :] @ frame)
        with np.errstate(divide="ignore"):
            total = total + np.log(np.abs(np.diagonal(triangle, axis1=-2, axis2=-1)))
    return total / steps

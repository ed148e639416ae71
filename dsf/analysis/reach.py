"""How far back outputs reach, and how fast they forget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.system import System

from .realization import Heads, heads_of


@dataclass(frozen=True, eq=False)
class Memory:
    r"""Strength of Φ by lag: `largest` and `mean` of ‖C_i Ψ(i, j) B_j‖ over i - j = lag, (…, T) each.

    The norm is Frobenius's over writes and read-outs of one step; lag 0 includes the feedthrough.
    """

    largest: np.ndarray
    mean: np.ndarray

    def horizon(self, level: float = 0.01) -> np.ndarray:
        """The largest lag (…) at which some output still sees `level` of the largest strength; -1: none."""
        if not 0 < level <= 1:
            raise InvalidInput(f"`level` must be in (0, 1]; got {level}")
        top = self.largest.max(-1, keepdims=True, initial=0.0)
        seen = (self.largest >= level * top) & (top > 0)
        lags = np.arange(self.largest.shape[-1])
        return np.asarray(np.where(seen, lags, -1).max(-1, initial=-1))

    def half_life(self) -> np.ndarray:
        """The lag (…) within which half of the total mean strength lies, counted from lag 0."""
        total = self.mean.cumsum(-1)
        if not total.shape[-1]:
            return np.zeros(total.shape[:-1], dtype=int)
        return np.asarray((total < 0.5 * total[..., -1:]).sum(-1))


def memory(of: System | Tensor | np.ndarray, length: int | None = None) -> Memory:
    r"""The strength of a system's, or a mixing matrix's, responses by lag.

    >>> import torch
    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 16, 1, 1)
    >>> found = memory(retnet(q, q, decay=torch.tensor([0.5])))
    >>> found.horizon(0.1).tolist(), found.horizon(0.01).tolist()
    ([[3]], [[6]])
    """
    given = heads_of(of, length)
    if isinstance(given, Heads):
        sizes = [_block_norms(r.matrix(), r.length) for r in given.members]
        lead = given.lead
    else:
        sizes, lead = [np.abs(x) for x in given.reshape(-1, *given.shape[-2:])], given.shape[:-2]
    profiles = [_by_lag(size) for size in sizes]
    largest, mean = (np.stack(x).reshape(*lead, -1) for x in zip(*profiles, strict=True))
    return Memory(largest, mean)


def gate_half_life(decay: Tensor | np.ndarray) -> np.ndarray:
    """ln 2 / mean(-log α) over the time axis 1, for gates α (B, T, H, …) in linear space.

    >>> gate_half_life(np.full((1, 4, 1), 0.5))
    array([[1.]])
    """
    gates = decay.detach().cpu().numpy() if isinstance(decay, Tensor) else decay
    with np.errstate(divide="ignore"):
        rate = -np.log(np.abs(gates.astype(complex))).mean(1)
    return np.divide(np.log(2), rate, out=np.full_like(rate, np.inf), where=rate > 0)


def _block_norms(phi: np.ndarray, length: int) -> np.ndarray:
    if not length:
        return np.zeros((0, 0))
    rows, columns = (n // length for n in phi.shape)
    blocks = phi.reshape(length, rows, length, columns)
    return np.sqrt((np.abs(blocks) ** 2).sum((1, 3)))


def _by_lag(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and mean entry of every diagonal below and on the main one."""
    lags = range(size.shape[0])
    diagonals = [np.diagonal(size, -lag) for lag in lags]
    return np.array([d.max() for d in diagonals]), np.array([d.mean() for d in diagonals])

r"""Hankel singular values: what of the past the future can tell apart, at every cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.system import System

from .compression import compress
from .norms import operator_norm
from .realization import Heads, Realization, heads_of
from .sweeps import hankel_values, observability_roots, reachability_roots


@dataclass(frozen=True, eq=False)
class Hankel:
    r"""Singular values of Φ[i:, :i], (…, T + 1, n) for the cuts i = 0 … T, largest first, zeros behind.

    `norm` is ‖Φ‖₂ (…); the values are exact to `resolution` · ‖Φ‖₂, besides rounding. They do not
    depend on the gauge, as eigenvalues of single Λ_i do. No system
    whose state at cut i has n entries is closer to Φ than σ_{n+1}(i) in operator norm (Eckart and
    Young at that cut).
    """

    values: np.ndarray
    norm: np.ndarray
    resolution: float = 0.0

    def rank(self, tolerance: float = 0.01) -> np.ndarray:
        """How many singular values exceed `tolerance` · ‖Φ‖₂ at each cut (…, T + 1)."""
        return (self.values > tolerance * self.norm[..., None, None]).sum(-1)

    def needed(self, tolerance: float = 0.01) -> np.ndarray:
        """The state (…) below which no recurrence has a relative error of `tolerance` or less."""
        return np.asarray(self.rank(tolerance + self.resolution).max(-1, initial=0))

    def entropy_rank(self) -> np.ndarray:
        """e^H of the shares σ²/Σσ² at each cut: as many states as if all were equal (…, T + 1)."""
        energy = self.values**2
        total = energy.sum(-1, keepdims=True)
        share = np.divide(energy, total, out=np.zeros_like(energy), where=total > 0)
        entropy = -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum(-1)
        return np.where(total[..., 0] > 0, np.exp(entropy), 0.0)

    def stable_rank(self) -> np.ndarray:
        """Σσ²/σ₁² at each cut (…, T + 1)."""
        energy = self.values**2
        top = energy.max(-1, initial=0.0)
        return np.divide(energy.sum(-1), top, out=np.zeros_like(top), where=top > 0)


def hankel(
    of: System | Tensor | np.ndarray,
    length: int | None = None,
    *,
    cuts: Sequence[int] | None = None,
    resolution: float = 0.0,
) -> Hankel:
    r"""The Hankel singular values of every head of a `System`, or of mixing matrices Φ (…, T, T).

    For a system they are the singular values of U_i L_i with square roots of the two Gramians, at
    T n³; for Φ those of a compressed realization, at T² n, exact but for rounding or, with a
    `resolution`, but for `resolution` · ‖Φ‖₂. `cuts` asks for some cuts only, which for Φ are then
    SVDs of its blocks. `length` is needed for a time-invariant system. Raises `InvalidInput` for maps
    that are not causal.

    >>> phi = np.tril(np.ones((4, 4)))  # a running sum: one state at every cut
    >>> hankel(phi).rank().tolist()
    [0, 1, 1, 1, 0]
    """
    given = heads_of(of, length)
    if isinstance(given, Heads):
        lead = given.lead
        norms = [operator_norm(r.matrix()) for r in given.members]
        rows = [_at(hankel_values(r), cuts) for r in given.members]
    else:
        lead = given.shape[:-2]
        matrices = list(given.reshape(-1, *given.shape[-2:]))
        norms = [operator_norm(phi) for phi in matrices]
        if cuts is None:
            pairs = zip(matrices, norms, strict=True)
            rows = [hankel_values(compress(x, resolution * norm)[0]) for x, norm in pairs]
        else:
            blocks = [[hankel_block(x, cut) for cut in cuts] for x in matrices]
            rows = [[np.linalg.svd(x, compute_uv=False) for x in found] for found in blocks]
    stacked = Heads(lead, ()).stack([_padded(row) for row in rows])
    coarse = 0.0 if isinstance(given, Heads) or cuts is not None else resolution
    return Hankel(stacked, np.array(norms).reshape(lead), coarse)


def _at(values: list[np.ndarray], cuts: Sequence[int] | None) -> list[np.ndarray]:
    if cuts is None:
        return values
    if not all(0 <= cut < len(values) for cut in cuts):
        raise InvalidInput(f"`cuts` must be between 0 and T = {len(values) - 1}; got {list(cuts)}")
    return [values[cut] for cut in cuts]


def hankel_block(phi: Tensor | np.ndarray, cut: int) -> np.ndarray:
    """Φ[i:, :i] (…, T - i, i): from the tokens before the cut to the outputs from it on."""
    array = heads_of(phi)
    assert isinstance(array, np.ndarray)
    if not 0 <= cut <= array.shape[-1]:
        raise InvalidInput(f"`cut` must be between 0 and T = {array.shape[-1]}; got {cut}")
    return array[..., cut:, :cut]


@dataclass(frozen=True, eq=False)
class Gramians:
    """Square roots per cut: L (…, T + 1, n, n) with L Lᴴ = W_c, U (…, T + 1, n, n) with Uᴴ U = W_o."""

    reachability_root: np.ndarray
    observability_root: np.ndarray

    @property
    def reachability(self) -> np.ndarray:
        """W_c (…, T + 1, n, n): W_c(i+1) = A_i W_c(i) A_iᴴ + B_i B_iᴴ."""
        return self.reachability_root @ self.reachability_root.conj().swapaxes(-1, -2)

    @property
    def observability(self) -> np.ndarray:
        """W_o (…, T + 1, n, n): W_o(i) = A_iᴴ W_o(i+1) A_i + C_iᴴ C_i."""
        return self.observability_root.conj().swapaxes(-1, -2) @ self.observability_root

    @property
    def hankel_values(self) -> np.ndarray:
        """The singular values of U L (…, T + 1, n): those of Φ[i:, :i]."""
        return np.linalg.svd(self.observability_root @ self.reachability_root, compute_uv=False)


def gramians(system: System, length: int | None = None) -> Gramians:
    """Reachability and observability Gramians at every cut, by square roots, in the system's gauge.

    >>> import torch
    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 3, 1, 1)
    >>> found = gramians(retnet(q, q, decay=torch.tensor([0.5])))
    >>> found.reachability[0, 0, :, 0, 0].round(6).tolist()
    [0.0, 1.0, 1.25, 1.3125]
    """
    heads = heads_of(system, length)
    if not isinstance(heads, Heads):
        raise InvalidInput("Gramians belong to a state: give a System, or realize Φ first")
    past = [_square(reachability_roots(r), r) for r in heads.members]
    future = [_square(observability_roots(r), r) for r in heads.members]
    return Gramians(heads.stack(past), heads.stack(future))


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    width = max((len(row) for row in rows), default=0)
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows])


def _square(roots: list[np.ndarray], r: Realization) -> np.ndarray:
    size = max(r.orders)
    full = np.zeros((len(roots), size, size), dtype=roots[0].dtype)
    for i, root in enumerate(roots):
        full[i, : root.shape[0], : root.shape[1]] = root
    return full

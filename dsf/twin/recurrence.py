"""A system as arrays of exact entries, and the recurrence over any ring they are mapped into.

One batch element and one head. The state is (V, K): one row per value channel, a single row where the
couplings are dense. Nothing is shared with the numerical forms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, OuterCoupling
from dsf.structure import DPLR, Block, Dense, Diagonal, Elementwise, Identity, Scalar, Structure
from dsf.system import System

from .rules import real_part
from .tensors import Exact, expressions, mapped


@dataclass(frozen=True)
class Entries:
    """One step: Λ (V or 1, K, K), B and C (V or 1, R, K), D (V, V) or None, the offset or None.

    For a vector state B is (1, K, W) as a matrix and C (1, out, K). `scale` multiplies B in the sums
    that make up the normaliser too (a write gate).
    """

    transition: np.ndarray
    write: np.ndarray
    read: np.ndarray
    direct: np.ndarray | None
    offset: np.ndarray | None


@dataclass(frozen=True)
class Unrolled:
    """Outputs (T, Q, V), or (T, out) of a vector state, denominators (T, Q) or None, states h_0 … h_T."""

    outputs: np.ndarray
    denominators: np.ndarray | None
    states: list[np.ndarray]


@dataclass(frozen=True)
class Recurrence:
    """The steps of a system with what is not a matrix: timing, normaliser, vector state, real part."""

    steps: list[Entries]
    timing: str
    normalised: bool
    floor: float | None
    vector: bool
    real_part: bool

    def map(self, function: Callable[[Any], Any]) -> Recurrence:
        """The same recurrence with every entry replaced (into a field, or by a value)."""

        def each(x: np.ndarray | None) -> np.ndarray | None:
            return None if x is None else mapped(function, x)

        steps = [
            Entries(each(s.transition), each(s.write), each(s.read), each(s.direct), each(s.offset))  # type: ignore[arg-type]
            for s in self.steps
        ]
        return Recurrence(
            steps, self.timing, self.normalised, self.floor, self.vector, self.real_part
        )

    def run(self, tokens: np.ndarray, zero: Any = 0, one: Any = 1) -> Unrolled:
        """Outputs and states for tokens (T, R, V), or (T, W) for a vector state, from nothing."""
        keys = self.steps[0].transition.shape[-1] if self.steps else 0
        channels = 1 if self.vector else tokens.shape[-1]
        state = np.full((channels, keys), zero, dtype=object)
        weights = np.full((1, keys), zero, dtype=object)
        states, outputs, etas = [state], [], []
        for step, token in zip(self.steps, tokens, strict=True):
            before, before_weights = state, weights
            state = _moved(step.transition, state) + self._written(step, token)
            if self.normalised:
                ones = np.full((token.shape[0], 1), one, dtype=object)
                weights = _moved(step.transition, weights) + self._written(step, ones)
            early = self.timing == "before"
            outputs.append(self._read(step, before if early else state))
            etas.append(self._read(step, before_weights if early else weights)[:, 0])
            states.append(state)
        if self.timing == "end":
            raise ValueError("timing 'end' has one read-out: take the last state")
        finished = [
            self._finished(s, y, eta, u)
            for s, y, eta, u in zip(self.steps, outputs, etas, tokens, strict=True)
        ]
        return Unrolled(
            np.array(finished, dtype=object),
            np.array(etas, dtype=object) if self.normalised else None,
            states,
        )

    def _written(self, step: Entries, token: np.ndarray) -> np.ndarray:
        if self.vector:
            return (step.write[0] * token[None, :]).sum(-1)[None]
        # Σ_r b_rk u_rv as (V, K)
        return (np.swapaxes(token, 0, 1)[:, :, None] * step.write).sum(1)

    def _read(self, step: Entries, state: np.ndarray) -> np.ndarray:
        """(Q, V), or (out, 1)."""
        return np.swapaxes((step.read * state[:, None, :]).sum(-1), 0, 1)

    def _finished(
        self, step: Entries, outputs: np.ndarray, eta: np.ndarray, token: np.ndarray
    ) -> np.ndarray:
        if self.normalised:
            outputs = outputs / np.array([self._floored(x) for x in eta], dtype=object)[:, None]
        if self.vector:
            outputs = outputs[:, 0]
        if self.real_part:
            outputs = mapped(real_part, outputs)
        if step.direct is not None:
            outputs = outputs + (step.direct * token[..., None, :]).sum(-1)
        return outputs if step.offset is None else outputs + step.offset

    def _floored(self, eta: Any) -> Any:
        """max(|η|, f) = (|η| + f + ||η| - f|)/2, which exact algebra has rules for."""
        if self.floor is None:
            return eta
        size, floor = sympy.Abs(eta), sympy.Rational(self.floor)
        return (size + floor + sympy.Abs(size - floor)) / 2


def _moved(transition: np.ndarray, state: np.ndarray) -> np.ndarray:
    return (transition * state[:, None, :]).sum(-1)


def recurrence_of(system: System, length: int, values: int, head: int = 0) -> Recurrence:
    """The entries of a system for batch element 0 and one head, over `length` steps and V = `values`."""
    gain = None if system.log_write is None else torch.exp(system.log_write)
    steps = []
    for t in range(length):

        def here(x: Tensor, t: int = t) -> np.ndarray:
            time, own = (i if n > 1 else 0 for i, n in zip((t, head), x.shape[1:3], strict=True))
            return expressions(x[0, time, own])

        write = _coupling(system.write, here, system.is_vector)
        steps.append(
            Entries(
                _matrices(system.transition, here, system.key_size),
                write if gain is None else write * here(gain),
                _coupling(system.read, here, system.is_vector),
                _direct(system, here, values),
                None if system.offset is None else here(system.offset),
            )
        )
    normaliser = system.normaliser
    return Recurrence(
        steps,
        system.timing,
        normaliser is not None,
        None if normaliser is None else normaliser.floor,
        system.is_vector,
        system.real_part,
    )


Here = Callable[[Tensor], np.ndarray]


def _direct(system: System, here: Here, values: int) -> np.ndarray | None:
    return None if system.feedthrough is None else _matrices(system.feedthrough, here, values)[0]


def _coupling(coupling: Coupling, here: Here, vector: bool) -> np.ndarray:
    weights = here(coupling.weights)
    if vector:
        return weights[None]
    if isinstance(coupling, ChannelCoupling):
        return np.swapaxes(weights, 0, 1)[:, None, :]
    assert isinstance(coupling, OuterCoupling)
    return (weights if coupling.several is not None else weights[None])[None]


def _matrices(structure: Structure, here: Here, size: int) -> np.ndarray:
    """(V or 1, K, K)."""
    if isinstance(structure, Identity):
        return _spread(np.full((1, size), sympy.Integer(1), dtype=object))
    if isinstance(structure, Scalar | Diagonal | Elementwise):
        gates = here(structure.decay)
        if isinstance(structure, Elementwise):
            return _spread(np.broadcast_to(gates.T, (gates.shape[1], size)))
        return _spread(np.broadcast_to(gates, (1, size)))
    if isinstance(structure, DPLR):
        left, right = here(structure.left), here(structure.right)
        low_rank = (left[:, None, :] * right[None, :, :]).sum(-1)
        return _matrices(structure.gate, here, size) + low_rank
    if isinstance(structure, Block):
        blocks = here(structure.blocks)
        width = blocks.shape[-1]
        whole = np.full((1, size, size), sympy.Integer(0), dtype=object)
        for g in range(blocks.shape[0]):
            own = slice(g * width, (g + 1) * width)
            whole[0, own, own] = blocks[g]
        return whole
    assert isinstance(structure, Dense)
    return here(structure.matrix)[None]


def _spread(diagonals: np.ndarray) -> np.ndarray:
    """Rows (V, K) as diagonal matrices (V, K, K)."""
    channels, size = diagonals.shape
    whole = np.full((channels, size, size), sympy.Integer(0), dtype=object)
    for k in range(size):
        whole[:, k, k] = diagonals[:, k]
    return whole


def symbols(name: str, like: Tensor) -> Exact:
    """A tensor of real symbols name_… (name_… + i name_…_im where it is complex), at the values of `like`.

    Axes of size 1 in front (batch, head) are left out of the indices.
    """
    made = np.empty(tuple(like.shape), dtype=object)
    for place in np.ndindex(made.shape):
        index = "".join(str(i) for i, n in zip(place, made.shape, strict=True) if n > 1)
        label = f"{name}_{index}" if index else name
        made[place] = sympy.Symbol(label, real=True)
        if like.is_complex():
            made[place] += sympy.I * sympy.Symbol(f"{label}_im", real=True)
    return Exact.of(like, made)

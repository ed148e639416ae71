r"""The recurrence in ball or rational arithmetic: where the exact outputs must lie, for short sequences.

Every number of the system is taken as the dyadic rational that it is; logarithms of gates and write
gates are exponentiated in balls. Nothing is shared with the numerical forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, OuterCoupling, ScaledCoupling
from dsf.errors import InvalidInput
from dsf.state import State
from dsf.structure import DPLR, Block, Discretised, Elementwise, Gate, Identity, Structure
from dsf.system import System
from dsf.validation import check_state, check_tokens

from .rings import Arithmetic, Ring, may_vanish, ring_of

BITS = 128  # and as many again per step as a transition that mixes keys may lose


@dataclass(frozen=True, eq=False)
class Enclosure:
    """|exact - midpoint| <= radius, entry by entry: float64 or complex128 and float64, as a run's outputs."""

    midpoint: Tensor
    radius: Tensor

    def error(self, computed: Tensor) -> Tensor:
        """An upper bound of |computed - exact|, up to one rounding of the difference of two floats."""
        wide = computed.detach().to(self.midpoint.dtype)
        return (wide - self.midpoint).abs() * (1 + 2.0**-50) + self.radius


def enclose(
    system: System,
    tokens: Tensor,
    state: State | None = None,
    *,
    arithmetic: Arithmetic = "balls",
    bits: int | None = None,
) -> Enclosure:
    r"""The exact outputs (B, T, H, …) of a system for these tokens, enclosed.

    "balls" needs python-flint and works at `bits` of precision: by default 128, and two more per step
    for transitions that mix keys, whose balls wrap (a delta rule loses about half a bit a step, 0.44
    measured; what matters is that the radius tells). "rationals" needs nothing, has radius 0 but for
    the rounding to float64, and refuses logarithms other than 0 and -inf, and complex numbers. Work
    T K² V ring operations per head in Python: for T up to a few hundred.

    Raises `InvalidInput` where the arithmetic cannot hold the system, for packed systems and timing
    "end", for numbers that are not finite, and where a denominator's ball contains 0.

    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    >>> third = torch.tensor([1 / 3], dtype=torch.float64)
    >>> found = enclose(retnet(q, q, decay=third), q, arithmetic="rationals")
    >>> found.midpoint.flatten().tolist(), bool(found.radius.max() < 1e-16)
    ([1.0, 1.3333333333333333, 1.4444444444444444], True)
    """
    if system.boundaries is not None or system.timing == "end":
        raise InvalidInput("`enclose` takes one sequence read in time: no packing, no timing 'end'")
    batch, length, heads = check_tokens(system, tokens)
    values = 1 if system.is_vector else tokens.shape[-1]
    if state is not None:
        check_state(system, state, (batch, heads), values)
    mixes = not isinstance(system.transition, Gate | Identity)
    precision = BITS + 2 * length * mixes if bits is None else bits
    complex_ = system.is_complex or tokens.is_complex()
    complex_ = complex_ or (state is not None and state.memory.is_complex())
    with ring_of(arithmetic, complex_, precision) as ring:
        runs = [
            [_Head(system, tokens, state, ring, b, h).run(length) for h in range(heads)]
            for b in range(batch)
        ]
        shape = _shape(system, tokens)
        pairs = [ring.rounded(x) for row in runs for head in row for x in head]
    kind = np.complex128 if any(isinstance(m, complex) for m, _ in pairs) else np.float64
    arrays = (np.array([p[i] for p in pairs], dtype=(kind, np.float64)[i]) for i in (0, 1))
    made = [torch.from_numpy(x.reshape(batch, heads, length, *shape)) for x in arrays]
    return Enclosure(*(x.transpose(1, 2).contiguous() for x in made))


class _Head:
    """One batch element and head: its steps as arrays of ring elements, and the plain recurrence."""

    def __init__(
        self, system: System, tokens: Tensor, state: State | None, ring: Ring, b: int, h: int
    ) -> None:
        self.system, self.ring, self.place = system, ring, (b, h)
        own = self._entries(self._own(tokens, None))  # (T, R, V), or (T, W) of a vector state
        self.tokens = own[:, None] if own.ndim == 2 and not system.is_vector else own
        self.values = 1 if system.is_vector else tokens.shape[-1]
        self.state = state

    def run(self, length: int) -> list[Any]:
        """Outputs of all steps, flat."""
        system, zero = self.system, self.ring.number(0.0)
        memory = np.full((self.values, system.key_size), zero, dtype=object)
        weights = np.full((1, system.key_size), zero, dtype=object)
        if self.state is not None:
            memory = self._start(self.state.memory)
            if self.state.normaliser is not None:
                weights = self._start(self.state.normaliser)
                if self.state.stabiliser is not None:
                    gauge = self._gauge(self.state.stabiliser)
                    memory, weights = memory * gauge, weights * gauge
        found: list[Any] = []
        for t in range(length):
            token, gain = self.tokens[t], self._gain(t)
            transition = self._matrices(system.transition, t)
            write = self._coupling(system.write, t) * gain
            read = self._coupling(system.read, t)
            before = memory, weights
            memory = _applied(transition, memory) + _written(write, token, system.is_vector)
            if system.normaliser is not None:
                ones = np.full((write.shape[1], 1), self.ring.number(1.0), dtype=object)
                weights = _applied(transition, weights) + _written(write, ones, False)
            seen = before if system.timing == "before" else (memory, weights)
            found += list(self._output(t, read, token, *seen).ravel())
        return found

    def _output(
        self, t: int, read: np.ndarray, token: np.ndarray, memory: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        system = self.system
        y = _read(read, memory)
        if system.normaliser is not None:
            eta = _read(read, weights)[:, 0]
            y = y / np.array([self._denominator(x) for x in eta], dtype=object)[:, None]
        if system.is_vector:
            y = y[:, 0]
        elif isinstance(system.read, ChannelCoupling) or system.read.several is None:  # type: ignore[union-attr]
            y = y[0]
        if system.real_part:
            y = np.array([self.ring.real(x) for x in y.ravel()], dtype=object).reshape(y.shape)
        if system.feedthrough is not None:
            direct = self._matrices(system.feedthrough, t, token.shape[-1])[0]
            given = token if token.shape[:-1] == y.shape[:-1] else token[0]
            y = y + (direct * given[..., None, :]).sum(-1)
        if system.offset is not None:
            y = y + self._at(system.offset, t)
        return y

    def _denominator(self, eta: Any) -> Any:
        floor = self.system.normaliser.floor if self.system.normaliser else None
        eta = eta if floor is None else self.ring.larger(abs(eta), self.ring.number(floor))
        if may_vanish(eta):
            raise InvalidInput("a denominator may be 0: more `bits`, or positive features")
        return eta

    def _gain(self, t: int) -> Any:
        log = self.system.log_write
        return 1 if log is None else self.ring.exp(self._number(log, t))

    def _gauge(self, stabiliser: Tensor) -> Any:
        return self.ring.exp(stabiliser[self.place].item())

    def _start(self, x: Tensor) -> np.ndarray:
        """A state (K, V) or (K,) as (V, K)."""
        own = self._entries(x[self.place])
        return own[None] if own.ndim == 1 else own.T

    def _number(self, x: Tensor, t: int) -> float:
        return self._own(x, t).item()

    def _own(self, x: Tensor, t: int | None) -> Tensor:
        b, h = (
            i if n > 1 else 0 for i, n in zip(self.place, (x.shape[0], x.shape[2]), strict=True)
        )
        own = x[b, :, h]
        return own if t is None else own[t if own.shape[0] > 1 else 0]

    def _at(self, x: Tensor, t: int) -> np.ndarray:
        return self._entries(self._own(x, t))

    def _entries(self, x: Tensor) -> np.ndarray:
        array = x.detach().cpu().resolve_conj()
        flat = [self.ring.number(entry) for entry in array.flatten().tolist()]
        made = np.empty(len(flat), dtype=object)
        made[:] = flat
        return made.reshape(tuple(array.shape))

    def _coupling(self, coupling: Coupling, t: int) -> np.ndarray:
        """(V or 1, R, K) for outer ones and channels; for a vector state the matrix itself."""
        if isinstance(coupling, ScaledCoupling):
            keys, gains = (self._at(x, t) for x in coupling.tensors)
            return (gains[:, None] * keys)[:, None]
        own = self._at(coupling.weights, t)
        if self.system.is_vector:
            return own if coupling is self.system.write else own[None]
        if isinstance(coupling, ChannelCoupling):
            return own.T[:, None]
        return (own if own.ndim == 2 else own[None])[None]

    def _matrices(self, structure: Structure, t: int, size: int | None = None) -> np.ndarray:
        """(V or 1, K, K)."""
        keys = self.system.key_size if size is None else size
        zero, one = self.ring.number(0.0), self.ring.number(1.0)
        if isinstance(structure, Identity):
            return _diagonal(np.full((1, keys), one, dtype=object), zero)
        if isinstance(structure, Gate):
            gates = self._decay(structure, t)
            rows = gates.T if isinstance(structure, Elementwise) else gates.reshape(1, -1)
            return _diagonal(np.broadcast_to(rows, (rows.shape[0], keys)), zero)
        if isinstance(structure, DPLR):
            left, right = self._at(structure.left, t), self._at(structure.right, t)
            low_rank = (left[:, None, :] * right[None, :, :]).sum(-1)
            return self._matrices(structure.gate, t, size) + low_rank
        if isinstance(structure, Block):
            blocks = self._at(structure.blocks, t)
            width = blocks.shape[-1]
            whole = np.full((1, keys, keys), zero, dtype=object)
            for g, one_block in enumerate(blocks):
                whole[0, g * width : (g + 1) * width, g * width : (g + 1) * width] = one_block
            return whole
        return self._at(structure.leaves[0], t)[None]

    def _exp(self, x: Any) -> Any:
        """e^x of a number of the ring: a ball has its own; of a rational only e^0 is one, and all else is refused."""
        return x.exp() if hasattr(x, "exp") else self.ring.exp(0.0 if x == 0 else 1.0)

    def _decay(self, gate: Gate, t: int) -> np.ndarray:
        if isinstance(gate, Discretised):
            steps, rates = np.broadcast_arrays(*(self._at(x, t) for x in gate.leaves))
            products = [self._exp(x * y) for x, y in zip(steps.flat, rates.flat, strict=True)]
            made = np.empty(len(products), dtype=object)
            made[:] = products
            return made.reshape(steps.shape)
        if gate.log is None:
            return self._at(gate.leaves[0], t)
        own = self._own(gate.log, t)
        made = np.empty(own.numel(), dtype=object)
        made[:] = [self.ring.exp(x) for x in own.flatten().tolist()]
        return made.reshape(tuple(own.shape))


def _diagonal(rows: np.ndarray, zero: Any) -> np.ndarray:
    channels, size = rows.shape
    whole = np.full((channels, size, size), zero, dtype=object)
    for k in range(size):
        whole[:, k, k] = rows[:, k]
    return whole


def _applied(transition: np.ndarray, memory: np.ndarray) -> np.ndarray:
    return (transition * memory[:, None, :]).sum(-1)


def _written(write: np.ndarray, token: np.ndarray, vector: bool) -> np.ndarray:
    if vector:
        return (write * token[None, :]).sum(-1)[None]
    return (token.T[:, :, None] * write).sum(1)  # Σ_r b_rk u_rv as (V, K)


def _read(read: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """(R, V), or (out, 1)."""
    return (read * memory[:, None, :]).sum(-1).T


def _shape(system: System, tokens: Tensor) -> tuple[int, ...]:
    if system.is_vector:
        return (system.read.weights.shape[-2],)
    several = system.read.several if isinstance(system.read, OuterCoupling) else None
    return (tokens.shape[-1],) if several is None else (several, tokens.shape[-1])

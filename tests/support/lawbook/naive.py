"""The recurrence in numpy, step by step and matrix by matrix: it shares no arithmetic with `dsf`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dsf.coupling import (
    ChannelCoupling,
    Coupling,
    DenseCoupling,
    OuterCoupling,
    ScaledCoupling,
)
from dsf.state import State
from dsf.structure import (
    DPLR,
    Block,
    Dense,
    Diagonal,
    Discretised,
    Elementwise,
    Identity,
    Scalar,
    Structure,
)
from dsf.system import System


def array(x: Tensor) -> np.ndarray:
    """A tensor in float64 or complex128."""
    x = x.detach()
    return (
        x.to(x.dtype.to_complex()).numpy().astype(complex)
        if x.is_complex()
        else (x.double().numpy())
    )


def matrices(structure: Structure, size: int, channels: int) -> np.ndarray:
    """(…, V, K, K), or (1, 1, 1, 1, K, K) where all is the same."""
    if isinstance(structure, Identity):
        return np.eye(size)[None, None, None, None]
    if isinstance(structure, Scalar | Diagonal | Elementwise):
        leaf = array(structure.leaves[0])
        if isinstance(structure, Discretised):
            leaf = leaf * array(structure.rate)
        gates = leaf if structure.value is not None else np.exp(leaf)
        for _ in range(2 - structure.own_axes):
            gates = gates[..., None]
        lead = gates.shape[:-2]
        result = np.zeros((*lead, channels, size, size), dtype=gates.dtype)
        for k in range(size):
            result[..., k, k] = np.broadcast_to(gates, (*lead, size, channels))[..., k, :]
        return result
    if isinstance(structure, DPLR):
        p, q = array(structure.left), array(structure.right)
        rest = matrices(structure.gate, size, 1)
        return rest + (p[..., :, None, :] * q[..., None, :, :]).sum(-1)[..., None, :, :]
    if isinstance(structure, Block):
        blocks = array(structure.blocks)
        width = blocks.shape[-1]
        result = np.zeros((*blocks.shape[:-3], 1, size, size), dtype=blocks.dtype)
        for g in range(blocks.shape[-3]):
            here = slice(g * width, (g + 1) * width)
            result[..., 0, here, here] = blocks[..., g, :, :]
        return result
    assert isinstance(structure, Dense)
    return array(structure.matrix)[..., None, :, :]


def written(write: Coupling, tokens: np.ndarray) -> np.ndarray:
    """B u as (B, T, H, V, K)."""
    if isinstance(write, ScaledCoupling):
        keys, gains = (array(x) for x in write.tensors)
        return (tokens * gains)[..., :, None] * keys[..., None, :]
    b = array(write.weights)
    if isinstance(write, OuterCoupling) and write.several is None:
        return tokens[..., :, None] * b[..., None, :]
    if isinstance(write, OuterCoupling):
        return sum(tokens[..., r, :, None] * b[..., r, None, :] for r in range(b.shape[-2]))  # type: ignore[return-value]
    if isinstance(write, ChannelCoupling):
        return tokens[..., :, None] * np.swapaxes(b, -1, -2)
    assert isinstance(write, DenseCoupling)
    return (b * tokens[..., None, :]).sum(-1)[..., None, :]


def read_out(read: Coupling, state: np.ndarray) -> np.ndarray:
    """C h of states (B, T, H, V, K), in the axes of the outputs."""
    c = array(read.weights)
    if isinstance(read, OuterCoupling) and read.several is None:
        return (state * c[..., None, :]).sum(-1)
    if isinstance(read, OuterCoupling):
        return np.stack([(state * c[..., r, None, :]).sum(-1) for r in range(c.shape[-2])], axis=-2)
    if isinstance(read, ChannelCoupling):
        return (state * np.swapaxes(c, -1, -2)).sum(-1)
    return (c * state[..., 0, None, :]).sum(-1)


def states(
    system: System, increments: np.ndarray, start: np.ndarray, size: int
) -> list[np.ndarray]:
    """h_0 … h_T, each (B, H, V, K)."""
    channels, length = increments.shape[-2], increments.shape[1]
    lambdas = matrices(system.transition, size, channels)
    found = [start]
    for t in range(length):
        matrix = lambdas[:, t if lambdas.shape[1] > 1 else 0]
        moved = (matrix * found[-1][..., None, :]).sum(-1)
        found.append(moved + increments[:, t])
    return found


def run(system: System, tokens: Tensor, state: State | None) -> tuple[np.ndarray, np.ndarray]:
    """Outputs, and the final memory (B, H, V, K); no stabiliser, so log write gates stay moderate."""
    u, size = array(tokens), system.key_size
    batch, _, heads = np.broadcast_shapes(tuple(system.lead), u.shape[:3])
    length = u.shape[1]
    u = np.broadcast_to(u, (batch, length, heads, *u.shape[3:]))
    ones = np.ones((*u.shape[:-1], 1))
    gain = 1.0 if system.log_write is None else np.exp(array(system.log_write))[..., None, None]
    values, weights = (
        (np.asarray(gain) * written(system.write, x) for x in (u, ones))
        if (system.normaliser is not None)
        else (written(system.write, u), None)
    )
    channels = values.shape[-2]
    values = np.broadcast_to(values, (batch, length, heads, channels, size))

    def begin(x: Tensor | None, width: int, vector: bool) -> np.ndarray:
        if x is None:
            return np.zeros((batch, heads, width, size))
        scale = 1.0
        if state is not None and state.stabiliser is not None:
            scale = np.exp(array(state.stabiliser))[..., None, None]
        x = array(x)
        return scale * (x[..., None, :] if vector else np.swapaxes(x, -1, -2))

    memory = None if state is None else state.memory
    h = states(system, values, begin(memory, channels, system.is_vector), size)
    y = _times(system, h, length)
    if weights is not None:
        weights = np.broadcast_to(weights, (batch, length, heads, 1, size))
        n = states(
            system, weights, begin(None if state is None else state.normaliser, 1, True), size
        )
        eta = _times(system, n, length)
        floor = system.normaliser.floor if system.normaliser is not None else None
        y = y / (eta if floor is None else np.maximum(np.abs(eta), floor))
    y = y.real if system.real_part else y
    if system.feedthrough is not None:
        direct = matrices(system.feedthrough, u.shape[-1], 1)[..., 0, :, :]
        direct = direct if u.ndim == 4 else direct[..., None, :, :]
        y = y + (direct * u[..., None, :]).sum(-1)
    return (y if system.offset is None else y + array(system.offset)), h[-1]


def _times(system: System, h: list[np.ndarray], length: int) -> np.ndarray:
    if system.timing == "end":
        return read_out(system.read, h[-1][:, None])
    chosen = h[1:] if system.timing == "after" else h[:-1]
    if not length:
        return read_out(system.read, np.zeros((h[0].shape[0], 0, *h[0].shape[1:])))
    return read_out(system.read, np.stack(chosen, 1))

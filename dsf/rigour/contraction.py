"""A float64 run with proved errors, by residuals and norms: any length, sharp for contractions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.forms.core import Core, over_time
from dsf.forms.lowering import lower
from dsf.numerics import unit_roundoff
from dsf.state import State
from dsf.structure import DPLR, Elementwise, Gate, Identity
from dsf.system import System
from dsf.verify.contraction import Steps, contraction

from .enclosures import Enclosure

_U = unit_roundoff(torch.float64)
_EXP = (
    8 * _U
)  # what the exponential of a logarithmic gate may be off, relatively: 4 units in the last place


def certified_run(system: System, tokens: Tensor, state: State | None = None) -> Enclosure:
    r"""Outputs of a float64 run, step by step, with radii inside which the exact outputs are.

    The states' errors follow e_i = L_i e_{i-1} + r_i (`dsf.verify.contraction`); a read-out adds
    ‖c_i‖ e_i and its roundings. Any length: work T K² (K + V) per head. Radii grow where ‖Λ_i‖ > 1;
    for keys of unit length and strengths in [0, 2] the delta rule contracts, and where balls of
    float64 are useless after a hundred steps the radius grows linearly. Exponentials of logarithmic
    gates are taken to be within 4 units in the last place.

    Raises `InvalidInput` for a normaliser, a log write gate, Elementwise gates, couplings per channel,
    packed systems, and timings other than "after".

    >>> from dsf.mixers import deltanet
    >>> draw = torch.Generator().manual_seed(0)
    >>> k = torch.nn.functional.normalize(torch.randn(1, 300, 1, 8, generator=draw).double(), dim=-1)
    >>> found = certified_run(deltanet(k, k, torch.ones(1, 300, 1).double()), k)
    >>> 0 < float(found.radius.max()) < 1e-10
    True
    """
    _admit(system)
    wide = system.map(_double)
    given = None if state is None else state.map(_double)
    core = lower(
        replace(wide, feedthrough=None, offset=None, real_part=False), _double(tokens), given
    ).core
    states = _states(core)
    (batch, heads), length = core.memory.shape[:2], core.length
    outputs = core.read.extract(states[:, 1:]) if length else core.empty_outputs()
    errors = np.zeros((batch, length, heads))
    for b in range(batch):
        for h in range(heads):
            found = contraction(_steps(core, b, h), states[b, :, h].numpy())
            errors[b, :, h] = found.errors[1:]
    radius = _read_radius(core, states, torch.from_numpy(errors))
    return _with_direct(wide, _double(tokens), outputs, radius)


def _admit(system: System) -> None:
    refused = {
        "a normaliser": system.normaliser is not None,
        "a log write gate": system.log_write is not None,
        "packed sequences": system.boundaries is not None,
        f"timing {system.timing!r}": system.timing != "after",
        "Elementwise gates": isinstance(system.transition, Elementwise),
        "couplings per channel": not (
            system.is_vector
            or (isinstance(system.write, OuterCoupling) and isinstance(system.read, OuterCoupling))
        ),
    }
    if found := [name for name, there in refused.items() if there]:
        raise InvalidInput(
            f"`certified_run` takes plain recurrences, without {found[0]}: use `enclose` for short runs, "
            "or `dsf.error_bound`"
        )


def _states(core: Core) -> Tensor:
    """h_0 … h_T, (B, T + 1, H, K, V)."""
    memory, states = core.memory, [core.memory]
    linear = core.transition.linear()
    leaves = [over_time(leaf, core.length).unbind(1) for leaf in linear.leaves]
    for t, increment in enumerate(over_time(core.write.inject(core.tokens), core.length).unbind(1)):
        memory = linear.rebuild(tuple(leaf[t] for leaf in leaves)).apply(memory) + increment
        states.append(memory)
    return torch.stack(states, 1)


def _steps(core: Core, b: int, h: int) -> Steps:
    transition, length, keys = core.transition, core.length, core.key_size

    def own(x: Tensor) -> np.ndarray:
        place = tuple(
            i if n > 1 else 0 for i, n in zip((b, h), (x.shape[0], x.shape[2]), strict=True)
        )
        wide = x[place[0], :, place[1]]
        return wide.expand(length, *wide.shape[1:]).resolve_conj().numpy()

    gate = transition.gate if isinstance(transition, DPLR) else transition
    diagonal, error = np.zeros((length, keys)), 0.0
    if isinstance(gate, Identity):
        diagonal = np.ones((length, keys))
    elif isinstance(gate, Gate):
        decay = own(gate.decay)
        diagonal = np.broadcast_to(decay if decay.ndim == 2 else decay[:, None], (length, keys))
        error = 0.0 if gate.log is None else _EXP
    left = right = np.zeros((length, keys, 0))
    if isinstance(transition, DPLR):
        left, right = own(transition.left), own(transition.right)
    elif not isinstance(transition, Gate | Identity):
        left = own(transition.dense(keys))
        right = np.broadcast_to(np.eye(keys), (length, keys, keys))
    if isinstance(core.write, OuterCoupling):
        write = own(core.write.stacked()).swapaxes(-1, -2)
        tokens = own(core.tokens)
        tokens = tokens[:, None] if tokens.ndim == 2 else tokens
    else:
        write, tokens = own(core.write.weights), own(core.tokens)[..., None]
    return Steps(diagonal, left, right, write, tokens, error)


def _read_radius(core: Core, states: Tensor, errors: Tensor) -> Tensor:
    """‖c_i‖ e_i + γ |c_i| |h̃_i| per output."""
    after, sizes = states[:, 1:], core.memory.shape[:2]
    read = core.read.map(lambda x: x.abs().expand(sizes[0], x.shape[1], sizes[1], *x.shape[3:]))
    lengths = torch.linalg.vector_norm(read.weights, dim=-1)
    if not core.length:
        return core.empty_outputs().abs()
    n = (core.key_size + 8) * (4 if core.memory.is_complex() else 1)
    rounded = n * _U / (1 - n * _U) * read.extract(after.abs())
    carried = lengths * (errors if lengths.ndim == 3 else errors[..., None])
    carried = carried if carried.ndim == rounded.ndim else carried[..., None]
    return (carried + rounded) * (1 + 64 * core.key_size * _U) + 2.0**-1000


def _with_direct(system: System, tokens: Tensor, outputs: Tensor, radius: Tensor) -> Enclosure:
    """Real part, D u and the offset, with their roundings."""
    y = outputs.real if system.real_part else outputs
    if system.feedthrough is not None:
        width = tokens.shape[-1]
        matrix = system.feedthrough.dense(width).to(torch.promote_types(tokens.dtype, y.dtype))
        direct = torch.einsum("...vw,...w->...v", matrix, tokens.to(matrix.dtype))
        size = torch.einsum("...vw,...w->...v", matrix.abs(), tokens.abs())
        y = y + direct
        radius = radius + (width + 8) * 4 * _U * (size + y.abs())
    if system.offset is not None:
        y = y + system.offset
        radius = radius + 4 * _U * (y.abs() + system.offset.abs())
    return Enclosure(y, radius * (1 + 16 * _U))


def _double(x: Tensor) -> Tensor:
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)

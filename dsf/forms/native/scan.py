"""A step of `in_segments` in compiled code: the recurrence of real gates itself, one write and one read a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dsf.coupling import ScaledCoupling
from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core
from dsf.forms.segments import Cotangents, Kept, Step
from dsf.forms.workspace import Workspace
from dsf.structure import Diagonal, Discretised, Elementwise, Identity, Scalar
from dsf.system import System

from . import library
from .streams import (
    are_plain,
    decays,
    ends,
    ends_back,
    gradient,
    is_native,
    is_single,
    kept_states,
    result,
    room,
    state,
    threads,
    wide,
)

STEPS = 32  # of a piece: the state at its start is kept
_FEW = 4  # channels: torch takes heads side by side, compiled code channels
_CHANNELS = 128  # of a part of a head, `PART` in `scan.h`
_GATES = {Identity: 0, Scalar: 1, Diagonal: 2, Elementwise: 3, Discretised: 4}
_LEAVES = {Identity: (), Discretised: ("step", "rate")}
_SUMMED = ("decay", "write", "read")  # over channels, where they have no value axis


def admits(core: Core) -> bool:
    """Whether compiled code computes the scan of this core: else, and where channels are few, torch does."""
    write, keys, values = core.write, core.key_size, core.value_size
    if (
        values < _FEW
        or not is_single(core.read)
        or not (is_single(write) or isinstance(write, ScaledCoupling))
    ):
        return False
    gate, several = core.transition, core.length != 1
    if type(gate) is Discretised:
        step, rate = gate.leaves
        if step.shape[-2] != 1 or (rate.shape[1] != 1 and several):
            return False
    elif type(gate) is Elementwise:
        (leaf,) = gate.leaves
        if leaf.shape[-2:] != (keys, values) or (leaf.shape[1] == 1 and several):
            return False
    elif type(gate) not in _GATES:
        return False
    return are_plain((*core.tensors, core.memory)) and library.missing("scan") is None


def suits(system: System, values: int) -> bool:
    """Whether the core for so many values will be admitted, joined or not, as far as that is known; of gates alone."""
    if type(system.transition) not in (Identity, Scalar, Diagonal) or not is_native(system):
        return False
    single = is_single(system.write) and is_single(system.read)
    joined = system.key_size == values == 1 and not isinstance(system.transition, Diagonal)
    return single and (joined or values >= _FEW) and library.uncompilable("scan") is None


def can_join(core: Core) -> bool:
    """Whether the heads of a core are numbers, to be channels of one head (`join_heads`)."""
    numbers = core.key_size == core.value_size == 1 and isinstance(
        core.transition, Identity | Scalar
    )
    return numbers and is_single(core.write) and is_single(core.read)


@dataclass(frozen=True)
class NativeScan(Step):
    r"""h_i = a_i h_{i-1} + k_i (g_i u_i)ᵀ, y_i = h_iᵀ q_i, with a_i = e^{Δ_i A} formed on the way.

    Kept are the states at the start of every 32 steps; the way back makes those between anew.
    """

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor | InChunks, Tensor, Kept]:
        streams, sizes = _given(core, space)
        outputs, final, own = ends(core, space)
        kept = (kept_states(core, STEPS, space),) if space.keeps else ()
        streams |= own
        if kept:
            streams["starts"] = kept[0]
        library.call("scan", "forward", sizes, streams)
        return result(space, outputs), final, kept

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        streams, sizes = _given(core, space)
        of_memory, ends_of = ends_back(core, cotangents)
        leaves = dict(zip(_names(core), core.tensors, strict=True))
        found = {
            name: _room_for(name, streams[name], core, space)
            for name, leaf in leaves.items()
            if leaf.requires_grad
        }
        streams |= ends_of | {f"of {name}": x for name, x in found.items()}
        streams["starts"] = kept[0].contiguous()
        library.call("scan", "backward", sizes, streams)
        own = (
            _of_leaf(name, leaf, found[name], streams[name], core, space) if name in found else None
            for name, leaf in leaves.items()
        )
        return [of_memory, *own]


def _names(core: Core) -> tuple[str, ...]:
    """Of the streams that `core.tensors` are, in their order."""
    writes = ("write", "gain") if isinstance(core.write, ScaledCoupling) else ("write",)
    return (*_LEAVES.get(type(core.transition), ("decay",)), *writes, "read", "value")


def _given(core: Core, space: Workspace) -> tuple[dict[str, Tensor], list[int]]:
    (batch, heads, keys, values), gate = core.memory.shape, core.transition
    given = {"read": core.read.tensors[0], "value": core.tokens}
    given |= dict(zip(("write", "gain"), core.write.tensors, strict=False))
    if isinstance(gate, Scalar | Diagonal):
        given["decay"] = decays(gate, keys, space)
    elif isinstance(gate, Discretised):
        given["step"] = gate.step[..., 0, :].expand(*gate.step.shape[:3], values)
    elif isinstance(gate, Elementwise):
        given["decay"] = gate.leaves[0].flatten(3)
    streams = {name: wide(x, core) for name, x in given.items()}
    if isinstance(gate, Discretised):
        rate = gate.rate.detach()[:, 0].expand(core.memory.shape)
        streams["rate"] = state(rate)
    logs = type(gate) is Elementwise and gate.log is not None
    kind, own = _GATES[type(gate)], threads(core, heads * _parts(core))
    sizes = [batch, core.length, heads, keys, values, STEPS, kind, logs, own]
    return streams, sizes


def _parts(core: Core) -> int:
    return -(-core.value_size // _CHANNELS)


def _is_summed(name: str, core: Core) -> bool:
    return name in _SUMMED and not (name == "decay" and isinstance(core.transition, Elementwise))


def _room_for(name: str, stream: Tensor, core: Core, space: Workspace) -> Tensor:
    """Where the gradient of a stream goes: for each part of the channels where it is a sum over them."""
    parts = _parts(core) if _is_summed(name, core) else 1
    return room(space, f"of {name}", (parts * stream.shape[0], *stream.shape[1:]), stream)


def _of_leaf(
    name: str, leaf: Tensor, found: Tensor, stream: Tensor, core: Core, space: Workspace
) -> Tensor | InChunks | None:
    gate = core.transition
    if len(found) != len(stream):
        found = found.unflatten(0, (-1, len(stream))).sum(0)
    if name == "decay" and isinstance(gate, Scalar | Diagonal) and gate.log is not None:
        found = found.mul_(stream)
    if name == "rate" or (name == "decay" and isinstance(gate, Elementwise)):
        found = found.unflatten(3, core.memory.shape[2:])
    if name == "step":
        found = found[..., None, :]
    return gradient(space, found, leaf)

"""A step of `in_segments` in compiled code: chunks of real gates and rank one, one write and one read a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core
from dsf.forms.segments import Cotangents, Kept, Step
from dsf.forms.workspace import Workspace
from dsf.structure import DPLR, Diagonal, Identity, Scalar
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
    threads,
    wide,
)

_GATES = {Identity: 0, Scalar: 1, Diagonal: 2}
_FLAG = torch.empty(0, dtype=torch.bool)  # one number of this type: whether results are finite


def admits(core: Core) -> bool:
    """Whether compiled code computes the chunks of this core: where it does not, torch does."""
    plain = are_plain((*core.tensors, core.memory))
    return plain and _knows(core) and library.missing("chunks") is None


def suits(system: System) -> bool:
    """Whether its core will be admitted, as far as that is known without tokens; nothing is compiled."""
    return is_native(system) and _knows(system) and library.uncompilable("chunks") is None


def _knows(run: Core | System) -> bool:
    transition = run.transition
    if isinstance(transition, DPLR):
        known = transition.rank == 1
    else:
        known = isinstance(transition, Identity | Scalar | Diagonal)
    return known and is_single(run.write) and is_single(run.read)


@dataclass(frozen=True)
class NativeChunks(Step):
    """Chunks of 16 steps; kept are the state at the start of every `every` steps and, with low rank, w = Qᵀ h."""

    every: int

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor | InChunks, Tensor, Kept]:
        streams, sizes = self._given(core, space)
        outputs, final, own = ends(core, space)
        kept = self._kept(core, space)
        self._run("forward", sizes, streams | own | _named(kept), space)
        return result(space, outputs), final, kept

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        streams, sizes = self._given(core, space)
        of_memory, own = ends_back(core, cotangents)
        streams |= own | _named(kept)
        names = ("decay", "inner write", "late", "write", "read", "value")
        given = {name: streams[name] for name in names if name in streams}
        found = {name: room(space, f"of {name}", x.shape, x) for name, x in given.items()}
        self._run("backward", sizes, streams | {f"of {n}": x for n, x in found.items()}, space)
        gate = _gate(core)
        if not isinstance(gate, Identity) and gate.log is not None:
            found["decay"].mul_(given["decay"])
        pairs = zip(found.values(), core.tensors, strict=True)
        return [of_memory, *(gradient(space, x, leaf) for x, leaf in pairs)]

    def finite(self, found: Sequence[Tensor | InChunks | None], space: Workspace) -> bool:
        return bool(space("finite", (1,), _FLAG))

    def _run(
        self, name: str, sizes: list[int], streams: dict[str, Tensor], space: Workspace
    ) -> None:
        space("finite", (1,), _FLAG).fill_(library.call("chunks", name, sizes, streams))

    def _given(self, core: Core, space: Workspace) -> tuple[dict[str, Tensor], list[int]]:
        (batch, heads, keys, values), length = core.memory.shape, core.length
        gate, rank = _gate(core), isinstance(core.transition, DPLR)
        given = {
            "read": core.read.tensors[0],
            "write": core.write.tensors[0],
            "value": core.tokens,
        }
        if isinstance(core.transition, DPLR):
            given["inner write"] = core.transition.left[..., 0]
            given["late"] = core.transition.right[..., 0]
        if not isinstance(gate, Identity):
            given["decay"] = decays(gate, keys, space)
        kind, own = _GATES[type(gate)], threads(core, heads)
        sizes = [batch, length, heads, keys, values, self.every, kind, rank, own]
        return {name: wide(x, core) for name, x in given.items()}, sizes

    def _kept(self, core: Core, space: Workspace) -> Kept:
        if not space.keeps:
            return ()
        starts = kept_states(core, self.every, space)
        if not isinstance(core.transition, DPLR):
            return (starts,)
        return starts, space.keep("inner", (len(starts), self.every, core.value_size), core.memory)


def _named(kept: Kept) -> dict[str, Tensor]:
    return {name: x.contiguous() for name, x in zip(("starts", "inner"), kept, strict=False)}


def _gate(core: Core) -> Identity | Scalar | Diagonal:
    transition = core.transition
    gate = transition.gate if isinstance(transition, DPLR) else transition
    assert isinstance(gate, Identity | Scalar | Diagonal)
    return gate

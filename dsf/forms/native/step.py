"""A step of `in_segments` that runs compiled code: real gates and rank one, one write and one read a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn import Parameter

from dsf.coupling import OuterCoupling
from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core, over_time
from dsf.forms.segments import Cotangents, Kept, Step
from dsf.forms.workspace import Workspace, fresh
from dsf.structure import DPLR, Diagonal, Identity, Scalar

from . import library

_GATES = {Identity: 0, Scalar: 1, Diagonal: 2}
_WORTH_A_THREAD = 1 << 20  # multiply-adds
_FLAG = torch.empty(0, dtype=torch.bool)  # one number of this type: whether results are finite


def admits(core: Core) -> bool:
    """Whether compiled code computes this core: where it does not, torch does."""
    transition, write, read = core.transition, core.write, core.read
    if not isinstance(transition, DPLR | Identity | Scalar | Diagonal):
        return False
    if isinstance(transition, DPLR) and transition.rank != 1:
        return False
    if not all(isinstance(x, OuterCoupling) and x.several is None for x in (write, read)):
        return False
    tensors = (*core.tensors, core.memory)
    kinds = {(x.dtype, x.device.type) for x in tensors}
    if kinds not in ({(torch.float32, "cpu")}, {(torch.float64, "cpu")}):
        return False
    if torch.compiler.is_compiling() or not all(map(_is_plain, tensors)):
        return False
    return library.missing() is None


def _is_plain(x: Tensor) -> bool:
    """Numbers in memory and nothing else: no subclass, no tangent."""
    return type(x) in (Tensor, Parameter) and unpack_dual(x).tangent is None


@dataclass(frozen=True)
class NativeChunks(Step):
    """Chunks of 16 steps; kept are the state at the start of every `every` steps and, with low rank, w = Qᵀ h."""

    every: int

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor | InChunks, Tensor, Kept]:
        streams, sizes = self._streams(core, space)
        batch, heads, keys, values = core.memory.shape
        outputs = _room(space, "outputs", (batch, core.length, heads, values), core.memory)
        final, kept = core.memory.new_empty(core.memory.shape), self._kept(core, space)
        streams |= {"output": outputs, "memory": _state(core.memory), "final": _state(final)}
        if space.keeps:
            streams |= _named(kept)
        self._run("forward", sizes, streams, space)
        return _result(space, outputs), final, kept

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        streams, sizes = self._streams(core, space)
        above, of_last = cotangents
        of_memory = core.memory.new_empty(core.memory.shape)
        streams |= {
            "output": _contiguous(above),
            "final": _state(of_last.contiguous()),
            "of memory": _state(of_memory),
        }
        streams |= _named(kept)
        names = ("decay", "inner write", "late", "write", "read", "value")
        given = {name: streams[name] for name in names if name in streams}
        for name, x in given.items():
            streams[f"of {name}"] = _room(space, f"of {name}", x.shape, x)
        self._run("backward", sizes, streams, space)
        found = {name: streams[f"of {name}"] for name in given}
        gate = _gate(core)
        if not isinstance(gate, Identity) and gate.log is not None:
            found["decay"].mul_(given["decay"])
        pairs = zip(found.items(), core.tensors, strict=True)
        return [of_memory, *(_gradient(space, x, leaf) for (_, x), leaf in pairs)]

    def finite(self, found: Sequence[Tensor | InChunks | None], space: Workspace) -> bool:
        return bool(space("finite", (1,), _FLAG))

    def _run(
        self, name: str, sizes: list[int], streams: dict[str, Tensor], space: Workspace
    ) -> None:
        space("finite", (1,), _FLAG).fill_(library.call(name, sizes, streams))

    def _streams(self, core: Core, space: Workspace) -> tuple[dict[str, Tensor], list[int]]:
        (batch, heads, keys, values), length = core.memory.shape, core.length
        gate, rank = _gate(core), isinstance(core.transition, DPLR)

        def wide(x: Tensor) -> Tensor:
            return _contiguous(over_time(x, length).expand(batch, length, heads, *x.shape[3:]))

        streams = {
            "read": core.read.tensors[0],
            "write": core.write.tensors[0],
            "value": core.tokens,
        }
        if isinstance(core.transition, DPLR):
            streams["inner write"] = core.transition.left[..., 0]
            streams["late"] = core.transition.right[..., 0]
        if not isinstance(gate, Identity):
            decay = gate.leaves[0].detach()
            if gate.log is not None:
                decay = torch.exp(decay, out=space("decay", decay.shape, decay))
            shared = isinstance(gate, Scalar)
            streams["decay"] = decay[..., None] if shared else decay.expand(*decay.shape[:3], keys)
        streams = {name: wide(x.detach()) for name, x in streams.items()}
        work = length * keys * values * batch * heads
        threads = max(1, min(torch.get_num_threads(), batch * heads, work // _WORTH_A_THREAD))
        sizes = [batch, length, heads, keys, values, self.every, _GATES[type(gate)], rank, threads]
        return streams, sizes

    def _kept(self, core: Core, space: Workspace) -> Kept:
        if not space.keeps:
            return ()
        batch, heads, keys, values = core.memory.shape
        count = -(-core.length // self.every) * batch * heads
        starts = space.keep("states", (count, keys, values), core.memory)
        if not isinstance(core.transition, DPLR):
            return (starts,)
        return starts, space.keep("inner", (count, self.every, values), core.memory)


def _named(kept: Kept) -> dict[str, Tensor]:
    return {name: x.contiguous() for name, x in zip(("starts", "inner"), kept, strict=False)}


def _gate(core: Core) -> Identity | Scalar | Diagonal:
    transition = core.transition
    gate = transition.gate if isinstance(transition, DPLR) else transition
    assert isinstance(gate, Identity | Scalar | Diagonal)
    return gate


def _contiguous(x: Tensor) -> Tensor:
    """Each vector in one piece."""
    return x if x.shape[-1] == 1 or x.stride(-1) == 1 else x.contiguous()


def _state(x: Tensor) -> Tensor:
    """(B, H, K, V) as a stream of one step."""
    return x.flatten(2)[:, None]


def _room(space: Workspace, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory of its own where one piece is the whole run, or a buffer."""
    return fresh(shape, like) if space.pieces == 1 else space(name, shape, like)


def _result(space: Workspace, x: Tensor) -> Tensor | InChunks:
    return x if space.pieces == 1 else InChunks(x[:, None], x.shape[1])


def _gradient(space: Workspace, x: Tensor, leaf: Tensor) -> Tensor | InChunks | None:
    """That of a leaf, from that of its stream; summed where the leaf is constant."""
    if not leaf.requires_grad:
        return None
    if x.ndim > leaf.ndim:
        x = x[..., 0]
    elif x.ndim < leaf.ndim:
        x = x[..., None]
    return _result(space, x) if x.shape == leaf.shape else x.sum_to_size(leaf.shape)

"""Tensors of a core as what compiled code walks over, and its results as tensors again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from dsf.coupling import Coupling, OuterCoupling
from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core, over_time
from dsf.forms.segments import Cotangents
from dsf.forms.transforms import is_transformed
from dsf.forms.workspace import Workspace, fresh
from dsf.structure import Diagonal, Scalar
from dsf.system import System

_WORTH_A_THREAD = 1 << 20  # multiply-adds


def are_plain(tensors: Sequence[Tensor]) -> bool:
    """Real numbers of one type in memory and nothing else: no subclass, no tangent, nothing that is traced."""
    kinds = {(x.dtype, x.device.type) for x in tensors}
    if kinds not in ({(torch.float32, "cpu")}, {(torch.float64, "cpu")}):
        return False
    if torch.compiler.is_compiling() or is_transformed(*tensors):
        return False
    return all(type(x) in (Tensor, Parameter) for x in tensors)


def is_native(system: System) -> bool:
    """Whether a system's numbers are real and on a CPU."""
    return system.device.type == "cpu" and not system.is_complex


def is_single(coupling: Coupling) -> bool:
    """One vector a step, shared by all channels."""
    return type(coupling) is OuterCoupling and coupling.several is None


def decays(gate: Scalar | Diagonal, keys: int, space: Workspace) -> Tensor:
    """a (B, T, H, 1 or K), in a buffer where it is an exponential."""
    decay = gate.leaves[0].detach()
    if gate.log is not None:
        decay = torch.exp(decay, out=space("decay", decay.shape, decay))
    if isinstance(gate, Scalar):
        return decay[..., None]
    return decay.expand(*decay.shape[:3], keys)


def kept_states(core: Core, every: int, space: Workspace) -> Tensor:
    """Where the states at the start of every `every` steps are kept: (pieces · B · H, K, V)."""
    count = -(-core.length // every) * core.sequences
    return space.keep("states", (count, core.key_size, core.value_size), core.memory)


def wide(x: Tensor, core: Core) -> Tensor:
    """(B, T, H, …) with each vector in one piece, views where nothing is constant."""
    batch, heads = core.memory.shape[:2]
    x = over_time(x.detach(), core.length)
    return contiguous(x.expand(batch, core.length, heads, *x.shape[3:]))


def contiguous(x: Tensor) -> Tensor:
    """Each vector in one piece, no sign left to be taken when it is read."""
    x = x.resolve_neg()
    return x if x.shape[-1] == 1 or x.stride(-1) == 1 else x.contiguous()


def state(x: Tensor) -> Tensor:
    """(B, H, K, V) as a stream of one step."""
    return contiguous(x.flatten(2)[:, None])


def ends(core: Core, space: Workspace) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Room for the outputs and for the final memory; the streams of both and of the initial memory."""
    batch, heads, _, values = core.memory.shape
    outputs = room(space, "outputs", (batch, core.length, heads, values), core.memory)
    final = core.memory.new_empty(core.memory.shape)
    return outputs, final, {"output": outputs, "memory": state(core.memory), "final": state(final)}


def ends_back(core: Core, cotangents: Cotangents) -> tuple[Tensor, dict[str, Tensor]]:
    """Room for the gradient of the initial memory; the streams of it and of the cotangents."""
    above, of_last = cotangents
    of_memory = core.memory.new_empty(core.memory.shape)
    streams = {"output": contiguous(above), "final": state(of_last), "of memory": state(of_memory)}
    return of_memory, streams


def threads(core: Core, units: int) -> int:
    """How many threads share so many recurrences that do not know of each other."""
    batch, _, keys, values = core.memory.shape
    work = core.length * keys * values * core.sequences
    return max(1, min(torch.get_num_threads(), batch * units, work // _WORTH_A_THREAD))


def room(space: Workspace, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory of its own where one piece is the whole run, or a buffer."""
    return fresh(shape, like) if space.pieces == 1 else space(name, shape, like)


def result(space: Workspace, x: Tensor) -> Tensor | InChunks:
    """What a step hands over, from `room`."""
    return x if space.pieces == 1 else InChunks(x[:, None], x.shape[1])


def gradient(space: Workspace, x: Tensor, leaf: Tensor) -> Tensor | InChunks | None:
    """That of a leaf, from that of its stream; summed where the leaf is constant."""
    if not leaf.requires_grad:
        return None
    if x.ndim > leaf.ndim:
        x = x[..., 0]
    elif x.ndim < leaf.ndim:
        x = x[..., None]
    return result(space, x) if x.shape == leaf.shape else x.sum_to_size(leaf.shape)

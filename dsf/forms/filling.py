"""What a gated recurrence takes and gives, written straight into buffers of a run, and the way back."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, OuterCoupling, ScaledCoupling
from dsf.structure import Discretised, Identity
from dsf.structure.base import matmul
from dsf.structure.gates import Gate

from .core import Core, over_time
from .segments import gradients
from .workspace import Workspace

_FEW = 8  # sums of fewer terms than this are no matrix products


def fill_gates(core: Core, space: Workspace) -> Tensor:
    """a (B, T, H, K or 1, V or 1), in a buffer where it is an exponential; one for a memory that only adds."""
    gate = core.transition
    if isinstance(gate, Identity):
        return core.memory.new_ones(()).expand(1, core.length, 1, 1, 1)
    assert isinstance(gate, Gate)
    if isinstance(gate, Discretised):
        step, rate = map(_in_rows, gate.leaves)
        shape = torch.broadcast_shapes(step.shape, rate.shape)
        decay = space("gates", shape, rate if rate.is_complex() else step)
        torch.mul(step, rate, out=decay).exp_()
    elif gate.log is not None:
        log = _with_all_axes(gate.log)
        decay = torch.exp(log, out=space("gates", log.shape, log))
    else:
        assert gate.value is not None
        decay = _with_all_axes(gate.value)
    return over_time(decay, core.length)


def _with_all_axes(x: Tensor) -> Tensor:
    return x.reshape(*x.shape, *(1,) * (5 - x.ndim))


def _in_rows(x: Tensor) -> Tensor:
    """x with its last axis in a row: a transposed factor of a large product makes that six times slower."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def fill_increments(core: Core, space: Workspace) -> Tensor:
    """B u (B, T, H, K, V) in a buffer."""
    memory, tokens = core.memory, core.tokens
    shape = (memory.shape[0], core.length, *memory.shape[1:])
    return _outer(core.write, tokens, space("states", shape, memory), conj=False)


def fill_from_read(core: Core, of_outputs: Tensor, states: Tensor, space: Workspace) -> Tensor:
    """Cᴴ dy (B, T, H, K, V) in a buffer: the gradient of the states from the outputs."""
    return _outer(core.read, of_outputs, space("after", states.shape, states), conj=True)


def _outer(coupling: Coupling, values: Tensor, onto: Tensor, conj: bool) -> Tensor:
    """B u, or with `conj` Cᴴ y."""
    tensors = tuple(x.conj() if conj else x for x in coupling.tensors)
    if isinstance(coupling, ScaledCoupling):
        keys, gains = tensors
        left, right = keys[..., :, None], (gains * values)[..., None, :]
    elif isinstance(coupling, ChannelCoupling):
        left, right = tensors[0], values[..., None, :]
    elif isinstance(coupling, OuterCoupling) and coupling.several is None:
        left, right = tensors[0][..., :, None], values[..., None, :]
    elif conj:
        columns = values if isinstance(coupling, OuterCoupling) else values[..., None]
        return onto.copy_(matmul(tensors[0].mT, columns))
    else:
        return onto.copy_(coupling.inject(values))
    return torch.mul(left.expand(onto.shape), right, out=onto)


def gates_vjp(core: Core, gates: Tensor, states: Tensor, after: Tensor) -> list[Tensor | None]:
    """Gradients of the leaves of the transition from λ (`after`): λ_i h*_{i-1}, and through the exponential.

    Nothing is left of what was in `after` and, where the gates are held in factors, in `states`.
    """
    gate = core.transition
    if not any(leaf.requires_grad for leaf in gate.leaves):
        return [None] * len(gate.leaves)
    assert isinstance(gate, Gate)
    after[:, 1:].mul_(states[:, :-1].conj())
    after[:, 0].mul_(core.memory.conj())
    if not isinstance(gate, Discretised):
        (leaf,) = gate.leaves
        found = _summed(after, gates)
        if gate.log is not None:
            found = found * gates.conj()
        return [_as(_summed(found, _with_all_axes(leaf)), leaf).reshape(leaf.shape)]
    after.mul_(gates.conj())
    found = []
    for own, other in ((gate.step, gate.rate), (gate.rate, gate.step)):
        if own.requires_grad:
            torch.mul(after, _in_rows(other).conj(), out=states)
            found.append(_as(_summed(states, own), own))
        else:
            found.append(None)
    return found


def write_vjp(core: Core, after: Tensor) -> list[Tensor | None]:
    """Gradients of the write's tensors and of the tokens."""
    write, tokens = core.write, core.tokens
    wanted = [x.requires_grad for x in (*write.tensors, tokens)]
    if not any(wanted):
        return [None] * len(wanted)
    if isinstance(write, ScaledCoupling):
        keys, gains = write.tensors
        entered = _over_keys(after, keys)
        found = [_over_values(after, gains * tokens), entered * tokens.conj()]
        found.append(entered * gains.conj())
    elif isinstance(write, ChannelCoupling):
        found = [after * tokens[..., None, :].conj(), (after * write.weights.conj()).sum(-2)]
    elif isinstance(write, OuterCoupling) and write.several is None:
        found = [_over_values(after, tokens), _over_keys(after, write.weights)]
    else:
        return _by_autograd(write, tokens, after)
    return _in_place_of(found, (*write.tensors, tokens))


def read_vjp(core: Core, of_outputs: Tensor, states: Tensor) -> list[Tensor | None]:
    """The gradient of the read-out."""
    read = core.read
    (weights,) = read.tensors
    if not weights.requires_grad:
        return [None]
    if isinstance(read, ChannelCoupling):
        found = states.conj() * of_outputs[..., None, :]
    elif isinstance(read, OuterCoupling) and read.several is None:
        found = _over_values(of_outputs, states, matrix_second=True)
    elif isinstance(read, OuterCoupling):
        found = matmul(of_outputs, states.mH)
    else:
        found = of_outputs[..., None] * states.mH
    return _in_place_of([found], (weights,))


def _over_values(matrix: Tensor, vector: Tensor, matrix_second: bool = False) -> Tensor:
    """Σ_v m_kv x*_v, or Σ_v m*_kv x_v where the vector comes first."""
    if matrix_second:
        matrix, vector = vector.conj(), matrix
    else:
        vector = vector.conj()
    if matrix.shape[-1] < _FEW:
        return (matrix * vector[..., None, :]).sum(-1)
    return matmul(vector[..., None, :], matrix.mT)[..., 0, :]  # ten times faster than with a column


def _over_keys(matrix: Tensor, vector: Tensor) -> Tensor:
    """Σ_k m_kv x*_k."""
    if matrix.shape[-2] < _FEW:
        return (matrix * vector[..., :, None].conj()).sum(-2)
    return matmul(vector[..., None, :].conj(), matrix)[..., 0, :]


def _by_autograd(write: Coupling, tokens: Tensor, after: Tensor) -> list[Tensor | None]:
    with torch.enable_grad():
        entered = write.inject(tokens)
    cotangent = after.sum(1, keepdim=True) if entered.shape[1] < after.shape[1] else after
    return gradients((entered,), [*write.tensors, tokens], (_as(cotangent, entered),))


def _in_place_of(found: list[Tensor], leaves: tuple[Tensor, ...]) -> list[Tensor | None]:
    """Gradients in the shape and type of their leaves, None where none is asked for."""
    return [
        _as(_summed(x, leaf), leaf) if leaf.requires_grad else None
        for x, leaf in zip(found, leaves, strict=True)
    ]


def _as(x: Tensor, like: Tensor) -> Tensor:
    """The gradient x in the type of what it belongs to."""
    return x.real if x.is_complex() and not like.is_complex() else x


def _summed(x: Tensor, like: Tensor) -> Tensor:
    """x summed over the axes that a leaf shares."""
    axes = [i for i, (a, b) in enumerate(zip(x.shape, like.shape, strict=True)) if b == 1 != a]
    return x.sum(axes, keepdim=True) if axes else x

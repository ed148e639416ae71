"""All states of a gated recurrence, h_i = a_i ⊙ h_{i-1} + x_i, in place, with its own way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure.gates import Gate

from .core import Core, over_time
from .segments import Cotangents, Kept, Step, gradients
from .workspace import Workspace

_LARGE = 1 << 11  # states of so many numbers fill a call: then a loop over the steps is best


_CALL = 60_000  # multiply-adds that one call of a tensor operation costs
PASS = 15  # multiply-adds that reading or writing one number of a state costs


@dataclass(frozen=True)
class GatedScan(Step):
    """The step of `in_segments` for gates; its backward is the same recurrence, run the other way."""

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor, Tensor, Kept]:
        states = _states(_gates(core), _increments(core), core.memory)
        return core.read.extract(states), states[:, -1], ()

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> list[Tensor | None]:
        of_outputs, of_memory = cotangents
        with torch.enable_grad():
            gates, increments = _gates(core), _increments(core)
        states = _states(gates.detach(), increments.detach(), core.memory)
        with torch.enable_grad():
            leaf = states.requires_grad_()
            outputs = core.read.extract(leaf)
        weights = core.read.weights
        of_states, of_reads = gradients((outputs,), [leaf, weights], (of_outputs,))
        states = states.detach()
        after = torch.zeros_like(states) if of_states is None else of_states.clone()
        after[:, -1] += of_memory
        later = gates.detach().conj().to(states.dtype)
        accumulate(later[:, 1:], after, backward=True)
        of_gates = _summed(after[:, 1:] * states[:, :-1].conj(), gates[:, 1:])
        first = _summed(after[:, :1] * core.memory[:, None].conj(), gates[:, :1])
        found = gradients(
            (gates, increments),
            list(core.tensors),
            (_as(torch.cat([first, of_gates], 1), gates), _as(after, increments)),
        )
        reads = len(core.tensors) - 2  # the read-out's place in `Core.tensors`
        if of_reads is not None:
            found[reads] = of_reads
        return [after[:, 0] * later[:, 0], *found]


def operations(length: int, numbers: int) -> float:
    """The cost of `length` steps on states of `numbers`, in the unit of `Form.operations`."""
    if numbers >= _LARGE:
        return length * (_CALL + 2 * PASS * numbers)
    return 2 * PASS * length * numbers + 2 * length**0.5 * _CALL


def _gates(core: Core) -> Tensor:
    """a (B, T, H, K or 1, V or 1)."""
    transition = core.transition.linear()
    assert isinstance(transition, Gate)
    decay = over_time(transition.decay, core.length)
    return decay.reshape(*decay.shape, *(1,) * (5 - decay.ndim))


def _increments(core: Core) -> Tensor:
    found = over_time(core.write.inject(core.tokens), core.length)
    return found.expand(*found.shape[:3], *core.memory.shape[-2:])


def _states(gates: Tensor, increments: Tensor, memory: Tensor) -> Tensor:
    """The states, in the place of the increments wherever those have a number for each."""
    states = increments.to(memory.dtype).contiguous()
    states[:, 0].addcmul_(gates[:, 0].to(memory.dtype), memory)
    accumulate(gates[:, 1:].to(memory.dtype), states)
    return states


def accumulate(gates: Tensor, states: Tensor, backward: bool = False) -> None:
    """h_i += a_i h_{i-1} in place for i = 1 … T - 1, or h_{i-1} += a_i h_i from the last to the first.

    `states` (B, T, …), `gates` (B, T - 1, …) with a_1 first, broadcast against the states.
    """
    batch, length = states.shape[:2]
    numbers = states[:, 0].numel()
    width = max(1, round(length**0.5))
    if numbers >= _LARGE or width < 4:
        _one_by_one(gates, states, backward)
        return
    whole = length // width * width  # the rest, fewer than `width` steps, one by one
    edge = slice(None, whole) if not backward else slice(length - whole, None)
    blocks = states[:, edge].unflatten(1, (-1, width))
    inner = gates[:, : whole - 1] if not backward else gates[:, length - whole :]
    _in_blocks(inner, blocks, backward)
    if backward:
        _one_by_one(gates[:, : length - whole], states[:, : length - whole + 1], backward)
    else:
        _one_by_one(gates[:, whole - 1 :], states[:, whole - 1 :], backward)


def _one_by_one(gates: Tensor, states: Tensor, backward: bool) -> None:
    steps, factors = states.unbind(1), gates.unbind(1)
    if backward:
        for i in range(len(steps) - 1, 0, -1):
            steps[i - 1].addcmul_(factors[i - 1], steps[i])
    else:
        for i in range(1, len(steps)):
            steps[i].addcmul_(factors[i - 1], steps[i - 1])


def _in_blocks(gates: Tensor, blocks: Tensor, backward: bool) -> None:
    """Every block of steps (B, N, width, …) from zero at once, then the blocks one after another."""
    width = blocks.shape[2]
    end = torch.ones_like(gates[:, :1])
    joined = torch.cat([gates, end], 1) if backward else torch.cat([end, gates], 1)
    factors = joined.unflatten(1, (-1, width)).unbind(
        2
    )  # from the neighbour, for each place in a block
    steps = blocks.unbind(2)
    order = list(range(width))[:: -1 if backward else 1]
    reach = [factors[order[0]]]
    for earlier, place in zip(order, order[1:], strict=False):
        steps[place].addcmul_(factors[place], steps[earlier])
        reach.append(reach[-1] * factors[place])
    last = order[-1]
    carries = torch.zeros_like(steps[last])
    ends, carried, through = steps[last].unbind(1), carries.unbind(1), reach[-1].unbind(1)
    numbers = list(range(len(ends)))[:: -1 if backward else 1]
    for earlier, n in zip(numbers, numbers[1:], strict=False):
        torch.addcmul(ends[earlier], through[earlier], carried[earlier], out=carried[n])
    for place, product in zip(order, reach, strict=True):
        steps[place].addcmul_(product, carries)


def _as(x: Tensor, like: Tensor) -> Tensor:
    """The gradient x in the type of what it belongs to."""
    return x.real if x.is_complex() and not like.is_complex() else x


def _summed(x: Tensor, like: Tensor) -> Tensor:
    """x summed over the axes (K, V) that the gates share."""
    for axis in (3, 4):
        if like.shape[axis] == 1 != x.shape[axis]:
            x = x.sum(axis, keepdim=True)
    return x

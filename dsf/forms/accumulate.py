"""h_i += a_i h_{i-1} in place, forwards or backwards in time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LARGE = 1 << 11  # states of so many numbers fill a call: then a loop over the steps is best


def accumulate(gates: Tensor, states: Tensor, backward: bool = False) -> None:
    """h_i += a_i h_{i-1} in place for i = 1 … T - 1, or h_{i-1} += a_i h_i from the last to the first.

    `states` (B, T, …), `gates` (B, T - 1, …) with a_1 first, broadcast against the states.
    """
    length = states.shape[1]
    if length < 2:
        return
    numbers = states[:, 0].numel()
    width = max(1, round(length**0.5))
    if numbers >= LARGE or width < 4:
        one_by_one(gates.unbind(1), states.unbind(1), backward)
        return
    whole = length // width * width  # the rest, fewer than `width` steps, one by one
    edge = slice(None, whole) if not backward else slice(length - whole, None)
    blocks = states[:, edge].unflatten(1, (-1, width))
    inner = gates[:, : whole - 1] if not backward else gates[:, length - whole :]
    _in_blocks(inner, blocks, backward)
    rest = slice(None, length - whole + 1) if backward else slice(whole - 1, None)
    one_by_one(gates[:, rest].unbind(1), states[:, rest].unbind(1), backward)


def one_by_one(factors: Sequence[Tensor], steps: Sequence[Tensor], backward: bool) -> None:
    """The same with a call for every step, on steps (B, …) that are already apart."""
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
    factors = joined.unflatten(1, (-1, width)).unbind(2)  # for each place in a block
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

"""All states of a gated recurrence, h_i = a_i ⊙ h_{i-1} + x_i, in place, with its own way back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .accumulate import LARGE, accumulate, one_by_one
from .core import Core
from .filling import (
    fill_from_read,
    fill_gates,
    fill_increments,
    gates_vjp,
    read_vjp,
    write_vjp,
)
from .segments import Cotangents, Kept, Step
from .workspace import Workspace

_CALL = 60_000  # multiply-adds that one call of a tensor operation costs
PASS = 15  # multiply-adds that reading or writing one number of a state costs


@dataclass(frozen=True)
class GatedScan(Step):
    r"""The step of `in_segments` for gates: all states of a segment in one buffer, used again by the next.

    Its backward makes the states anew and runs the same recurrence the other way, λ_i = C_iᴴ dy_i +
    a*_{i+1} λ_{i+1}; the gradients are λ_i h*_{i-1} of the gates and λ_i of what enters.
    """

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor, Tensor, Kept]:
        states = _states(core, fill_gates(core, space), space)
        return core.read.extract(states), states[:, -1].clone(), ()

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> list[Tensor | None]:
        of_outputs, of_memory = cotangents[0].contiguous(), cotangents[1]
        gates = fill_gates(core, space)
        states = _states(core, gates, space)
        after = fill_from_read(core, of_outputs, states, space)
        after[:, -1] += of_memory
        later = gates.conj().to(states.dtype)
        _follow("after", later, after, space, backward=True)
        of_memory = after[:, 0] * later[:, 0]
        *of_write, of_tokens = write_vjp(core, after)
        of_read = read_vjp(core, of_outputs, states)
        of_gates = gates_vjp(core, gates, states, after)
        return [of_memory, *of_gates, *of_write, *of_read, of_tokens]


def operations(length: int, numbers: int) -> float:
    """The cost of `length` steps on states of `numbers`, in the unit of `Form.operations`."""
    if numbers >= LARGE:
        return length * (_CALL + 2 * PASS * numbers)
    return 2 * PASS * length * numbers + 2 * length**0.5 * _CALL


def _states(core: Core, gates: Tensor, space: Workspace) -> Tensor:
    """All states (B, T, H, K, V), in the place of what entered them."""
    states, kind = fill_increments(core, space), core.memory.dtype
    own = gates.to(kind)
    states[:, 0].addcmul_(own[:, 0], core.memory)
    _follow("states", own, states, space)
    return states


def _follow(
    name: str, gates: Tensor, states: Tensor, space: Workspace, backward: bool = False
) -> None:
    """Every step of the buffer `name` after the one before it, or before the one after it."""
    if states[:, 0].numel() < LARGE:
        accumulate(gates[:, 1:], states, backward)
        return
    one_by_one(space.steps("gates", gates)[1:], space.steps(name, states), backward)

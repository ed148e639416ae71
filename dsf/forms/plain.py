"""The recurrence in plain operations, out of place: what torch transforms, and differentiates as often as asked."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.structure import DPLR, Dense, Structure, compose

from .associative import Elements, associative_scan
from .core import Core, over_time


def plainly(core: Core) -> tuple[Tensor, Tensor]:
    """Outputs and final memory in plain operations: in log T calls where products of transitions are cheap, or T."""
    return loop(core) if isinstance(core.transition, DPLR | Dense) else prefix(core)


def loop(core: Core) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, …) and the final memory, by a Python loop over the steps."""
    memory, states = core.memory, []
    increments = over_time(core.write.inject(core.tokens), core.length).unbind(1)
    linear = core.transition.linear()
    leaves = [over_time(leaf, core.length).unbind(1) for leaf in linear.leaves]
    for step, increment in enumerate(increments):
        transition = linear.rebuild(tuple(leaf[step] for leaf in leaves))
        memory = transition.apply(memory) + increment
        states.append(memory)
    if not states:
        return core.empty_outputs(), memory
    return core.read.extract(torch.stack(states, 1)), memory


def prefix(core: Core) -> tuple[Tensor, Tensor]:
    """The same by an associative scan over all steps at once, for transitions whose products are of their kind."""
    if core.length == 0:
        return core.empty_outputs(), core.memory
    linear = core.transition.linear()
    transition = linear.map(lambda leaf, _: over_time(leaf, core.length))
    increments = over_time(core.write.inject(core.tokens), core.length)
    increments = increments.expand(*increments.shape[:3], *core.memory.shape[-2:])
    first = increments[:, :1] + transition.map(lambda leaf, _: leaf[:, :1]).apply(
        core.memory[:, None]
    )
    states = _all_states(transition, torch.cat([first, increments[:, 1:].to(first.dtype)], 1))
    return core.read.extract(states), states[:, -1]


def _all_states(transition: Structure, increments: Tensor) -> Tensor:
    def combine(a: Elements, b: Elements) -> Elements:
        earlier, later = transition.rebuild(a[:-1]), transition.rebuild(b[:-1])
        product = compose(later, earlier)
        return (*product.leaves, later.apply(a[-1]) + b[-1])

    return associative_scan(combine, (*transition.leaves, increments))[-1]

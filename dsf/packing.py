"""Sequences of different lengths: packed one after another, or padded in a batch.

Neither needs help from a form. A padding step is made neutral, Λ = I and B = 0, the identity of the
monoid of steps, so it changes no state and no later output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dsf.composition import concatenate
from dsf.errors import InvalidInput
from dsf.forms.base import Form
from dsf.forms.core import over_time
from dsf.state import State
from dsf.structure import Discretised, Structure
from dsf.system import System


def neutralise(system: System, valid: Tensor) -> System:
    """`system` with the steps where `valid` (B, T) is False made neutral: Λ = I, B = 0.

    The final state then is the state after the last valid step; outputs at neutral steps mean nothing.
    """
    if valid.ndim != 2 or valid.dtype != torch.bool:
        raise InvalidInput(
            f"`valid` must be boolean (B, T); got {valid.dtype} {tuple(valid.shape)}"
        )
    length = valid.shape[1]

    def keep(x: Tensor, otherwise: Tensor | float) -> Tensor:
        mask = valid.reshape(*valid.shape, *(1,) * (x.ndim - 2))
        return torch.where(mask, over_time(x, length), torch.as_tensor(otherwise).to(x))

    return replace(
        system,
        transition=_keep_transition(system.transition, keep),
        write=system.write.map(lambda x: keep(x, 0.0)),
        log_write=None if system.log_write is None else keep(system.log_write, -torch.inf),
    )


def _keep_transition(
    transition: Structure, keep: Callable[[Tensor, Tensor | float], Tensor]
) -> Structure:
    if isinstance(transition, Discretised):  # a step of length zero, at whatever rate
        return Discretised(keep(transition.step, 0.0), transition.rate)
    neutral = iter(transition.neutral())
    return transition.map(lambda leaf, _: keep(leaf, next(neutral)))


def mask_padding(system: System, lengths: Tensor) -> System:
    """A padded batch made right: steps from `lengths` (B,) on are neutral.

    A time-invariant system becomes one of the largest of these lengths.

    >>> from dsf.mixers import retnet
    >>> import dsf
    >>> q = torch.ones(2, 3, 1, 2)
    >>> system = mask_padding(retnet(q, q, decay=torch.tensor([0.5])), torch.tensor([3, 1]))
    >>> dsf.run(system, torch.ones(2, 3, 1, 1))[1].memory[:, 0, 0, 0]
    tensor([1.7500, 1.0000])
    """
    if lengths.ndim != 1 or lengths.dtype.is_floating_point:
        raise InvalidInput(
            f"`lengths` must be integers (B,); got {lengths.dtype} {tuple(lengths.shape)}"
        )
    length = int(lengths.max()) if system.length is None else system.length
    if bool((lengths < 0).any()) or bool((lengths > length).any()):
        raise InvalidInput(f"`lengths` must lie between 0 and T = {length}; got {lengths.tolist()}")
    steps = torch.arange(length, device=lengths.device)
    return neutralise(system.expand(length), steps[None] < lengths[:, None])


def pack(systems: Sequence[System]) -> System:
    """Systems of batch 1 one after another in time, with their boundaries.

    A system whose leaves all have T = 1 counts as one step; give a time-invariant one its length
    first, with `System.expand`.
    """
    if not systems or any(s.lead[0] != 1 or s.boundaries for s in systems):
        raise InvalidInput("`pack` takes at least one system, each of B = 1 and not packed itself")
    marks = [0]
    for system in systems:
        marks.append(marks[-1] + system.lead[1])
    return replace(concatenate(systems), boundaries=tuple(marks))


def unpack(system: System) -> list[System]:
    """The sequences of a packed system, each as a system of its own."""
    if system.boundaries is None:
        raise InvalidInput("the system is not packed: it has no `boundaries`")
    whole = replace(system, boundaries=None)
    marks = system.boundaries
    return [whole[a:b] for a, b in zip(marks, marks[1:], strict=False)]


def run_packed(
    system: System, tokens: Tensor, state: State | None, form: Form
) -> tuple[Tensor, State]:
    """Run packed sequences as padded batches of similar length, and put the results back in place.

    Lengths in one batch differ by less than a factor two, so at most half of its steps are padding.
    """
    from dsf.forms.run import run

    marks = system.boundaries
    assert marks is not None
    if tokens.shape[0] != 1 or tokens.shape[1] != marks[-1]:
        raise InvalidInput(
            f"packed `tokens` must have B = 1 and T = {marks[-1]}; got {tuple(tokens.shape[:2])}"
        )
    whole = replace(system, boundaries=None)
    outputs, places, states, order = [], [], [], []
    for group in _groups(marks, exact=system.is_time_invariant):
        index, valid = _positions(marks, group, tokens.device)
        batch, entering = _gather(whole, tokens, index, valid)
        start = None if state is None else state.map(lambda x, g=group: x[g])
        output, final = run(batch, entering, start, form=form)
        outputs.append(output[valid])
        places.append(index[valid])
        states.append(final)
        order += group
    back = torch.empty(len(order), dtype=torch.long, device=tokens.device)
    back[torch.tensor(order, device=tokens.device)] = torch.arange(len(order), device=tokens.device)
    inverse = torch.argsort(torch.cat(places))
    return torch.cat(outputs)[inverse][None], _join_states(states, back)


def _groups(marks: tuple[int, ...], exact: bool) -> list[list[int]]:
    """Sequence numbers of equal (or similar) length."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, (start, stop) in enumerate(zip(marks, marks[1:], strict=False)):
        length = stop - start
        groups[length if exact else length.bit_length()].append(number)
    return list(groups.values())


def _positions(
    marks: tuple[int, ...], group: list[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token positions (n, T) of a group of sequences, and which of them are valid."""
    starts = torch.tensor([marks[i] for i in group], device=device)
    lengths = torch.tensor([marks[i + 1] - marks[i] for i in group], device=device)
    steps = torch.arange(int(lengths.max()), device=device)
    valid = steps[None] < lengths[:, None]
    return torch.where(valid, starts[:, None] + steps[None], 0), valid


def _gather(system: System, tokens: Tensor, index: Tensor, valid: Tensor) -> tuple[System, Tensor]:
    def pick(x: Tensor) -> Tensor:
        return x if x.shape[1] == 1 and tokens.shape[1] != 1 else x[0, index]

    batch = system.map(pick)
    mask = valid.reshape(*valid.shape, *(1,) * (tokens.ndim - 2))
    entering = torch.where(mask, tokens[0, index], 0)
    return (batch if bool(valid.all()) else neutralise(batch, valid)), entering


def _join_states(states: list[State], back: Tensor) -> State:
    def join(name: str) -> Tensor | None:
        parts = [getattr(state, name) for state in states]
        return None if parts[0] is None else torch.cat(parts)[back]

    memory = join("memory")
    assert memory is not None
    names = states[0].carried
    carried = {name: torch.cat([s.carried[name] for s in states])[back] for name in names}
    return State(memory, join("normaliser"), join("stabiliser"), carried)

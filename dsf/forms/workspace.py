"""Memory that the pieces of one run share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


class Workspace:
    """Buffers by name, for tensors that one piece of a run makes and the next one has no use for.

    Each piece then works where the cache already is: a run in fresh memory spends half of its time
    on fetching lines to write to. What a step returns must not lie in a buffer.
    """

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        """Whether the steps are to give what they need on the way back."""
        self._held: dict[str, Tensor] = {}
        self._views: dict[str, Tensor] = {}
        self._steps: dict[str, tuple[Tensor, tuple[Tensor, ...]]] = {}

    def __call__(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """The buffer `name` in this shape, with the type of `like` and any content."""
        kind, view = (like.dtype, like.device), self._views.get(name)
        if view is not None and view.shape == tuple(shape) and (view.dtype, view.device) == kind:
            return view
        numbers, held = math.prod(shape), self._held.get(name)
        if held is None or held.numel() < numbers or (held.dtype, held.device) != kind:
            held = self._held[name] = like.new_empty(numbers)
        view = self._views[name] = held[:numbers].view(*shape)
        return view

    def steps(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        """Every time step of x (B, T, …), cut only once where x is the same buffer again."""
        held = self._steps.get(name)
        if held is None or held[0] is not x:
            held = self._steps[name] = x, x.unbind(1)
        return held[1]


def room(space: Workspace | None, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """A buffer of the workspace, or fresh memory where there is none."""
    return like.new_empty(shape) if space is None else space(name, shape, like)

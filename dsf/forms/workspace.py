"""Memory that the pieces of one run share."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Workspace:
    """Buffers by name, for tensors that one piece of a run makes and the next one has no use for.

    Each piece then works where the cache already is: a run in fresh memory spends half of its time
    on fetching lines to write to. What a step returns must not lie in a buffer.
    """

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        """Whether the steps are to give what they need on the way back."""
        self._held: dict[str, Tensor] = {}
        self._made: dict[Hashable, Any] = {}

    def __call__(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """The buffer `name` in this shape, with the type of `like` and any content."""
        numbers, held = math.prod(shape), self._held.get(name)
        if (
            held is None
            or held.numel() < numbers
            or (held.dtype, held.device) != (like.dtype, like.device)
        ):
            held = self._held[name] = like.new_empty(numbers)
        return held[:numbers].view(*shape)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once for this key: views of buffers that every piece cuts alike."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def room(space: Workspace | None, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """A buffer of the workspace, or fresh memory where there is none."""
    return like.new_empty(shape) if space is None else space(name, shape, like)

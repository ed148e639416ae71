"""Memory that the pieces of one run share."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

_NUMPY = {
    torch.float32: numpy.float32,
    torch.float64: numpy.float64,
    torch.complex64: numpy.complex64,
    torch.complex128: numpy.complex128,
}

_LINE = 64  # bytes

Made = TypeVar("Made")


class Workspace:
    """Buffers by name, for tensors that one piece of a run makes and the next one has no use for.

    Each piece then works where the cache already is: a run in fresh memory spends half of its time
    on fetching lines to write to. What a step returns must not lie in a buffer.
    """

    def __init__(self, keeps: bool, pieces: int = 0) -> None:
        self.keeps = keeps
        """Whether the steps are to give what they need on the way back."""
        self.pieces = pieces
        """Of the run, 0 where that is not known: what a piece keeps then has no place here."""
        self._kept: dict[str, Iterator[Tensor]] = {}
        self._held: dict[str, Tensor] = {}
        self._views: dict[str, Tensor] = {}
        self._steps: dict[str, tuple[Tensor, tuple[Tensor, ...]]] = {}
        self._made: dict[Hashable, Any] = {}

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

    def keep(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Memory of its own for one piece, out of one block for all pieces, the first of which is the largest."""
        numbers = math.prod(shape)
        if name not in self._kept:
            self._kept[name] = iter(fresh((self.pieces, numbers), like).unbind(0))
        return next(self._kept[name])[:numbers].view(*shape)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once for this key: views of buffers that every piece cuts alike."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def fresh(shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory of its own, with the type of `like` and any content.

    Where it is large NumPy allocates it: unlike torch it asks the system for large pages, and memory that is
    touched for the first time in small ones takes longer to fetch than to fill. It begins on a cache line, as torch's
    does: compiled code writes whole lines past the cache.
    """
    kind = _NUMPY.get(like.dtype)
    if kind is None or type(like) is not Tensor or like.device.type != "cpu":
        return like.new_empty(shape)
    numbers, size = math.prod(shape), numpy.dtype(kind).itemsize
    held = numpy.empty(numbers + _LINE // size, kind)
    first = -held.ctypes.data % _LINE // size
    return torch.from_numpy(held[first : first + numbers].reshape(tuple(shape)))


def room(space: Workspace | None, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """A buffer of the workspace, or fresh memory where there is none."""
    return like.new_empty(shape) if space is None else space(name, shape, like)

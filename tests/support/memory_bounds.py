"""Programs that are interpreted touch no memory but that of the tensors they were given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from triton.runtime import interpreter


class Spans:
    """The addresses of tensors, as half-open intervals [first, last) that do not overlap."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        pairs = sorted(span(x) for x in tensors if x.numel())
        self.first, self.last = [], []
        for first, last in pairs:
            if self.last and first <= self.last[-1]:
                self.last[-1] = max(self.last[-1], last)
            else:
                self.first.append(first)
                self.last.append(last)

    def require(self, at: np.ndarray, mask: np.ndarray, size: int, what: str) -> None:
        """Raise where an address that the mask lets through is none of these tensors'."""
        at = np.asarray(at)[np.asarray(mask).astype(bool)].astype(np.int64)
        if not at.size:
            return
        place = np.searchsorted(np.array(self.first, dtype=np.int64), at, side="right") - 1
        ends = np.array([*self.last, 0], dtype=np.int64)[place]
        wrong = (place < 0) | (at + size > ends)
        if wrong.any():
            raise IndexError(
                f"{what} of {int(wrong.sum())} numbers outside the tensors that were given"
            )


def span(x: torch.Tensor) -> tuple[int, int]:
    """Where a tensor's numbers lie."""
    reach = sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (reach + 1) * x.element_size()


class Checked:
    """The interpreter's memory, looked after."""

    def __init__(self, memory: Any) -> None:
        self._memory, self.spans = memory, Spans(())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def load(self, at: Any, mask: Any, other: Any, kind: Any) -> Any:
        self.spans.require(at, mask, np.dtype(kind).itemsize, "a load")
        return self._memory.load(at, mask, other, kind)

    def store(self, at: Any, value: Any, mask: Any) -> Any:
        self.spans.require(at, mask, value.dtype.itemsize, "a store")
        return self._memory.store(at, value, mask)

    def atomic_rmw(self, kind: Any, at: Any, value: Any, mask: Any, order: Any) -> Any:
        self.spans.require(at, mask, value.dtype.itemsize, "an atomic operation")
        return self._memory.atomic_rmw(kind, at, value, mask, order)


@contextmanager
def within_bounds() -> Iterator[None]:
    """Every program launched inside raises `IndexError` at an access outside its tensors."""
    memory, call = Checked(interpreter._interpreter), interpreter.GridExecutor.__call__

    def launch(self: Any, *given: Any, **named: Any) -> Any:
        memory.spans = Spans(tensors((*given, *named.values())))
        return call(self, *given, **named)

    with (
        mock.patch.object(interpreter, "_interpreter", memory),
        mock.patch.object(interpreter.GridExecutor, "__call__", launch),
    ):
        yield


def tensors(given: Iterable[Any]) -> Iterator[torch.Tensor]:
    for each in given:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, tuple | list):
            yield from tensors(each)

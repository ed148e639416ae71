"""The cache of states that steps change in place: rows of one state each, and the slots that sequences have."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.shapes import accumulator


def checked_cache(name: str, cache: Tensor, row: tuple[int, ...], axes: str, like: Tensor) -> None:
    """Raise `InvalidInput` unless the cache is (rows, *row) of the accumulator's type, each row contiguous."""
    if cache.ndim != 1 + len(row) or tuple(cache.shape[1:]) != row:
        sizes = ", ".join(map(str, row))
        raise InvalidInput(
            f"`{name}` must be (rows, {sizes}): (rows, {axes}); got {tuple(cache.shape)}"
        )
    if cache.dtype != accumulator(like) or cache.device != like.device:
        raise InvalidInput(
            f"`{name}` is changed in place, so it must be {accumulator(like)} on {like.device}; "
            f"got {cache.dtype} on {cache.device}"
        )
    if not cache.numel():
        return
    expected = 1
    for size, stride in zip(reversed(cache.shape[1:]), reversed(cache.stride()[1:]), strict=True):
        if size != 1 and stride != expected:
            raise InvalidInput(
                f"each row of `{name}` must be contiguous; got strides {cache.stride()}"
            )
        expected *= size
    if cache.shape[0] > 1 and cache.stride(0) < expected:
        raise InvalidInput(f"the rows of `{name}` overlap; got strides {cache.stride()}")


def checked_slots(slots: Tensor | None, cache: Tensor, sequences: int) -> None:
    """Raise `InvalidInput` unless there is a slot per sequence, or a row for each where none is given."""
    if slots is None:
        if cache.shape[0] != sequences:
            raise InvalidInput(
                f"{sequences} sequences need as many rows; the cache has {cache.shape[0]}: give `slots`"
            )
        return
    if slots.dtype not in (torch.int32, torch.int64) or tuple(slots.shape) != (sequences,):
        raise InvalidInput(
            f"`slots` must be ({sequences},) of int32 or int64; got {tuple(slots.shape)} {slots.dtype}"
        )
    if slots.device != cache.device:
        raise InvalidInput(f"`slots` must be on {cache.device}; got {slots.device}")


def active(slots: Tensor | None, cache: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
    """The sequences that are not at rest, and their rows; raises `InvalidInput` for rows that cannot be."""
    if slots is None:
        every = torch.arange(sequences, device=cache.device)
        return every, every
    here = torch.nonzero(slots >= 0)[:, 0]
    rows = slots[here].to(torch.int64)
    if rows.numel() and int(rows.max()) >= cache.shape[0]:
        raise InvalidInput(
            f"`slots` go from -1 (at rest) to {cache.shape[0] - 1}; got {slots.tolist()}"
        )
    if rows.unique().numel() != rows.numel():
        raise InvalidInput(f"two sequences cannot have one slot; got {slots.tolist()}")
    return here, rows


def contiguous(x: Tensor | None) -> Tensor | None:
    """An optional tensor with its numbers in a row."""
    return None if x is None else x.contiguous()


def bytes_of_step(cache: Tensor, sequences: int, *tensors: Tensor | None) -> int:
    r"""What one step must move: 2 · sequences · (bytes of one state) + Σ (bytes of `tensors`).

    The state of every active sequence is read and written once, and each other tensor (q, k, v, gates, the output)
    once: the least that any kernel moves, which the memory's bandwidth turns into the shortest time of a step. A
    state with more than 256 keys is read twice where something is erased: that is the kernel's loss, not counted here.
    Several caches (mLSTM) are several calls. Nothing is read: tensors on the device "meta" do.

    >>> import torch
    >>> from dsf.kernels import bytes_of_step
    >>> state = torch.empty(64, 16, 128, 128, device="meta")
    >>> q = torch.empty(32, 16, 128, device="meta", dtype=torch.bfloat16)
    >>> bytes_of_step(state, 32, q, q, q, q) / 2**20  # q, k, v and the output
    64.5
    """
    moved = 2 * sequences * cache.shape[1:].numel() * cache.element_size()
    return moved + sum(x.numel() * x.element_size() for x in tensors if x is not None)

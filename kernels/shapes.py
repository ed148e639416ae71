"""Shapes that kernels take: heads that share keys, and sequences packed into one row of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.forms.workspace import fresh


@dataclass(frozen=True, eq=False)
class Packing:
    """`sequences` of `length` tokens each, or, with `starts` (N + 1,), packed one after the other."""

    sequences: int
    length: int
    starts: Tensor | None = None

    @classmethod
    def of(cls, q: Tensor, starts: Tensor | None, axes: int = 4) -> Packing:
        """From tokens (B, T, …) and the places where packed sequences start; raises `InvalidInput`."""
        if q.ndim != axes:
            names = "(B, T, H, channels)" if axes == 4 else "(B, T, channels)"
            raise InvalidInput(f"tensors are {names}; got {q.ndim} axes")
        if starts is None:
            return cls(q.shape[0], q.shape[1])
        if q.shape[0] != 1:
            raise InvalidInput(f"packed sequences lie in one row of tokens; got B = {q.shape[0]}")
        at = starts.to(torch.int64)
        if at.ndim != 1 or len(at) < 1 or int(at[0]) != 0 or int(at[-1]) != q.shape[1]:
            raise InvalidInput(f"`starts` goes from 0 to T = {q.shape[1]}; got {starts.tolist()}")
        if bool((at.diff() < 0).any()):
            raise InvalidInput("`starts` must not fall")
        return cls(len(at) - 1, q.shape[1], at.to(q.device).contiguous())

    @property
    def longest(self) -> int:
        """The steps of the longest sequence."""
        if self.starts is None:
            return self.length
        return int(self.starts.diff().max()) if self.sequences else 0

    def slots(self, steps: int) -> int:
        """How many blocks of so many steps there are room for, so that the device is not asked.

        Block n of a packed sequence lies at ⌊start / steps⌋ + its number + n.
        """
        if self.starts is None:
            return self.sequences * -(-self.length // steps)
        return self.length // steps + self.sequences if self.sequences else 0

    def owners(self, steps: int) -> Tensor | None:
        """Which sequence the block in each slot is of; None where none is packed."""
        if self.starts is None:
            return None
        numbers = torch.arange(self.slots(steps), device=self.starts.device)
        first = self.starts[:-1] // steps + numbers[: self.sequences]
        return torch.searchsorted(first, numbers, right=True) - 1


def checked_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor | None,
    sequences: int,
    *,
    per_key: bool = False,
) -> Tensor:
    """The initial state, zero where it is not given, once all shapes and types fit; raises `InvalidInput`."""
    B, T, _, K = q.shape
    kind = f"({B}, {T}, H), a log-decay per step"
    if per_key:
        kind = f"({B}, {T}, H, {K}), a log-decay per step and key"
    if g.ndim != 3 + per_key or g.shape[:2] != (B, T) or g.shape[3:] not in ((), (K,)):
        raise InvalidInput(f"`g` must be {kind}; got {tuple(g.shape)}")
    H = g.shape[2]
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4 or x.shape[:2] != (B, T):
            raise InvalidInput(
                f"`{name}` must be ({B}, {T}, heads, channels); got {tuple(x.shape)}"
            )
        if not x.shape[2] or H % x.shape[2]:
            raise InvalidInput(f"the {H} heads of `g` cannot share the {x.shape[2]} of `{name}`")
    if k.shape[3] != K:
        raise InvalidInput(f"`k` has {k.shape[3]} channels, `q` has {K}; they must agree")
    shape = (sequences, H, K, v.shape[3])
    if state is None:
        return torch.zeros(shape, device=v.device)
    if state.shape != shape:
        raise InvalidInput(f"the state must be {shape}: (N, H, K, V); got {tuple(state.shape)}")
    return state


def accumulator(x: Tensor) -> torch.dtype:
    """The type of states and sums for data like x: float32, or as wide as x."""
    return torch.promote_types(x.dtype, torch.float32)


def room(shape: tuple[Any, ...], like: Tensor) -> Tensor:
    """Memory with any content, of a shape that may be of symbols, in the type of `like`."""
    return fresh(shape, like) if type(like) is Tensor else like.new_empty(shape)


def plain(x: Tensor) -> Tensor:
    """x as its numbers lie in memory: contiguous, no conjugate or negative left to be taken when it is read."""
    return x.resolve_conj().resolve_neg().contiguous()


def repeated(x: Tensor, heads: int) -> Tensor:
    """Every head of x (B, T, h, ·) as often as it is read, (B, T, H, ·); x itself where none is shared."""
    if x.shape[2] == heads:
        return x
    return x.repeat_interleave(heads // x.shape[2], dim=2)


def per_head(x: Tensor, heads: int, *, wide: bool = False) -> Tensor:
    """Room for the gradient of every head: in the type of x, in float32 if `wide` or still to be summed over heads."""
    narrow = x.shape[2] == heads and not wide
    dtype = x.dtype if narrow else torch.float32
    return x.new_empty(*x.shape[:2], heads, x.shape[3], dtype=dtype)


def shared(gradient: Tensor, like: Tensor) -> Tensor:
    """The sum over the heads that read one head of `like`, in its type."""
    if gradient.shape[2] != like.shape[2]:
        gradient = gradient.unflatten(2, (like.shape[2], -1)).sum(3)
    return gradient.to(like.dtype)


def windows(state: Tensor, length: int, starts: Tensor | None) -> list[tuple[slice, Tensor]]:
    """The steps of each run over time, and its initial states: one run, or one per packed sequence."""
    if starts is None:
        return [(slice(0, length), state)]
    pairs = starts.unfold(0, 2, 1).tolist() if len(starts) > 1 else []
    return [(slice(*pair), state[n : n + 1]) for n, pair in enumerate(pairs)]

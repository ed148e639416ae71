r"""One axis of a Generalized Neighborhood Attention (GNA) pattern: which keys a query sees.

With dilation $d$ the axis falls apart into $d$ groups $g$; query $x = i d + g$ has the inner
coordinate $i$ and sees keys of its own group alone. In a group of $n$ tokens, with window $w$ and
stride $s$, the visible keys are one interval $[\text{start}, \text{end})$:

    start = clamp(⌊i/s⌋ s + shift, 0, n - w)
    bidirectional:  shift = ⌊s/2⌋ - ⌊w/2⌋,  end = start + w
    causal:         shift = s - w,          end = i + 1

so that the queries of a stride group share the window of their leader, its (right-hand) middle or,
where causal, its last. Both ends are monotone in $i$, and since $s \leq w$ neighbouring intervals
touch or overlap, so the keys of a run of queries are one interval too: [start(first), end(last)).
All counts rest on this.

Source: Hassani et al. 2025 (arXiv 2504.16922), section 3; edge and rounding rules as in NATTEN 0.21.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsf.errors import InvalidInput


@dataclass(frozen=True)
class Axis:
    """Length, window, stride, dilation and causality of one axis, in tokens.

    `name` only serves messages. Raises `InvalidInput` where NATTEN would raise: a window below 2,
    window times dilation over the length, a stride over the window.

    >>> axis = Axis(length=10, window=4, stride=2)
    >>> [axis.interval(i, 10) for i in (0, 5, 9)]
    [(0, 4), (3, 7), (6, 10)]
    """

    length: int
    window: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False
    name: str = field(default="the axis", compare=False)

    def __post_init__(self) -> None:
        length, window, stride, dilation = self.length, self.window, self.stride, self.dilation
        integers = type(length) is type(window) is type(stride) is type(dilation) is int
        if not (
            integers
            and 2 <= window <= length
            and window * dilation <= length
            and 1 <= stride <= window
            and dilation >= 1
            and type(self.causal) is bool
        ):
            raise InvalidInput(f"{self.name}: {self._fault()}")

    def _fault(self) -> str:
        """The first rule that is broken, the value given, and the nearest one that is allowed."""
        for key in ("length", "window", "stride", "dilation"):
            value = getattr(self, key)
            if type(value) is not int:
                return f"{key} must be an integer; {value!r} was given"
        if type(self.causal) is not bool:
            return f"causal must be a bool; {self.causal!r} was given"
        for key, least in (("length", 2), ("window", 2), ("stride", 1), ("dilation", 1)):
            if (value := getattr(self, key)) < least:
                return f"{key} {value} was given, but it must be at least {least}{_nearest(least)}"
        if self.stride > self.window:
            return (
                f"stride {self.stride} was given, but it must not be over the window "
                f"{self.window}{_nearest(self.window)}"
            )
        if (widest := self.length // self.dilation) >= 2:
            times = f" times dilation {self.dilation}" if self.dilation > 1 else ""
            return (
                f"window {self.window} was given, but it{times} must not be over the length "
                f"{self.length}{_nearest(widest)}"
            )
        return (
            f"dilation {self.dilation} was given, but it times window {self.window} must not be "
            f"over the length {self.length}{_nearest(max(self.length // self.window, 1))}"
        )

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """The sizes of the dilation groups, each with how many groups have it.

        >>> Axis(length=10, window=2, dilation=4).groups
        ((3, 2), (2, 2))
        """
        size, longer = divmod(self.length, self.dilation)
        if not longer:
            return ((size, self.dilation),)
        return ((size + 1, longer), (size, self.dilation - longer))

    @property
    def shift(self) -> int:
        """Where the window of a stride group begins, from the group's first token."""
        stride, window = self.stride, self.window
        return stride - window if self.causal else stride // 2 - window // 2

    def interval(self, query: int, size: int) -> tuple[int, int]:
        """Start and end of the keys that inner coordinate `query` sees in a group of `size` tokens."""
        start = query // self.stride * self.stride + self.shift
        start = max(min(start, size - self.window), 0)
        return start, query + 1 if self.causal else start + self.window

    def intervals(self, queries: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """`interval` of many queries at once: two int64 arrays of the shape of `queries`."""
        start = queries // self.stride * self.stride + self.shift
        start = np.maximum(np.minimum(start, size - self.window), 0)
        return start, queries + 1 if self.causal else start + self.window

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs are visible, in closed form.

        >>> Axis(length=10, window=4).pairs, Axis(length=10, window=4, causal=True).pairs
        (40, 34)
        """
        return sum(many * self._pairs(size) for size, many in self.groups)

    def _pairs(self, size: int) -> int:
        window, stride = self.window, self.stride
        if not self.causal:
            return size * window
        # The sum of the ends, less the starts: stride groups whose leader has g·s + s >= w start
        # late, all of them whole but the last, whose leader is the last token.
        whole, rest = divmod(size, stride)
        first = max(-(-window // stride) - 1, 0)
        late = max(whole - first, 0)
        starts = stride * (late * (stride - window) + stride * (first + whole - 1) * late // 2)
        if rest:
            starts += rest * max(size - window, 0)
        return size * (size + 1) // 2 - starts


def _nearest(value: int) -> str:
    return f"; the nearest valid value is {value}"

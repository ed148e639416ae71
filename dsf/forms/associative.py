"""A parallel prefix over any associative operation, along the time axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Elements = tuple[Tensor, ...]
Combine = Callable[[Elements, Elements], Elements]


def associative_scan(combine: Combine, elements: Elements) -> Elements:
    r"""Prefixes e₁, e₁∘e₂, …, by recursive halving: O(T) work in O(log T) calls.

    `elements` are tensors with time as axis 1; `combine(first, second)` acts on two such tuples.
    Each prefix is built from its own past alone, so a NaN never travels backwards.

    >>> (sums,) = associative_scan(lambda a, b: (a[0] + b[0],), (torch.arange(5.0)[None],))
    >>> sums
    tensor([[ 0.,  1.,  3.,  6., 10.]])
    """
    length = elements[0].shape[1]
    if length < 2:
        return elements
    pairs = combine(
        tuple(x[:, 0 : length - 1 : 2] for x in elements), tuple(x[:, 1::2] for x in elements)
    )
    odd = associative_scan(combine, pairs)
    later = tuple(x[:, 2::2] for x in elements)
    count = later[0].shape[1]
    even = combine(tuple(x[:, :count] for x in odd), later) if count else later
    return tuple(
        _interleave(torch.cat([x[:, :1], e], 1), o)
        for x, e, o in zip(elements, even, odd, strict=True)
    )


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    half = odd.shape[1]
    paired = torch.stack([even[:, :half], odd], 2).flatten(1, 2)
    return paired if even.shape[1] == half else torch.cat([paired, even[:, half:]], 1)


def running_maximum(log_decay: Tensor, log_write: Tensor, start: Tensor) -> Tensor:
    r"""m_i = max(log f_i + m_{i-1}, ĩ_i) for logs (B, T, H) and m_0 (B, H); max-plus, so -inf is safe."""
    if log_write.shape[1] == 0:
        return log_write
    first = torch.maximum(log_decay[:, :1] + start[:, None], log_write[:, :1])
    values = torch.cat([first, log_write[:, 1:]], 1)

    def combine(a: Elements, b: Elements) -> Elements:
        return a[0] + b[0], torch.maximum(a[1] + b[0], b[1])

    return associative_scan(combine, (log_decay, values))[1]

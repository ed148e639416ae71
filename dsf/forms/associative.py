"""A parallel prefix over any associative operation, along the time axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .transforms import is_followed

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
    if type(values) is Tensor and not is_followed(values, log_decay):
        return _maximum_in_blocks(log_decay, values)

    def combine(a: Elements, b: Elements) -> Elements:
        return a[0] + b[0], torch.maximum(a[1] + b[0], b[1])

    return associative_scan(combine, (log_decay, values))[1]


def _maximum_in_blocks(log_decay: Tensor, values: Tensor) -> Tensor:
    """The running maximum in place of `values`: every block alone, all at once, then block after block."""
    length = values.shape[1]
    width = max(1, round(length**0.5))
    whole = length // width * width
    blocks, decays = (x[:, :whole].unflatten(1, (-1, width)) for x in (values, log_decay))
    steps, reach = blocks.unbind(2), [decays[:, :, 0]]
    for i in range(1, width):
        decay = decays[:, :, i]
        torch.maximum(steps[i], steps[i - 1] + decay, out=steps[i])
        reach.append(reach[-1] + decay)
    own, far = blocks.unbind(1), torch.stack(reach, 2).unbind(1)
    for n in range(1, len(own)):
        torch.maximum(own[n], far[n].add_(own[n - 1][:, -1:]), out=own[n])
    for i in range(whole, length):
        torch.maximum(values[:, i], values[:, i - 1] + log_decay[:, i], out=values[:, i])
    return values

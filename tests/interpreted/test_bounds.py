"""The watch over memory sees an access outside the tensors of a program, and none inside."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def doubled(x, y, length, WIDTH: tl.constexpr):
    at = tl.arange(0, WIDTH)
    tl.store(y + at, 2 * tl.load(x + at, mask=at < length), mask=at < length)


@pytest.mark.parametrize("which", ["load", "store", "before"])
def test_an_access_outside_is_seen(which: str) -> None:
    buffer = torch.arange(16.0)
    x, y = buffer[4:9], torch.empty(5)
    doubled[(1,)](x, y, 5, WIDTH=8)
    assert torch.equal(y, 2 * x)
    given = {
        "load": (buffer[:4], torch.empty(5)),
        "store": (x, torch.empty(8)[:4]),
        "before": (x, torch.empty(0)),
    }
    with pytest.raises(Exception, match="outside the tensors"):
        doubled[(1,)](*given[which], 5, WIDTH=8)

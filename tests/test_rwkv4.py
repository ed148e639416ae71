"""RWKV-4 beyond its formula: keys of any size, a run that goes on, and the running maximum behind it."""

from __future__ import annotations

import pytest
import torch
from lawbook import laws

from dsf.forms import run
from dsf.forms.associative import running_maximum
from dsf.mixers.rwkv4 import rwkv4, sum_of_weights
from dsf.numerics import require_within
from dsf.structure import Scalar

LEAD = (2, 23, 3)


def drawn(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return [normal(*LEAD), normal(3).exp(), normal(3), normal(*LEAD, 1)]


@pytest.mark.parametrize("cut", [1, 2, 11, 22])
def test_goes_on_from_the_sum_of_its_weights(cut: int) -> None:
    k, w, u, v = drawn()
    whole = rwkv4(k, w, u)
    expected, last = run(whole, v)
    first, state = run(rwkv4(k[:, :cut], w, u), v[:, :cut])
    past = sum_of_weights(k[:, :cut], w)
    rest, end = run(rwkv4(k[:, cut:], w, u, past=past), v[:, cut:], state)
    bound = laws.error_bound(whole, v, form="recurrent")
    require_within(torch.cat([first, rest], 1), expected, 4 * bound.outputs, "outputs")
    require_within(end.memory, last.memory, 4 * bound.memory, "state")
    for whole_sum, sum_of_parts in zip(
        sum_of_weights(k, w), sum_of_weights(k[:, cut:], w, past), strict=True
    ):
        slack = 64 * torch.finfo(k.dtype).eps * (1 + whole_sum.abs())
        require_within(sum_of_parts, whole_sum, slack, "sum of weights")


@pytest.mark.parametrize("offset", [0.0, 2.0**20, -(2.0**20)])
def test_a_weight_common_to_all_keys_changes_nothing(offset: float) -> None:
    """The keys are rounded to multiples of 2^-20 first, so that the sum is exact in float64."""
    k, _, u, v = drawn(1)
    k, u, w = (torch.round(x * 2**20) / 2**20 for x in (k, u, torch.zeros(3, dtype=k.dtype)))
    expected, _ = run(rwkv4(k, w, u), v)
    shifted, _ = run(rwkv4(k + offset, w, u), v)
    assert torch.equal(shifted, expected)


def test_averages_are_convex() -> None:
    k, w, u, v = drawn(2)
    system = rwkv4(30 * k, w, u)
    assert isinstance(system.transition, Scalar) and isinstance(system.feedthrough, Scalar)
    total = system.transition.decay + system.write.weights[..., 0]
    mixed = system.feedthrough.decay + system.read.weights[..., 0]
    for found in (total, mixed):
        slack = torch.tensor(16 * torch.finfo(k.dtype).eps)
        require_within(found, torch.ones_like(found), slack, "sum of shares")
    outputs, _ = run(system, torch.ones_like(v))
    bound = laws.error_bound(system, torch.ones_like(v), form="recurrent").outputs
    require_within(outputs, torch.ones_like(v), 4 * bound, "an average of ones")


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 100, 101])
def test_the_running_maximum_is_the_loop(length: int) -> None:
    """In whole numbers every order of the additions is exact; -inf is no special case."""
    generator = torch.Generator().manual_seed(3)
    decay = -torch.randint(0, 4, (2, length, 3), generator=generator).double()
    write = torch.randint(-9, 9, (2, length, 3), generator=generator).double()
    decay[0, length // 2], write[1, : length // 3] = -torch.inf, -torch.inf
    start = torch.full((2, 3), -torch.inf, dtype=torch.float64)
    start[:, 0] = 2.0
    m, expected = start, []
    for i in range(length):
        m = torch.maximum(decay[:, i] + m, write[:, i])
        expected.append(m)
    assert torch.equal(running_maximum(decay, write, start), torch.stack(expected, 1))
    leaf = write.clone().requires_grad_()
    assert torch.equal(running_maximum(decay, leaf, start), torch.stack(expected, 1))

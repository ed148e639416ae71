"""The operator of the selective scan on the CPU: the recurrence of S6, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dsf
from dsf.coupling import ChannelCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.forms import scan
from dsf.forms.bounds import error_bound
from dsf.kernels import elementwise_scan, selective_scan
from dsf.mixers import s6
from dsf.numerics import require_within
from dsf.state import State
from dsf.structure import Elementwise
from dsf.system import System


def drawn(length: int, groups: int = 1, channels: int = 4, states: int = 3) -> list[Tensor]:
    """x, Δ, A, b, c and a state in float64, two in a batch."""
    draw = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    x, delta, A = normal(2, length, channels), normal(2, length, channels), normal(channels, states)
    b, c = normal(2, length, groups, states), normal(2, length, groups, states)
    return [x, delta.abs(), -A.abs(), b, c, normal(2, channels, states)]


@pytest.mark.parametrize("length", [0, 1, 19, 300])
def test_operator_is_the_recurrence(length: int) -> None:
    leaves = [x.requires_grad_() for x in drawn(length)]
    x, delta, A, b, c, state = leaves
    skip = torch.linspace(-1, 1, 4, dtype=torch.float64)
    y, final = selective_scan(*leaves, skip=skip)
    system = s6(delta, A, b[:, :, 0], c[:, :, 0], skip=skip)
    start = State(state.mT[:, None])
    expected, end = dsf.run(system, x[:, :, None], start, form="recurrent")
    limits = error_bound(system, x[:, :, None], start, form="scan")
    require_within(y, expected[:, :, 0], 2 * limits.outputs[:, :, 0], "outputs")
    require_within(final, end.memory[:, 0].mT, 2 * limits.memory[:, 0].mT, "last states")


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_by_differences(groups: int) -> None:
    leaves = [x.requires_grad_() for x in drawn(19, groups)]
    skip = torch.linspace(-1, 1, 4, dtype=torch.float64, requires_grad=True)

    def skipping(skip: Tensor, *leaves: Tensor):
        return selective_scan(*leaves, skip=skip)

    assert torch.autograd.gradcheck(selective_scan, leaves, fast_mode=True)
    assert torch.autograd.gradcheck(skipping, (skip, *leaves), fast_mode=True)
    x, delta, A, b, c, _ = leaves
    one = [each[:1].detach().requires_grad_() for each in (x, delta, b, c)]
    states = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)

    def packed(x: Tensor, delta: Tensor, b: Tensor, c: Tensor, state: Tensor):
        return selective_scan(x, delta, A, b, c, state, starts=torch.tensor([0, 17, 17, 19]))

    assert torch.autograd.gradcheck(packed, (*one, states), fast_mode=True)


@pytest.mark.parametrize("starts", [None, (0, 50, 50, 90)])
def test_pieces_follow_one_another(starts, monkeypatch) -> None:
    monkeypatch.setattr(scan, "_STATES_AT_ONCE", 1)  # pieces of 32 steps
    leaves = drawn(90, 2)
    if starts is not None:
        leaves = [x if i == 2 else x[:1] for i, x in enumerate(leaves[:5])]
        leaves.append(torch.randn(3, 4, 3, dtype=torch.float64))
    at, skip = None if starts is None else torch.tensor(starts), torch.linspace(-1, 1, 4).double()
    y, final = selective_scan(*leaves, skip=skip, starts=at)
    if starts is None:  # the pieces of two runs, one from the state of the other, are those of one
        x, delta, A, b, c, state = leaves
        outputs = []
        for steps in (slice(0, 64), slice(64, 90)):
            cut = (x[:, steps], delta[:, steps], A, b[:, steps], c[:, steps])
            output, state = selective_scan(*cut, state, skip=skip)
            outputs.append(output)
        assert torch.equal(torch.cat(outputs, 1), y) and torch.equal(state, final)

    def run(skip: Tensor, *each: Tensor) -> tuple[Tensor, Tensor]:
        return selective_scan(*each, skip=skip, starts=at)

    given = [x.requires_grad_() for x in (skip, *leaves)]
    assert torch.autograd.gradcheck(run, given, fast_mode=True)


def test_packed_sequences_are_each_alone() -> None:
    x, delta, A, b, c, _ = drawn(300)
    states = torch.randn(3, 4, 3, dtype=torch.float64)
    starts = (0, 280, 280, 300)
    y, final = selective_scan(
        x[:1], delta[:1], A, b[:1], c[:1], states, starts=torch.tensor(starts)
    )
    for n in range(3):
        at = slice(starts[n], starts[n + 1])
        alone = (each[:1, at] for each in (x, delta, b, c))
        x_n, delta_n, b_n, c_n = alone
        found, end = selective_scan(x_n, delta_n, A, b_n, c_n, states[n : n + 1])
        assert torch.equal(y[:, at], found) and torch.equal(final[n : n + 1], end)


def test_operators_are_what_torch_asks_for() -> None:
    skip = torch.ones(4, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (*drawn(19), skip)]
    torch.library.opcheck(torch.ops.dsf.selective_scan.default, (*leaves, None))
    given = (*(x.detach() for x in leaves), None)
    torch.library.opcheck(torch.ops.dsf.selective_scan_kept.default, given)
    back = (*torch.ops.dsf.selective_scan_kept(*given), *given)
    torch.library.opcheck(torch.ops.dsf.selective_scan_backward.default, back)


@pytest.mark.parametrize(
    ("place", "shape", "words"),
    [
        (1, (2, 8, 4), "like `x`"),
        (2, (3, 3), r"\(4, N\)"),
        (3, (2, 9, 1, 2), r"\(2, 9, G, 3\)"),
        (4, (2, 9, 3, 3), "a divisor of D"),
        (5, (1, 4, 3), r"\(sequences, D, N\)"),
    ],
)
def test_bad_input_is_explained(place: int, shape: tuple[int, ...], words: str) -> None:
    given = drawn(9)
    given[place] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(InvalidInput, match=words):
        selective_scan(*given)


def test_a_skip_is_one_number_a_channel() -> None:
    with pytest.raises(InvalidInput, match=r"\(4,\)"):
        selective_scan(*drawn(9), skip=torch.ones(3, dtype=torch.float64))


def whole(length: int) -> list[Tensor]:
    """x, a, w, c and a state in float64: two heads of three keys and four channels."""
    draw = torch.Generator().manual_seed(length)
    lead, rest = (2, length, 2), (3, 4)
    sizes = [(*lead, 4), (*lead, *rest), (*lead, *rest), (*lead, 3), (2, 2, *rest)]
    return [torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("length", [0, 1, 20])
def test_elementwise_operator_is_the_recurrence(length: int) -> None:
    x, a, w, c, state = whole(length)
    y, final = elementwise_scan(x, a, w, c, state)
    system = System(Elementwise(a), ChannelCoupling(w), OuterCoupling(c))
    limits = error_bound(system, x, State(state), form="scan")
    h, expected = state, []
    for t in range(length):
        h = a[:, t] * h + w[:, t] * x[:, t, :, None]
        expected.append((h * c[:, t, :, :, None]).sum(2))
    if length:
        require_within(y, torch.stack(expected, 1), 2 * limits.outputs, "outputs")
    require_within(final, h, 2 * limits.memory, "last states")
    leaves = [each.requires_grad_() for each in (x, a, w, c, state)]
    assert torch.autograd.gradcheck(elementwise_scan, leaves, fast_mode=True)
    torch.library.opcheck(torch.ops.dsf.elementwise_scan.default, (*leaves, None))


def test_packed_elementwise_sequences_are_each_alone() -> None:
    x, a, w, c, _ = (each[:1] for each in whole(20))
    states = torch.randn(3, 2, 3, 4, dtype=torch.float64)
    y, final = elementwise_scan(x, a, w, c, states, starts=torch.tensor([0, 17, 17, 20]))
    for n, (start, stop) in enumerate(((0, 17), (17, 17), (17, 20))):
        cut = [each[:, start:stop] for each in (x, a, w, c)]
        alone, last = elementwise_scan(*cut, states[n : n + 1])
        assert torch.equal(y[:, start:stop], alone) and torch.equal(final[n : n + 1], last)
    kept = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def packed(state: Tensor) -> tuple[Tensor, Tensor]:
        return elementwise_scan(
            x, a, w, c, state.expand(3, -1, -1, -1), starts=torch.tensor([0, 17, 17, 20])
        )

    assert torch.autograd.gradcheck(packed, (kept,), fast_mode=True)


WRONG = {
    "gates": (1, (2, 9, 2, 3, 5), "`a` must be"),
    "writes": (2, (2, 9, 2, 3), "`w` must be"),
    "reads": (3, (2, 9, 2, 3, 1), "`c` must be"),
    "state": (4, (1, 2, 3, 4), r"\(N, H, K, V\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_elementwise_input_is_explained(name: str) -> None:
    place, size, words = WRONG[name]
    given = whole(9)
    given[place] = torch.zeros(size, dtype=torch.float64)
    with pytest.raises(InvalidInput, match=words):
        elementwise_scan(*given)
    with pytest.raises(InvalidInput, match="real"):
        elementwise_scan(*(each + 0j for each in whole(9)))

"""The operator of decay per key on the CPU, its refusals as a form, and bad input; its programs are tested apart."""

from __future__ import annotations

import pytest
import torch
from apart import require_compiles
from torch import Tensor

import dsf
from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput, Refused
from dsf.forms.bounds import error_bound
from dsf.kernels import diagonal_decay
from dsf.kernels.decay.diagonal_form import DiagonalDecay
from dsf.kernels.decay.scalar_form import ScalarDecay
from dsf.mixers import gla, rwkv6
from dsf.numerics import require_within, unit_roundoff
from dsf.state import State
from dsf.structure import Diagonal, Scalar
from dsf.system import System


def drawn(*heads: int, length: int = 9, dtype=torch.float64, seed: int = 0) -> list[Tensor]:
    """q, k, v, g, a state and a bonus with these heads of g, q, k, v."""
    draw = torch.Generator().manual_seed(seed)
    H, Hq, Hk, Hv = heads
    lead = (2, length)
    sizes = [(*lead, Hq, 3), (*lead, Hk, 3), (*lead, Hv, 2), (*lead, H, 3), (2, H, 3, 2), (H, 3)]
    found = [torch.randn(size, generator=draw, dtype=dtype) for size in sizes]
    found[3] = -found[3].abs()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(2, 2, 2, 2), (4, 4, 1, 2)])
@pytest.mark.parametrize("length", [0, 1, 70])
@pytest.mark.parametrize("before", [False, True])
def test_operator_is_the_recurrence(
    heads: tuple[int, ...], length: int, before: bool, dtype: torch.dtype
) -> None:
    q, k, v, g, state, bonus = drawn(*heads, length=length, dtype=torch.float32)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    outputs, final = diagonal_decay(q, k, v, g, state, bonus=bonus if before else None)
    assert outputs.dtype == dtype and final.dtype == torch.float32
    a, b, u, S = (x.repeat_interleave(heads[0] // x.shape[2], 2) for x in (q, k, v, state[:, None]))
    a, b, u, S = a.double(), b.double(), u.double(), S[:, 0].double()
    expected = [u[:, :0]]
    for t in range(length):
        entering = b[:, t, :, :, None] * u[:, t, :, None, :]
        seen = S + bonus.double()[..., None] * entering
        S = g[:, t].double().exp()[..., None] * S + entering
        expected.append(((seen if before else S) * a[:, t, :, :, None]).sum(-2)[:, None])
    first, w = State(state), (-g).log()
    system = rwkv6(a.float(), b.float(), w, bonus) if before else gla(a.float(), b.float(), g)
    limits = error_bound(system, u.to(dtype), first, form="chunkwise")
    own = (a * bonus * b).abs().sum(-1, keepdim=True) * u.abs() if before else torch.zeros(1)
    near = (
        2 * (3 + 3) * unit_roundoff(torch.float32) * own
    )  # a sum over three keys, of four factors
    require_within(outputs, torch.cat(expected, 1), limits.outputs + near, "outputs")
    require_within(final, S, limits.memory, "final state")


@pytest.mark.parametrize("heads", [(2, 2, 2, 2), (2, 1, 2, 1)])
@pytest.mark.parametrize("before", [False, True])
def test_gradients_by_differences(heads: tuple[int, ...], before: bool) -> None:
    leaves = [x.requires_grad_() for x in drawn(*heads, length=5)][: 5 + before]

    def run(*each: Tensor, **packed: Tensor) -> tuple[Tensor, Tensor]:
        bonus = each[5] if before else None
        return diagonal_decay(*each[:5], scale=0.5, bonus=bonus, **packed)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    one = [x[:1].detach().requires_grad_() for x in leaves[:4]]
    one.append(torch.randn(3, 2, 3, 2, dtype=torch.float64, requires_grad=True))
    starts = torch.tensor([0, 2, 2, 5])
    assert torch.autograd.gradcheck(
        lambda *each: run(*each, starts=starts), (*one, *leaves[5:]), fast_mode=True
    )


def test_gradients_where_a_decay_is_zero() -> None:
    """As those of the recurrence, which passes nothing through the logarithm of zero."""
    leaves = drawn(2, 2, 2, 2)
    leaves[3][:, 4, :, 1] = -torch.inf
    q, k, v, g, state, bonus = (x.requires_grad_() for x in leaves)
    system = System(Diagonal.from_log(g), OuterCoupling(k), OuterCoupling(q))
    results = dsf.run(system, v, State(state), form="recurrent")
    up, given = (torch.randn_like(results[0]), torch.randn_like(state)), (g, k, q, v, state)
    expected = torch.autograd.grad((results[0], results[1].memory), given, up)
    found = torch.autograd.grad(diagonal_decay(q, k, v, g, state), given, up)
    limits = error_bound(system, v, State(state), form="chunkwise", cotangents=up)
    for one, other, bound, name in zip(found, expected, limits.gradients, "gkqvs", strict=True):
        require_within(one, other, 2 * bound, f"gradient of {name}")
    before = torch.autograd.grad(diagonal_decay(q, k, v, g, state, bonus=bonus), g, up)[0]
    for gates in (found[0], before):
        assert not gates[:, 4, :, 1].any() and bool(gates.isfinite().all())


def test_packed_sequences_are_each_alone() -> None:
    q, k, v, g, _, bonus = (x[:1] for x in drawn(2, 2, 1, 2, dtype=torch.float32))
    bonus, states = bonus.expand(2, 3), torch.randn(3, 2, 3, 2)
    found, last = diagonal_decay(q, k, v, g, states, bonus=bonus, starts=torch.tensor([0, 4, 4, 9]))
    for n, (start, stop) in enumerate(((0, 4), (4, 4), (4, 9))):
        window = [x[:, start:stop] for x in (q, k, v, g)]
        y, final = diagonal_decay(*window, states[n : n + 1], bonus=bonus)
        assert torch.equal(found[:, start:stop], y) and torch.equal(last[n : n + 1], final)


def test_operators_are_what_torch_asks_for() -> None:
    q, k, v, g, state, bonus = (x.requires_grad_() for x in drawn(2, 2, 2, 1, length=4))
    for given, before in ((bonus, True), (state.detach().new_empty(0), False)):
        inputs = (q, k, v, g, state, given, 0.5, before, None)
        torch.library.opcheck(torch.ops.dsf.diagonal_decay.default, inputs)
        inputs = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        torch.library.opcheck(torch.ops.dsf.diagonal_decay_kept.default, inputs)
        back = (*torch.ops.dsf.diagonal_decay_kept(*inputs), *inputs)
        torch.library.opcheck(torch.ops.dsf.diagonal_decay_backward.default, back)


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q, k, v, g, state, bonus = (torch.empty(x.shape, device="cuda") for x in drawn(4, 4, 2, 1))
        outputs, final = torch.ops.dsf.diagonal_decay(q, k, v, g, state, bonus, 1.0, True, None)
        assert outputs.shape == (2, 9, 4, 2) and final.shape == state.shape
        assert outputs.device.type == final.device.type == "cuda"


COMPILED = """
from dsf.kernels import diagonal_decay
sizes = [(2, 9, 2, 3), (2, 9, 2, 3), (2, 9, 1, 2), (2, 9, 2, 3), (2, 2, 3, 2), (2, 3)]
leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
def total(*each):
    return diagonal_decay(*each[:5], bonus=each[5])[0].square().sum()
"""


def test_compiles_without_a_break() -> None:
    require_compiles(COMPILED)


def wrong(place: int, value: Tensor) -> list[Tensor]:
    given = drawn(2, 2, 2, 2)[:5]
    given[place] = value
    return given


BAD = {
    "one gate for all keys": (lambda: diagonal_decay(*wrong(3, torch.zeros(2, 9, 2))), "a log-decay per step and key"),
    "keys of gates": (lambda: diagonal_decay(*wrong(3, torch.zeros(2, 9, 2, 4))), r"\(2, 9, H, 3\)"),
    "heads": (lambda: diagonal_decay(*wrong(1, torch.zeros(2, 9, 3, 3).double())), "cannot share"),
    "state": (lambda: diagonal_decay(*wrong(4, torch.zeros(1, 2, 3, 2))), r"\(N, H, K, V\)"),
    "bonus": (lambda: diagonal_decay(*drawn(2, 2, 2, 2)[:5], bonus=torch.zeros(3)), r"\(2, 3\): \(H, K\)"),
    "device": (
        lambda: diagonal_decay(*drawn(2, 2, 2, 2)[:5], bonus=torch.zeros(2, 3, device="meta")), "on cpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()


def systems() -> dict[str, tuple[System, str]]:
    q, k, _, g, *_ = drawn(2, 2, 2, 2)
    outer, gates = (OuterCoupling(k), OuterCoupling(q)), Diagonal.from_log(g)
    dense = DenseCoupling(k[..., None]), DenseCoupling(q[..., None, :])
    several = OuterCoupling(k[..., None, :].expand(-1, -1, -1, 2, -1)), OuterCoupling(q)
    return {
        "cpu": (System(gates, *outer), "not on a GPU"),
        "scalar": (System(Scalar.from_log(g[..., 0]), *outer), "not real and diagonal"),
        "complex": (System(Diagonal(g.to(torch.complex128)), *outer), "not real and diagonal"),
        "dense": (System(gates, *dense), "outer couplings"),
        "several writes": (System(gates, *several), "one write"),
    }


@pytest.mark.parametrize("name", ["cpu", "scalar", "complex", "dense", "several writes"])
def test_the_form_says_why_it_cannot(name: str) -> None:
    system, words = systems()[name]
    refusal = DiagonalDecay().admits(system)
    assert not refusal and words in refusal.reason and refusal.remedy  # type: ignore[union-attr]
    shape = (2, 9, 2, 2, 2) if name == "several writes" else (2, 9, 2, 2)
    with pytest.raises(Refused, match="triton-diagonal-decay"):
        dsf.run(system, torch.zeros(shape).double(), form="triton-diagonal-decay")


@pytest.mark.parametrize("form", [DiagonalDecay(), ScalarDecay()], ids=lambda form: form.name)
def test_decays_without_a_logarithm_are_refused(form: DiagonalDecay | ScalarDecay) -> None:
    kind = Diagonal if isinstance(form, DiagonalDecay) else Scalar
    shape = (1, 2, 1, 3) if kind is Diagonal else (1, 2, 1)
    negative = form._logarithm(kind(torch.full(shape, -0.5)))
    assert not negative and "negative" in negative.reason  # type: ignore[union-attr]
    zero = torch.zeros(shape)
    assert form._logarithm(kind(zero)) is True
    lost = form._logarithm(kind(zero.requires_grad_()))
    assert not lost and "-inf" in lost.remedy  # type: ignore[union-attr]
    assert form._logarithm(kind.from_log(zero - torch.inf)) is True

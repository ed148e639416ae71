"""The delta family where there is no GPU: operators on the CPU, their shapes and refusals, and what the form admits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from apart import require_compiles
from torch import Tensor

import dsf
from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput, Refused
from dsf.forms.bounds import error_bound
from dsf.forms.lowering import lower
from dsf.kernels import delta_rule, dplr_rule
from dsf.kernels.delta.contract import KERNEL, tile_for
from dsf.kernels.delta.form import Delta, quantities
from dsf.mixers import deltanet, rwkv7
from dsf.mixers.delta_product import delta_product
from dsf.mixers.gated_deltanet import gated_deltanet
from dsf.mixers.kda import kda
from dsf.numerics import require_within
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Identity, Scalar
from dsf.system import System

B, H, K, V = 2, 2, 3, 2


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=draw, dtype=dtype)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(normal(*shape, seed=seed), dim=-1)


def per_head(x: Tensor, heads: int = H) -> Tensor:
    return x.repeat_interleave(heads // x.shape[2], 2)


def erase_and_write(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """DeltaNet, Gated DeltaNet, KDA and DeltaProduct, as their papers write a step."""
    if k.ndim == 4:
        k, v, beta = k[:, :, :, None], v[:, :, :, None], beta[..., None]
    q, k, v = per_head(q), per_head(k), per_head(v)
    S, outputs = state, [v[:, :0, :, 0]]
    eye = torch.eye(K, dtype=q.dtype)
    for t in range(q.shape[1]):
        gate = g[:, t].exp() if g.ndim == 4 else g[:, t].exp()[..., None].expand(*g[:, t].shape, K)
        S = torch.diag_embed(gate) @ S
        for r in range(k.shape[3]):
            key, strength = k[:, t, :, r], beta[:, t, :, r, None, None]
            erase = eye - strength * key[..., :, None] * key[..., None, :]
            S = erase @ S + strength * key[..., None] * v[:, t, :, r, None, :]
        outputs.append((q[:, t, :, None] @ S)[:, None, :, 0])
    return torch.cat(outputs, 1), S


def diagonal_plus_rank(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """h ← (diag(e^g) + a bᵀ) h + k vᵀ with a dense matrix per step."""
    q, k, v, a, b = (per_head(x) for x in (q, k, v, a, b))
    S, outputs = state, [v[:, :0]]
    for t in range(q.shape[1]):
        gate = g[:, t].exp() if g.ndim == 4 else g[:, t].exp()[..., None].expand(*g[:, t].shape, K)
        step = torch.diag_embed(gate) + a[:, t, :, :, None] * b[:, t, :, None, :]
        S = step @ S + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, None] @ S)[:, None, :, 0])
    return torch.cat(outputs, 1), S


def drawn(kind: str, length: int) -> list[Tensor]:
    """q, k, v, β, g and a state of one of the rules, heads shared."""
    rows = (3,) if kind == "product" else ()
    q, k = normal(B, length, 1, K, seed=1), unit(B, length, 1, *rows, K, seed=2)
    v = normal(B, length, H, *rows, V, seed=3)
    beta = 2 * torch.sigmoid(normal(B, length, H, *rows, seed=4))
    keyed = (K,) if kind == "per key" else ()
    g = -normal(B, length, H, *keyed, seed=5).abs()
    return [q, k, v, beta, torch.zeros_like(g) if kind == "no gate" else g, normal(B, H, K, V)]


def drawn_dplr(length: int, keyed: bool) -> list[Tensor]:
    b = unit(B, length, H, K, seed=6)
    a = -torch.sigmoid(normal(B, length, H, K, seed=7)) * b
    q, k, v = (normal(B, length, h, c, seed=h) for h, c in ((1, K), (1, K), (2, V)))
    g = -normal(B, length, H, *((K,) if keyed else ()), seed=5).abs()
    return [q, k, v, a, b, g, normal(B, H, K, V)]


KINDS = ("no gate", "per head", "per key", "product")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 9, 70])
def test_is_the_papers_step(kind: str, length: int) -> None:
    """Within the chunk form's bound in float32; without a gate it need not be given."""
    given = [x.float() for x in drawn(kind, length)]
    q, k, v, beta, g, state = (x.double() for x in given)
    expected, last = erase_and_write(q, k, v, beta, g, state)
    if kind == "no gate":
        given[4] = None  # type: ignore[call-overload]
    outputs, final = delta_rule(*given)
    q, k, v = per_head(q), per_head(k), per_head(v)
    if kind == "product":
        system = delta_product(q, k, beta, g)
    else:
        make = kda if kind == "per key" else gated_deltanet
        system = make(q, k, **{"g": g, "beta": beta})
    system = system.map(Tensor.float)
    limits = error_bound(system, v.float(), State(state.float()), form="chunkwise")
    # A token of three rows is four steps of the chunk form, the last without effect.
    times = 4 if kind == "product" else 1
    require_within(outputs, expected, times * limits.outputs, "outputs")
    require_within(final, last, times * limits.memory, "final state")


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_diagonal_plus_rank_one(keyed: bool, length: int) -> None:
    given = [x.float() for x in drawn_dplr(length, keyed)]
    exact = [x.double() for x in given]
    q, k, v, a, b, g, first = exact
    expected, last = diagonal_plus_rank(q, k, v, a, b, g, first)
    outputs, final = dplr_rule(*given)
    q, k, v, a, b = (per_head(x) for x in exact[:5])
    gate = Diagonal.from_log(g) if keyed else Scalar.from_log(g)
    system = System(DPLR(gate, a[..., None], b[..., None]), OuterCoupling(k), OuterCoupling(q))
    system, state = system.map(Tensor.float), State(given[6])
    limits = error_bound(system, v.float(), state, form="chunkwise")
    require_within(outputs, expected, 2 * limits.outputs, "outputs")
    require_within(final, last, 2 * limits.memory, "final state")


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_differences(kind: str) -> None:
    leaves = [x.requires_grad_() for x in drawn(kind, 5)]
    check = torch.autograd.gradcheck
    assert check(lambda *each: delta_rule(*each, scale=0.5), leaves, fast_mode=True)


def test_gradients_of_packed_sequences_and_of_rank_one() -> None:
    check = torch.autograd.gradcheck
    one = [x[:1].detach().requires_grad_() for x in drawn("per head", 5)[:5]]
    states = normal(3, H, K, V).requires_grad_()
    packed = {"starts": torch.tensor([0, 2, 2, 5])}
    assert check(lambda *each: delta_rule(*each, **packed), (*one, states), fast_mode=True)
    leaves = [x.requires_grad_() for x in drawn_dplr(4, True)]
    assert check(dplr_rule, leaves, fast_mode=True)


def test_packed_sequences_are_each_alone() -> None:
    q, k, v, beta, g = (x[:1] for x in drawn("product", 9)[:5])
    states = normal(3, H, K, V)
    found, last = delta_rule(q, k, v, beta, g, states, starts=torch.tensor([0, 4, 4, 9]))
    for n, (start, stop) in enumerate(((0, 4), (4, 4), (4, 9))):
        one, key, value, strength, gate = (x[:, start:stop] for x in (q, k, v, beta, g))
        y, final = delta_rule(one, key, value, strength, gate, states[n : n + 1])
        assert torch.equal(found[:, start:stop], y) and torch.equal(last[n : n + 1], final)


def test_a_decay_of_exactly_zero_forgets_and_has_no_gradient() -> None:
    q, k, v, beta, g, state = drawn("per head", 9)
    g[:, 4] = -torch.inf
    leaves = [x.requires_grad_() for x in (q, k, v, beta, g, state)]
    y, final = delta_rule(*leaves)
    late, last = delta_rule(*(x[:, 4:] for x in leaves[:5]))
    require = error_bound(*_system_of(leaves, 4), form="chunkwise")
    require_within(y[:, 4:], late, 2 * require.outputs, "outputs after a zero")
    require_within(final, last, 2 * require.memory, "final state after a zero")
    found = torch.autograd.grad(y[:, 4:].sum() + final.sum(), leaves)
    assert all(bool(torch.isfinite(x).all()) for x in found)
    assert not bool(found[4][:, :5].any()) and not bool(found[5].any())


def _system_of(leaves: list[Tensor], start: int) -> tuple[System, Tensor]:
    q, k, v, beta, g, _ = (x.detach() for x in leaves)
    q, k, v = (per_head(x)[:, start:] for x in (q, k, v))
    return gated_deltanet(q, k, g[:, start:], beta[:, start:]), v


def test_what_is_narrow_stays_narrow() -> None:
    given = [x.to(torch.bfloat16) for x in drawn("per key", 9)]
    y, final = delta_rule(*given)
    assert y.dtype == torch.bfloat16 and final.dtype == torch.float32
    leaves = [x.requires_grad_() for x in given]
    found = torch.autograd.grad(delta_rule(*leaves)[0].sum(), leaves)
    assert [x.dtype for x in found] == [torch.bfloat16] * 6


def operands(together: bool = False) -> tuple[object, ...]:
    """The operator's own inputs: two rows per token."""
    q, b, k = normal(1, 3, 2, K), unit(1, 6, 1, K), unit(1, 6, 1, K, seed=1)
    v, beta, g = normal(1, 6, 2, V), torch.sigmoid(normal(1, 6, H)), -normal(1, 3, H, K).abs()
    tensors = [x.requires_grad_() for x in (q, k, b, v, beta, g, normal(1, H, K, V))]
    return (*tensors, 0.5, together, None)


@pytest.mark.parametrize("together", [False, True])
def test_the_operator_is_what_torch_asks_for(together: bool) -> None:
    given = operands(together)
    torch.library.opcheck(torch.ops.dsf.delta_rule.default, given)
    given = [x.detach() if isinstance(x, Tensor) else x for x in given]
    torch.library.opcheck(torch.ops.dsf.delta_rule_kept.default, given)
    back = (*torch.ops.dsf.delta_rule_kept(*given), *given)
    torch.library.opcheck(torch.ops.dsf.delta_rule_backward.default, back)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("starts", [None, (0, 40, 40, 70)])
def test_pieces_follow_one_another(together: bool, starts, monkeypatch) -> None:
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    q, b, k = normal(1, 70, 2, K), unit(1, 140, 1, K), unit(1, 140, 1, K, seed=1)
    v, beta, g = normal(1, 140, 2, V), torch.sigmoid(normal(1, 140, H)), -normal(1, 70, H, K).abs()
    first = normal(1 if starts is None else 3, H, K, V)
    at = None if starts is None else torch.tensor(starts)
    leaves = [x.requires_grad_() for x in (q, 0.5 * k, 0.5 * b, v, beta, g, first)]

    def run(*each: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ops.dsf.delta_rule(*each, 0.5, together, at)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    if starts is None:  # the pieces of two runs, one from the state of the other, are those of one
        *given, state = (x.detach() for x in leaves)
        y, final = run(*given, state)
        outputs = []
        for steps in (slice(0, 32), slice(32, 70)):
            rows = slice(2 * steps.start, 2 * steps.stop)
            ats = (steps, rows, rows, rows, rows, steps)
            cut = [x[:, at] for x, at in zip(given, ats, strict=True)]
            output, state = torch.ops.dsf.delta_rule(*cut, state, 0.5, together, None)
            outputs.append(output)
        assert torch.equal(torch.cat(outputs, 1), y) and torch.equal(state, final)


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    *tensors, scale, together, starts = operands()
    with FakeTensorMode():
        fake = [torch.empty(x.shape, device="cuda") for x in tensors]  # type: ignore[union-attr]
        y, final = torch.ops.dsf.delta_rule(*fake, scale, together, starts)
        assert y.shape == (1, 3, H, V) and final.shape == (1, H, K, V)
        assert y.device.type == final.device.type == "cuda"


COMPILED = """
from dsf.kernels import delta_rule
sizes = [(2, 9, 2, 3), (2, 9, 1, 3), (2, 9, 2, 2), (2, 9, 2), (2, 9, 2, 3), (2, 2, 3, 2)]
leaves = [torch.rand(size, dtype=torch.float64) / 2 for size in sizes]
leaves[4] = -leaves[4]
leaves = [x.requires_grad_() for x in leaves]
def total(*each):
    return delta_rule(*each)[0].square().sum()
"""


def test_compiles_without_a_break() -> None:
    require_compiles(COMPILED)


def wrong(place: int, value: Tensor, rule: Callable[..., object] = delta_rule) -> object:
    given = drawn("per head", 9) if rule is delta_rule else drawn_dplr(9, False)
    given[place] = value
    return rule(*given)


def of(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "axes": (lambda: wrong(0, of(2, 9, 3)), "got 3 axes"),
    "rows of some": (lambda: wrong(1, of(2, 9, 1, 2, 3)), "one axis of rows, or none"),
    "gates": (lambda: wrong(4, of(2, 8, 2)), "`g` per key"),
    "gates per value": (lambda: wrong(4, of(2, 9, 2, 2)), "`g` per key"),
    "strengths": (lambda: wrong(3, of(2, 9, 1)), "`beta` must be"),
    "heads": (lambda: wrong(2, of(2, 9, 3, 2)), "cannot share"),
    "keys": (lambda: wrong(1, of(2, 9, 1, 4)), "must agree"),
    "length": (lambda: wrong(2, of(2, 8, 2, 2)), "`v` must be"),
    "type": (lambda: wrong(0, of(2, 9, 1, 3).float()), "of one type"),
    "state": (lambda: wrong(5, of(1, 2, 3, 2)), r"\(N, H, K, V\)"),
    "rank": (lambda: wrong(3, of(2, 9, 2, 2, 3), dplr_rule), "and a and b"),
    "many rows": (lambda: wrong_rows(17), "1 to 16 rows"),
    "starts": (lambda: delta_rule(*drawn("per head", 9), starts=torch.tensor([0, 9])), "one row of tokens"),
}  # fmt: skip


def wrong_rows(count: int) -> object:
    k, v, beta = of(2, 9, 2, count, 3), of(2, 9, 2, count, 2), of(2, 9, 2, count)
    return delta_rule(of(2, 9, 2, 3), k, v, beta)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()


def systems() -> dict[str, tuple[System, str]]:
    q, k = normal(2, 9, 2, K), unit(2, 9, 2, K)
    outer = OuterCoupling(k), OuterCoupling(q)
    low = -k[..., None], k[..., None]
    wide = tuple(x.expand(*x.shape[:-1], 16) for x in low)
    several = OuterCoupling(q[..., None, :].expand(2, 9, 2, 2, K))
    dense = DenseCoupling(k[..., None]), DenseCoupling(q[..., None, :])
    turned = DPLR(Identity(), *(x.to(torch.complex128) for x in low))
    return {
        "cpu": (System(DPLR(Identity(), *low), *outer), "not on a GPU"),
        "scalar": (System(Scalar.from_log(-k[..., 0].abs()), *outer), "not diagonal plus low rank"),
        "complex": (System(turned, *outer), "not diagonal plus low rank"),
        "dense": (System(DPLR(Identity(), *low), *dense), "outer couplings"),
        "reads": (System(DPLR(Identity(), *low), outer[0], several), "one outer read"),
        "rank": (System(DPLR(Identity(), *wide), *outer), "17 rows"),
    }


@pytest.mark.parametrize("name", ["cpu", "scalar", "complex", "dense", "reads", "rank"])
def test_the_form_says_why_it_cannot(name: str) -> None:
    system, words = systems()[name]
    refusal = Delta().admits(system)
    assert not refusal and words in refusal.reason and refusal.remedy  # type: ignore[union-attr]
    values = normal(2, 9, 2, V)
    with pytest.raises(Refused, match="triton-delta"):
        dsf.run(system, values, form="triton-delta")


@pytest.mark.parametrize("value, admitted", [(0.5, True), (0.0, True), (-0.5, False), (1.5, False)])
def test_the_form_admits_gates_that_do_not_grow(value: float, admitted: bool) -> None:
    refusal = Delta()._of_gate(Scalar(torch.full((1, 1, 1), value)))
    assert bool(refusal) == admitted
    assert admitted or "[0, 1]" in refusal.reason  # type: ignore[union-attr]


FAMILY = {
    "deltanet": lambda q, k, s, g: deltanet(q, k, s),
    "kda": lambda q, k, s, g: kda(q, k, s, g),
    "rwkv7": lambda q, k, s, g: rwkv7(q, g, k, k, g.sigmoid()),
    "delta product": lambda q, k, s, g: delta_product(
        q, torch.stack([k, q / q.norm(dim=-1, keepdim=True)], 3), torch.stack([s, s], -1)
    ),
}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("timing", ["after", "end"])
def test_the_form_runs_its_own_quantities(name: str, timing: str) -> None:
    """What the form gives to the kernel, where it is admitted, is the system itself."""
    from dataclasses import replace

    q, k, s = normal(B, 7, H, K), unit(B, 7, H, K), torch.sigmoid(normal(B, 7, H))
    system = FAMILY[name](q, k, s, -normal(B, 7, H, K, seed=3).abs())
    several = (2,) if name == "delta product" else ()
    tokens, state = normal(B, 7, H, *several, V), State(normal(B, H, K, V))
    system = replace(system, timing=timing)
    lowered = lower(system, tokens, state)
    outputs, last = lowered.finish(*Delta().evaluate(lowered.core))
    expected, final = dsf.run(system, tokens, state, form="recurrent")
    limits = error_bound(system, tokens, state, form=Delta())
    require_within(outputs, expected, 2 * limits.outputs, "outputs")
    require_within(last.memory, final.memory, 2 * limits.memory, "final state")
    assert quantities(lowered.core)[1].ndim == 5


def test_tiles_hold_whole_tokens_and_all_keys() -> None:
    for program in KERNEL.programs:
        for dtype in KERNEL.dtypes:
            for size in (1, 60, *KERNEL.sizes):
                tile = tile_for(program, dtype, size, 90, 40).constants
                assert int(tile["C"]) % 16 == 0 and int(tile["C"]) == 1 << int(tile["LEVELS"])
                assert int(tile["BK"]) * int(tile["KT"]) >= size
                assert int(tile["BV"]) * int(tile["VT"]) >= 40

"""Kernels where there is no GPU: operators on the CPU, refusals, and programs interpreted and compiled apart."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from apart import apart, require_compiles
from torch import Tensor

import dsf
from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput, Refusal, Refused
from dsf.forms import native
from dsf.forms.bounds import error_bound
from dsf.kernels import diagonal_decay, gated_scan, scalar_decay
from dsf.kernels.decay.scalar_form import ScalarDecay
from dsf.kernels.limits import LIMITS, nearest
from dsf.kernels.report import cells, kernels
from dsf.numerics import require_within
from dsf.state import State
from dsf.structure import Diagonal, Scalar
from dsf.system import System

linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")


def drawn(*heads: int, length: int = 9, dtype=torch.float64, seed: int = 0) -> list[Tensor]:
    """q, k, v, g and a state with these heads of g, q, k, v."""
    draw = torch.Generator().manual_seed(seed)
    H, Hq, Hk, Hv = heads
    sizes = [
        (2, length, Hq, 3),
        (2, length, Hk, 3),
        (2, length, Hv, 2),
        (2, length, H),
        (2, H, 3, 2),
    ]
    found = [torch.randn(size, generator=draw, dtype=dtype) for size in sizes]
    found[3] = -found[3].abs()
    return found


@pytest.mark.parametrize("heads", [(2, 2, 2, 2), (4, 4, 1, 2), (2, 1, 2, 1)])
@pytest.mark.parametrize("length", [0, 1, 9, 70])
def test_operator_is_the_recurrence(heads: tuple[int, ...], length: int) -> None:
    q, k, v, g, state = drawn(*heads, length=length, dtype=torch.float32)
    outputs, final = scalar_decay(q, k, v, g, state, scale=0.5)
    wide = [x.repeat_interleave(heads[0] // x.shape[2], 2) for x in (q, k, v)]
    system = System(Scalar.from_log(g), OuterCoupling(wide[1]), OuterCoupling(0.5 * wide[0]))
    exact = system.map(Tensor.double)
    expected, last = dsf.run(exact, wide[2].double(), State(state.double()), form="recurrent")
    limits = error_bound(system, wide[2], State(state), form="chunkwise")
    require_within(outputs, expected, limits.outputs, "outputs")
    require_within(final, last.memory, limits.memory, "final state")


@pytest.mark.parametrize("heads", [(2, 2, 2, 2), (2, 1, 2, 1)])
def test_gradients_by_differences(heads: tuple[int, ...]) -> None:
    leaves = [x.requires_grad_() for x in drawn(*heads, length=5)]
    check = torch.autograd.gradcheck
    assert check(lambda *each: scalar_decay(*each, scale=0.5), leaves, fast_mode=True)
    one = [x[:1].detach().requires_grad_() for x in leaves[:4]]
    states = torch.randn(3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    packed = {"starts": torch.tensor([0, 2, 2, 5])}
    assert check(lambda *each: scalar_decay(*each, **packed), (*one, states), fast_mode=True)


def test_gradients_where_a_decay_is_zero() -> None:
    """As those of the recurrence, which passes nothing through the logarithm of zero."""
    leaves = drawn(2, 2, 2, 2)
    leaves[3][:, 4] = -torch.inf
    leaves = [x.requires_grad_() for x in leaves]
    q, k, v, g, state = leaves
    system = System(Scalar.from_log(g), OuterCoupling(k), OuterCoupling(q))
    results = dsf.run(system, v, State(state), form="recurrent")
    up = [torch.randn_like(results[0]), torch.randn_like(state)]
    expected = torch.autograd.grad((results[0], results[1].memory), leaves, up)
    found = torch.autograd.grad(scalar_decay(*leaves), leaves, up)
    limits = error_bound(system, v, State(state), form="chunkwise", cotangents=(up[0], up[1]))
    of_g, of_k, of_q, of_v, of_state = limits.gradients
    # The gates' gradient is a difference of what reads and writes get, summed over later steps.
    both = (q.abs() * of_q + k.abs() * of_k).sum(-1).flip(1).cumsum(1).flip(1)
    last = (up[1].abs() * limits.memory).sum((-1, -2))[:, None]
    bounds = (of_q, of_k, of_v, of_g + both + last, of_state)
    for one, other, bound, name in zip(found, expected, bounds, "qkvgs", strict=True):
        require_within(one, other, 2 * bound, f"gradient of {name}")


def test_operators_are_what_torch_asks_for() -> None:
    q, k, v, g, state = (x.requires_grad_() for x in drawn(2, 2, 2, 1, length=4))
    torch.library.opcheck(torch.ops.dsf.scalar_decay.default, (q, k, v, g, state, 0.5, None))
    given = (*(x.detach() for x in (q, k, v, g, state)), 0.5, None)
    torch.library.opcheck(torch.ops.dsf.scalar_decay_kept.default, given)
    back = (*torch.ops.dsf.scalar_decay_kept(*given), *given)
    torch.library.opcheck(torch.ops.dsf.scalar_decay_backward.default, back)


@pytest.mark.parametrize("per_key", [False, True])
@pytest.mark.parametrize("bad", [None, torch.inf, torch.nan])
def test_gradients_across_pieces_are_those_of_the_recurrence(
    per_key: bool, bad: float | None, monkeypatch
) -> None:
    """Also before a bad token, in its own piece and in earlier ones."""
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    q, k, v, g, state = drawn(2, 2, 2, 2, length=150)
    g = g[..., None] * torch.linspace(0, 1, 3, dtype=g.dtype) if per_key else g
    if bad is not None:
        v[:, 100] = bad
    leaves = [x.requires_grad_() for x in (g, k, q, v, state)]
    early = [x[:, :100].detach().requires_grad_() for x in leaves[:4]]
    early.append(state.detach().requires_grad_())
    kind, operator = (Diagonal, diagonal_decay) if per_key else (Scalar, scalar_decay)
    system = System(kind.from_log(early[0]), OuterCoupling(early[1]), OuterCoupling(early[2]))
    tokens, first = early[3], State(early[4])
    outputs = dsf.run(system, tokens, first, form="recurrent")[0]
    up = torch.randn_like(outputs)
    expected = torch.autograd.grad(outputs, early, up)
    found = torch.autograd.grad(operator(q, k, v, g, state)[0][:, :100], leaves, up)
    cotangents = (up, torch.zeros_like(state))
    limits = error_bound(system, tokens, first, form="chunkwise", cotangents=cotangents)
    pairs = zip(found[:4], expected, limits.gradients, "gkqv", strict=False)
    for one, other, bound, name in pairs:
        require_within(one[:, :100], other, 2 * bound, f"gradient of {name}")
    require_within(found[4], expected[4], 2 * limits.gradients[4], "gradient of the state")


def test_an_operator_that_keeps_has_no_gradient_of_its_own() -> None:
    leaves = [x.requires_grad_() for x in drawn(2, 2, 2, 1, length=4)]
    outputs = torch.ops.dsf.scalar_decay_kept(*leaves, 0.5, None)[0]
    with pytest.raises(NotImplementedError, match="it serves that of dsf::scalar_decay"):
        outputs.sum().backward()


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q, k, v, g, state = (torch.empty(x.shape, device="cuda") for x in drawn(4, 4, 2, 1))
        outputs, final = torch.ops.dsf.scalar_decay(q, k, v, g, state, 1.0, None)
        assert outputs.shape == (2, 9, 4, 2) and final.shape == state.shape
        assert outputs.device.type == final.device.type == "cuda"
        held = torch.ops.dsf.scalar_decay_kept(q, k, v, g, state, 1.0, None)[2:]
        assert [x.numel() for x in held] == [0]  # the programs make states anew


COMPILED = """
from dsf.kernels import gated_scan, scalar_decay
sizes = [(2, 9, 2, 3), (2, 9, 2, 3), (2, 9, 1, 2), (2, 9, 2), (2, 2, 3, 2)]
leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
def total(*each):
    return scalar_decay(*each)[0].square().sum()
"""


def test_compiles_without_a_break() -> None:
    require_compiles(COMPILED)


WAYS = pytest.mark.parametrize(
    "refusal",
    [native.missing("scan"), Refusal("native scan", "torch is asked for.")],
    ids=["compiled", "torch"],
)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("length", [0, 1, 7, 70])
def test_scan_is_the_recurrence_with_its_gradients(
    length: int, dtype: torch.dtype, refusal: Refusal | None, monkeypatch
) -> None:
    monkeypatch.setattr(native, "missing", lambda name: refusal)
    draw = torch.Generator().manual_seed(length)
    sizes = ((2, length, 3), (2, length, 3), (2, 3))
    a, b, state = (torch.randn(s, generator=draw, dtype=dtype).requires_grad_() for s in sizes)
    found, last = gated_scan(a, b, state)
    expected, h = [], state
    for t in range(length):
        h = a[:, t] * h + b[:, t]
        expected.append(h)
    one = torch.ones(1, 1, 3, 1, dtype=dtype)
    system = System(Scalar(a), OuterCoupling(one), OuterCoupling(one))
    limits = error_bound(system, b[..., None], State(state[..., None, None]), form="scan")
    if length:
        require_within(found, torch.stack(expected, 1), 2 * limits.outputs[..., 0], "states")
    require_within(last, h, 2 * limits.memory[..., 0, 0], "last state")
    assert torch.autograd.gradcheck(gated_scan, (a, b, state), fast_mode=True)
    given = (a, b, state, None)
    torch.library.opcheck(torch.ops.dsf.gated_scan.default, given)


@WAYS
def test_scan_of_packed_sequences_is_each_alone(refusal: Refusal | None, monkeypatch) -> None:
    monkeypatch.setattr(native, "missing", lambda name: refusal)
    draw = torch.Generator().manual_seed(0)
    a, b, up = (torch.randn(1, 90, 3, generator=draw) for _ in range(3))
    states, last_up = (torch.randn(3, 3, generator=draw) for _ in range(2))
    leaves = [x.requires_grad_() for x in (a, b, states)]
    starts = torch.tensor([0, 40, 40, 90])

    def results(at: slice, own: slice, starts: Tensor | None = None) -> tuple[Tensor, ...]:
        found = gated_scan(a[:, at], b[:, at], states[own], starts=starts)
        return *found, *torch.autograd.grad(found, leaves, (up[:, at], last_up[own]))

    together = results(slice(0, 90), slice(0, 3), starts)
    pairs = enumerate(starts.unfold(0, 2, 1).tolist())
    h, last, *back = zip(*(results(slice(*at), slice(n, n + 1)) for n, at in pairs), strict=True)
    alone = (torch.cat(h, 1), torch.cat(last), *(torch.stack(each).sum(0) for each in back))
    assert all(map(torch.equal, together, alone))


def wrong(place: int, value: Tensor) -> list[Tensor]:
    given = drawn(2, 2, 2, 2)
    given[place] = value
    return given


BAD = {
    "gates": (lambda: scalar_decay(*wrong(3, torch.zeros(2, 8, 2))), "a log-decay per step"),
    "heads": (lambda: scalar_decay(*wrong(1, torch.zeros(2, 9, 3, 3, dtype=torch.float64))), "cannot share"),
    "keys": (lambda: scalar_decay(*wrong(1, torch.zeros(2, 9, 2, 4, dtype=torch.float64))), "must agree"),
    "type": (lambda: scalar_decay(*wrong(0, torch.zeros(2, 9, 2, 3))), "of one type"),
    "state": (lambda: scalar_decay(*wrong(4, torch.zeros(1, 2, 3, 2))), r"\(N, H, K, V\)"),
    "scan": (lambda: gated_scan(torch.zeros(1, 3, 2), torch.zeros(1, 4, 2)), r"`a` and `b` must be"),
    "scan state": (lambda: gated_scan(*[torch.zeros(1, 3, 2)] * 2, torch.zeros(2, 2)), r"\(N, D\)"),
    "complex": (lambda: scalar_decay(*(x + 0j if x.ndim == 4 else x for x in drawn(2, 2, 2, 2)[:4])), "must be real"),
    "complex state": (
        lambda: gated_scan(*[torch.zeros(1, 3, 2)] * 2, torch.zeros(1, 2, dtype=torch.complex64)),
        "make them complex",
    ),
    "scan axes": (lambda: gated_scan(*[torch.zeros(3, 2)] * 2), "got 2 axes"),
    "starts": (lambda: scalar_decay(*drawn(2, 2, 2, 2), starts=torch.tensor([0, 9])), "one row of tokens"),
    "end": (lambda: scalar_decay(*(x[:1] for x in drawn(2, 2, 2, 2)), starts=torch.tensor([0, 5])), "to T = 9"),
    "order": (
        lambda: scalar_decay(*(x[:1] for x in drawn(2, 2, 2, 2)), starts=torch.tensor([0, 5, 3, 9])),
        "must not fall",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()


def systems() -> dict[str, tuple[System, str]]:
    q, k, _, g, _ = drawn(2, 2, 2, 2)
    outer = OuterCoupling(k), OuterCoupling(q)
    dense = DenseCoupling(k[..., None]), DenseCoupling(q[..., None, :])
    return {
        "cpu": (System(Scalar.from_log(g), *outer), "not on a GPU"),
        "diagonal": (System(Diagonal.from_log(-k.abs()), *outer), "not a real scalar"),
        "complex": (System(Scalar(g.to(torch.complex128)), *outer), "not a real scalar"),
        "dense": (System(Scalar.from_log(g), *dense), "outer couplings"),
    }


@pytest.mark.parametrize("name", ["cpu", "diagonal", "complex", "dense"])
def test_the_form_says_why_it_cannot(name: str) -> None:
    system, words = systems()[name]
    refusal = ScalarDecay().admits(system)
    assert not refusal and words in refusal.reason and refusal.remedy  # type: ignore[union-attr]
    values = torch.zeros(2, 9, 2, 2, dtype=torch.float64)
    with pytest.raises(Refused, match="triton-scalar-decay"):
        dsf.run(system, values, form="triton-scalar-decay")


def test_no_form_is_replaced_in_silence_where_triton_is_missing(monkeypatch) -> None:
    from dsf.kernels import library

    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    refusal = library.triton_missing()
    assert refusal is not None and "dsf-dynamics[kernels]" in refusal.remedy


def test_devices_get_the_tiles_of_their_own_generation() -> None:
    assert [nearest(each) for each in ((7, 0), (8, 0), (8, 6), (9, 0), (10, 3), (12, 0))] == [
        80, 80, 80, 90, 100, 80,
    ]  # fmt: skip
    for cell in cells():
        tile = {name: x for name, x in cell.tile.constants.items() if isinstance(x, int)}
        assert tile.get("BK", 1) * tile.get("KT", 1) >= tile.get("K", 1)
        names = ("C", "BK", "BV", "S", "BC", "BN", "BD", "BLOCK", "MARK")
        blocks = [x for name, x in tile.items() if name in names]
        assert blocks and all(x & (x - 1) == 0 for x in blocks)


@linux
@pytest.mark.xdist_group("triton")
def test_programs_interpreted() -> None:
    """Every program against exact and float64 references, and planted bugs: see tests/interpreted."""
    pytest.importorskip("triton")
    options = ["-o", "addopts=", "-q", "--import-mode=importlib", "--confcutdir=tests/interpreted"]
    found = apart("-m", "pytest", *options, "tests/interpreted", interpret=True)
    assert found.returncode == 0, found.stdout[-4000:]
    assert " passed" in found.stdout and "skipped" not in found.stdout


REPORT = "import sys; from dsf.cli import main; main(sys.argv[1:])"


def reported(*options: str) -> list[dict]:
    """What `dsf kernels report` says as JSON."""
    found = apart("-c", REPORT, "kernels", "report", "--json", "-", *options, interpret=False)
    assert found.stdout, found.stderr[-4000:]
    return json.loads(found.stdout)["result"]


def require_fit(rows: list[dict]) -> None:
    for row in rows:
        assert not row["faults"], row
        assert row["stack"] == row["spills"] == 0 and row["registers"] <= 255
        assert row["shared"] <= LIMITS[row["sm"]].shared


@linux
def test_default_tiles_fit_and_do_not_spill() -> None:
    """One type, head size and architecture here; `-m full` compiles them all."""
    pytest.importorskip("triton")
    rows = reported("--architecture", "90", "--dtype", "bfloat16", "--size", "64")
    assert len(rows) == sum(len(kernel.programs) for kernel in kernels())
    assert any(row["products"] for row in rows)
    require_fit(rows)


@linux
@pytest.mark.full
@pytest.mark.parametrize("architecture", LIMITS)
def test_all_tiles_fit_and_do_not_spill(architecture: int) -> None:
    pytest.importorskip("triton")
    rows = reported("--architecture", str(architecture), "--unaligned")
    assert len(rows) == len(list(cells([architecture])))
    require_fit(rows)


@linux
def test_a_tile_that_is_too_large_is_a_fault() -> None:
    """Spills and stubs are seen: a tile of 128 steps and 128 values in four warps has both."""
    pytest.importorskip("triton")
    code = """
from dsf.kernels.decay.scalar import FORWARD
from dsf.kernels.compiling import compiled
from dsf.kernels.contract import Tile
sizes = {"K": 128, "V": 128, "C": 128, "BK": 128, "BV": 128, "KT": 1, "REST": 0, "PRECISION": "ieee"}
found = compiled(FORWARD, Tile(sizes, 4), "bfloat16", 80)
print(found.faults(80))
"""
    found = apart("-c", code, interpret=False)
    assert "spills" in found.stdout, found.stdout + found.stderr[-2000:]

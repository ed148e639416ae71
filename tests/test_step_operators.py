"""Steps of decoding as operators of torch: what they are asked for, what they refuse, what they count."""

from __future__ import annotations

import pytest
import torch
from apart import apart
from step_families import FAMILIES, Row
from stepping import drawn
from torch import Tensor

from dsf.errors import InvalidInput, Refused
from dsf.kernels import (
    bytes_of_step,
    decay_step,
    delta_step,
    dplr_step,
    mlstm_step,
    scan_step,
    selective_step,
)

WIDE = torch.float64
B, H, K, V = 2, 2, 3, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def operators() -> dict[str, tuple]:
    """Each operator of torch and arguments for it."""
    x, slots = [normal(B, H, size, seed=size) for size in (K, K, V)], torch.tensor([2, -1])
    gate, keyed = normal(B, H, seed=5), normal(B, H, K, seed=6)
    cache, n, m = normal(3, H, K, V), normal(3, H, K), normal(3, H)
    names, step = torch.ops.dsf, torch.ops.dsf.matrix_step
    a = normal(B, K, seed=8)
    rates, write = -normal(K, V, seed=9).abs(), normal(B, 1, V, seed=10)
    return {
        "decay": (step, (cache, *x, gate, None, None, None, normal(H, K), slots, 0.5, "none", True)),
        "delta": (step, (cache, *x, keyed, gate, None, None, None, slots, 0.5, "delta", False)),
        "dplr": (step, (cache, *x, None, None, x[0], x[1], None, slots, 0.5, "dplr", False)),
        "mlstm": (names.mlstm_step, (cache, n, m, *x, gate, -gate.abs(), slots, 0.5)),
        "scan": (names.scan_step, (normal(3, K), a, a, slots)),
        "selective": (names.selective_step, (normal(3, K, V), a, a.abs(), rates, write, write, None, slots)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["decay", "delta", "dplr", "mlstm", "scan", "selective"])
def test_operators_are_what_torch_asks_for(name: str) -> None:
    operator, given = operators()[name]
    torch.library.opcheck(operator.default, given)
    state = given[0]
    before = state._version
    operator(*given)
    assert state._version > before, "autograd is not told that the state changed"


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        half = {"device": "cuda", "dtype": torch.bfloat16}
        x = [torch.empty(B, H, size, **half) for size in (K, K, V)]
        state, n, m = (torch.empty(5, H, *s, device="cuda") for s in ((K, V), (K,), ()))
        gate = torch.empty(B, H, device="cuda")
        slots = torch.empty(B, dtype=torch.int64, device="cuda")
        found = [
            decay_step(state, *x, slots=slots),
            delta_step(state, *x, gate, slots=slots),
            dplr_step(state, *x, x[0], x[1], slots=slots),
            mlstm_step(state, n, m, *x, gate, gate, slots=slots),
        ]
        for y in found:
            assert y.shape == (B, H, V) and y.dtype == torch.bfloat16 and y.device.type == "cuda"
        a = torch.empty(B, K, **half)
        h = scan_step(torch.empty(B, K, device="cuda"), a, a)
        assert h.shape == (B, K) and h.dtype == torch.float32


COMPILED = """
import torch
from dsf.kernels import decay_step, mlstm_step
sizes = [(4, 2, 3, 5), (4, 2, 3), (4, 2), (2, 2, 3), (2, 2, 3), (2, 2, 5), (2, 2), (2, 2)]
given = [torch.randn(size) for size in sizes]
slots = torch.tensor([3, -1])
def both(S, n, m, q, k, v, i, f):
    y = decay_step(S, q, k, v, f.neg().exp().neg(), slots=slots)
    return y + mlstm_step(S, n, m, q, k, v, i, f, slots=slots)
run = torch.compile(both, fullgraph=True, backend="aot_eager")
one, two = ([x.clone() for x in given] for _ in range(2))
pairs = zip([run(*one), *one], [both(*two), *two])
print(all(torch.equal(a, b) for a, b in pairs), torch.equal(one[0][3], given[0][3]))
"""


def test_compiles_without_a_break() -> None:
    """The mutation is seen by the compiler: the state changes as it does eagerly."""
    found = apart("-c", COMPILED)
    assert found.stdout.strip() == "True False", found.stderr[-4000:]


@pytest.mark.parametrize("name", FAMILIES)
def test_there_is_no_gradient(name: str) -> None:
    """It is refused where autograd would record, and only there; the state is as it was."""
    case = drawn(Row(name, name, length=1))
    first = next(iter(case.at(0)))
    x = {key: z.requires_grad_() if key == first else z for key, z in case.at(0).items()}
    cache = tuple(each.clone() for each in case.cache)
    with pytest.raises(Refused, match=rf"no gradient, which {first} would need.*no_grad\(\)"):
        case.family.step(cache, x, 0.5, None)
    for one, other in zip(cache, case.cache, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        outside = case.family.step(tuple(each.clone() for each in case.cache), x, 0.5, None)
    with torch.inference_mode():
        inside = case.family.step(cache, x, 0.5, None)
    assert torch.equal(outside, inside) and not outside.requires_grad


def one(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


def matrix(rows: int = 2, **other: Tensor):
    """A call of `decay_step` with one argument replaced."""
    given = {"state": one(rows, 2, 3, 4), "q": one(2, 2, 3), "k": one(2, 2, 3), "v": one(2, 2, 4)}
    return lambda: decay_step(**(given | other))


BAD = {
    "heads of the state": (matrix(state=one(2, 2, 4, 4)), r"must be \(rows, 2, 3, 4\): \(rows, H, K, V\)"),
    "axes of the state": (matrix(state=one(2, 3, 4)), r"`state` must be \(rows, H, K, V\)"),
    "type of the state": (matrix(state=one(2, 2, 3, 4, dtype=torch.float16)), "must be torch.float32"),
    "a narrow state of wide data": (
        matrix(**{name: one(2, 2, s, dtype=WIDE) for name, s in (("q", 3), ("k", 3), ("v", 4))}),
        "must be torch.float64",
    ),
    "strides": (matrix(state=one(2, 2, 4, 3).mT), "must be contiguous"),
    "an expanded state": (matrix(state=one(1, 2, 3, 4).expand(2, 2, 3, 4)), "overlap"),
    "rows": (matrix(rows=3), "2 sequences need as many rows"),
    "slots": (matrix(slots=torch.tensor([0])), r"`slots` must be \(2,\)"),
    "type of slots": (matrix(slots=torch.tensor([0.0, 1.0])), "int32 or int64"),
    "a slot beyond": (matrix(slots=torch.tensor([0, 2])), "from -1 .at rest. to 1"),
    "a slot twice": (matrix(slots=torch.tensor([1, 1])), "one slot"),
    "a sequence of tokens": (matrix(q=one(2, 1, 2, 3)), "one token"),
    "micro-steps": (matrix(k=one(2, 2, 1, 3)), "`k` must be"),
    "shared heads": (matrix(k=one(2, 3, 3)), "cannot share"),
    "key sizes": (matrix(k=one(2, 2, 5)), "must agree"),
    "types": (matrix(k=one(2, 2, 3, dtype=torch.float16)), "of one type"),
    "gates": (matrix(g=one(2, 3)), r"`g` must be \(2, 2\) or \(2, 2, 3\)"),
    "strengths": (matrix(beta=one(2, 2, 1)), r"`beta` must be \(2, 2\)"),
    "bonus": (matrix(bonus=one(2, 3)), 'timing="before"'),
    "no micro-step": (
        lambda: delta_step(one(1, 1, 1, 1), one(1, 1, 1), one(1, 1, 0, 1), one(1, 1, 0, 1)), "1 or more"
    ),
    "values of micro-steps": (
        lambda: delta_step(one(1, 1, 1, 1), one(1, 1, 1), one(1, 1, 2, 1), one(1, 1, 1)), "`v` must be"
    ),
    "erasers": (lambda: dplr_step(one(1, 1, 1, 1), *[one(1, 1, 1)] * 3, one(1, 1, 1), one(1, 1, 2)), "`b` must be"),
    "normaliser": (
        lambda: mlstm_step(one(1, 1, 1, 1), one(1, 1, 2), one(1, 1), *[one(1, 1, 1)] * 3, *[one(1, 1)] * 2),
        "`normaliser` must be",
    ),
    "rows of the stabiliser": (
        lambda: mlstm_step(one(1, 1, 1, 1), one(1, 1, 1), one(2, 1), *[one(1, 1, 1)] * 3, *[one(1, 1)] * 2),
        "as many rows",
    ),
    "forget gates": (
        lambda: mlstm_step(
            one(1, 1, 1, 1), one(1, 1, 1), one(1, 1), *[one(1, 1, 1)] * 3, one(1, 1), one(1, 1, 1)
        ),
        r"`log_forget` must be \(B, H\)",
    ),
    "scan": (lambda: scan_step(one(2, 3), one(2, 3), one(2, 4)), r"must be \(B, D\)"),
    "scan's state": (lambda: scan_step(one(2, 4), one(2, 3), one(2, 3)), r"must be \(rows, 3\)"),
    "steps": (lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 3), *[one(2, 1)] * 3), "`delta`"),
    "rates": (lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 2), *[one(3, 1)] * 3), r"`A` must be \(2, N\)"),
    "groups": (
        lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 2), one(2, 1), *[one(1, 3, 1)] * 2), "a divisor of D"
    ),
    "reads": (
        lambda: selective_step(one(1, 2, 1), one(1, 2), one(1, 2), one(2, 1), one(1, 1, 1), one(1, 1)), "`c` must be"
    ),
    "skip": (
        lambda: selective_step(
            one(1, 2, 1), one(1, 2), one(1, 2), one(2, 1), *[one(1, 1, 1)] * 2, skip=one(3)
        ),
        r"`skip` must be \(2,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()


def test_bytes_are_those_of_the_states_twice_and_of_the_rest_once() -> None:
    state, token = torch.zeros(9, 2, 3, 4), torch.zeros(5, 2, 4, dtype=torch.float16)
    assert bytes_of_step(state, 5, token, None, token) == 2 * 5 * 2 * 3 * 4 * 4 + 2 * 5 * 2 * 4 * 2

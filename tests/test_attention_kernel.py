"""The operators of attention on the CPU: the mixers' Φ, the definition in float64, gradients, torch's own checks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from apart import require_compiles
from attention_oracle import Problem, truth
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels import flash_attention
from dsf.mixers.band import Band
from dsf.mixers.scores import SigmoidAttention
from dsf.mixers.softmax_attention import SoftmaxAttention
from dsf.numerics import require_within

WEIGHTS = (
    ("softmax", False),
    ("sigmoid", False),
    ("softplus", False),
    ("softplus", True),
    ("sigmoid", True),
)


def drawn(
    queries: int,
    keys: int,
    heads: int = 4,
    k_heads: int = 2,
    dtype: torch.dtype = torch.float64,
    batch: int = 2,
) -> list[Tensor]:
    """q, k, v."""
    draw = torch.Generator().manual_seed(queries + keys)
    sizes = ((batch, queries, heads, 3), (batch, keys, k_heads, 3), (batch, keys, k_heads, 2))
    return [torch.randn(size, generator=draw, dtype=dtype) for size in sizes]


def band(queries: int, keys: int, causal: bool, window: int | None) -> Tensor:
    """Which of the last `queries` of `keys` places sees which key."""
    ahead = torch.arange(keys) - (torch.arange(queries)[:, None] + keys - queries)
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen &= ahead <= 0
    return seen if window is None else seen & (ahead.abs() < window)


@pytest.mark.parametrize("reach", [None, 1, 4])
@pytest.mark.parametrize("length", [1, 9, 300])
def test_is_the_mixers_matrix(length: int, reach: int | None) -> None:
    """Φ v of the softmax and sigmoid mixers over the same band, in float64."""
    q, k, v = drawn(length, length, 2, 2)
    over = Band(None if reach is None else reach - 1, 0)
    bias, scale = -1.5, 3**-0.5
    pairs = (
        (SoftmaxAttention(q, k, over), {"weight": "softmax"}),
        (SigmoidAttention(q, k, bias, over), {"weight": "sigmoid", "bias": bias}),
    )
    for mixer, how in pairs:
        found = flash_attention(q, k, v, window=reach, **how)
        seen, do = band(length, length, True, reach), torch.zeros_like(found)
        limit = truth(
            Problem(q, k, v, do, seen, how["weight"], scale=scale, bias=how.get("bias", 0.0))
        )
        require_within(
            found, torch.einsum("bhij,bjhv->bihv", mixer.matrix(), v), limit.of_outputs, "Φ v"
        )


SHAPES = (
    (70, 70, True, None), (5, 70, True, 9), (1, 300, True, None), (9, 4, True, None), (40, 40, False, 6),
    (7, 30, False, None), (30, 7, False, None), (30, 7, False, 9), (0, 5, True, None), (5, 0, True, None),
)  # fmt: skip


@pytest.mark.parametrize(("weight", "normalised"), WEIGHTS)
@pytest.mark.parametrize(("queries", "keys", "causal", "window"), SHAPES)
def test_is_the_definition_with_its_gradients(
    weight: str, normalised: bool, queries: int, keys: int, causal: bool, window: int | None
) -> None:
    q, k, v = (x.requires_grad_() for x in drawn(queries, keys, dtype=torch.float32))
    bias = None if weight == "softmax" else -0.5
    how = {"weight": weight, "normalised": normalised, "bias": bias, "scale": 0.3}
    found = flash_attention(q, k, v, causal=causal, window=window, **how)
    do = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    seen = band(queries, keys, causal, window)
    data = [x.detach() for x in (q, k, v)]
    exact = truth(Problem(*data, do, seen, weight, normalised, bias=bias or 0.0))
    require_within(found, exact.outputs, exact.of_outputs, "outputs")
    gradients = torch.autograd.grad(found, (q, k, v), do)
    for each, other, bound, name in zip(
        gradients, exact.gradients, exact.of_gradients, "qkv", strict=True
    ):
        require_within(each, other, bound, f"gradient of {name}")
    blind = ~seen.any(1)
    assert not found[:, blind].any() and not gradients[0][:, blind].any()


@pytest.mark.parametrize(("weight", "normalised"), WEIGHTS)
def test_gradients_by_differences(weight: str, normalised: bool) -> None:
    leaves = [x.requires_grad_() for x in drawn(7, 9, batch=1)]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash_attention(q, k, v, weight=weight, normalised=normalised, window=4)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_packed_sequences_are_each_alone() -> None:
    q, k, v = drawn(40, 40, batch=1)
    starts = (0, 0, 17, 17, 40)
    for how in (
        {},
        {"window": 5},
        {"causal": False},
        {"causal": False, "window": 3, "weight": "sigmoid"},
    ):
        found = flash_attention(q, k, v, starts=torch.tensor(starts), **how)
        for first, after in zip(starts[:-1], starts[1:], strict=True):
            alone = flash_attention(*(x[:, first:after] for x in (q, k, v)), **how)
            seen = band(after - first, after - first, how.get("causal", True), how.get("window"))
            part = [x[:, first:after] for x in (q, k, v)]
            weight = how.get("weight", "softmax")
            limit = truth(Problem(*part, torch.zeros_like(alone), seen, weight, scale=3**-0.5))
            require_within(found[:, first:after], alone, 2 * limit.of_outputs, "a sequence")


@pytest.mark.parametrize("window", [None, 4])
def test_packed_decoding_is_each_alone(window: int | None) -> None:
    """Sequences with more keys than queries, one without a query, one without a key."""
    q, k, v = drawn(9, 31, batch=1)
    queries, keys = (0, 2, 2, 5, 9), (0, 7, 20, 20, 31)
    found = flash_attention(q, k, v, window=window, **packs(queries, keys))
    for n in range(4):
        rows, columns = slice(*queries[n : n + 2]), slice(*keys[n : n + 2])
        part = q[:, rows], k[:, columns], v[:, columns]
        alone = flash_attention(*part, window=window)
        seen = band(rows.stop - rows.start, columns.stop - columns.start, True, window)
        limit = truth(Problem(*part, torch.zeros_like(alone), seen, scale=3**-0.5))
        require_within(found[:, rows], alone, 2 * limit.of_outputs, "a sequence")


def test_whole_is_step_by_step() -> None:
    """Queries are the last of the keys, so decoding token by token gives the rows of the whole."""
    q, k, v = drawn(12, 12)
    whole = flash_attention(q, k, v)
    limit = truth(
        Problem(q, k, v, torch.zeros_like(whole), band(12, 12, True, None), scale=3**-0.5)
    )
    for t in range(12):
        step = flash_attention(q[:, t : t + 1], k[:, : t + 1], v[:, : t + 1])
        require_within(step, whole[:, t : t + 1], 2 * limit.of_outputs[:, t : t + 1], "a step")


def test_log_length_scaling_belongs_to_the_queries() -> None:
    """LSSA: weights softplus(c log(i) q_i·k_j / √K) of a row, divided by their sum."""
    q, k, v = drawn(20, 20, 2, 2)
    factor = 1.7 * torch.arange(1.0, 21.0, dtype=torch.float64).log()
    scaled = q * factor[:, None, None]
    found = flash_attention(scaled, k, v, weight="softplus", normalised=True)
    x = factor[:, None] * torch.einsum("bihk,bjhk->bhij", q, k) / 3**0.5
    w = torch.log1p(x.exp()).tril()
    exact = torch.einsum("bhij,bjhv->bihv", w / w.sum(-1, keepdim=True), v)
    p = Problem(scaled, k, v, torch.zeros_like(found), band(20, 20, True, None), "softplus", True)
    limit = truth(replace(p, scale=3**-0.5))
    require_within(found, exact, 2 * limit.of_outputs, "LSSA")


@pytest.mark.parametrize(("weight", "normalised"), WEIGHTS)
def test_large_scores_keep_float64(weight: str, normalised: bool) -> None:
    """Scores up to some tens, of both signs, where functions of float32 may round to their limits."""
    q, k, v = (x.requires_grad_() for x in drawn(20, 20))
    found = flash_attention(q, k, v, weight=weight, normalised=normalised, scale=20.0)
    do = torch.ones_like(found)
    p = Problem(
        q.detach(), k.detach(), v.detach(), do, band(20, 20, True, None), weight, normalised
    )
    exact = truth(replace(p, scale=20.0))
    require_within(found, exact.outputs, exact.of_outputs, "outputs")
    rows = zip(
        torch.autograd.grad(found, (q, k, v), do), exact.gradients, exact.of_gradients, strict=True
    )
    for each, other, bound in rows:
        require_within(each, other, bound, "a gradient")


def test_extreme_scores_stay_finite() -> None:
    """Scores of ±1e5: softmax is the largest key's value, sigmoid 0 or 1; no NaN in any gradient."""
    q = torch.full((1, 4, 1, 1), 1e5)
    k = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 4, 1, 1)
    v = torch.arange(4.0).reshape(1, 4, 1, 1)
    expected = {"softmax": [0.0, 0.0, 1.0, 1.0], "sigmoid": [0.0, 0.0, 2.0, 2.0]}
    for weight in ("softmax", "sigmoid", "softplus"):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        found = flash_attention(*leaves, weight=weight)
        found.sum().backward()
        assert all(bool(torch.isfinite(x.grad).all()) for x in leaves)  # type: ignore[union-attr]
        if weight in expected:
            assert found.flatten().tolist() == expected[weight]


def test_operators_are_what_torch_asks_for() -> None:
    q, k, v = (x.requires_grad_() for x in drawn(5, 7))
    for how in (("softmax", True), ("sigmoid", False)):
        given = (q, k, v, *how, 0.5, 0.0, True, None, None, None)
        torch.library.opcheck(torch.ops.dsf.flash_attention.default, given)
    with torch.no_grad():
        outputs, row = torch.ops.dsf.flash_attention(
            q, k, v, "softmax", True, 0.5, 0.0, True, None, None, None
        )
        given = (outputs, outputs, row, q, k, v, "softmax", True, 0.5, 0.0, True, None, None, None)
        torch.library.opcheck(torch.ops.dsf.flash_attention_backward.default, given)


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q, k, v = (torch.empty(x.shape, device="cuda", dtype=torch.bfloat16) for x in drawn(5, 7))
        outputs, row = torch.ops.dsf.flash_attention(
            q, k, v, "softmax", True, 1.0, 0.0, True, None, None, None
        )
        assert outputs.shape == (2, 5, 4, 2) and outputs.dtype == torch.bfloat16
        assert row.shape == (2, 5, 4) and row.dtype == torch.float32 and row.device.type == "cuda"


COMPILED = """
from dsf.kernels import flash_attention, neighborhood_attention
from dsf.sim import Pattern
sizes = [(2, 4, 4, 4, 3), (2, 4, 4, 2, 3), (2, 4, 4, 2, 2)]
leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
pattern = Pattern((4, 4), (2, 3), causal=(True, False))
def total(*each):
    near = neighborhood_attention(*each, pattern)
    flat = [x.flatten(1, 2) for x in each]
    return near.square().sum() + flash_attention(*flat, window=4, weight="sigmoid", bias=-1.0).sum()
"""


def test_compiles_without_a_break() -> None:
    require_compiles(COMPILED)


def wrong(place: int, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    given = drawn(5, 7)
    given[place] = torch.zeros(shape, dtype=dtype)
    return given


def packs(queries: tuple[int, ...], keys: tuple[int, ...]) -> dict[str, Tensor]:
    return {"starts": torch.tensor(queries), "key_starts": torch.tensor(keys)}


BAD = {
    "axes": (lambda: flash_attention(*wrong(0, 2, 5, 3)), r"`q` must be \(B, T, heads, channels\)"),
    "type": (lambda: flash_attention(*wrong(0, 2, 5, 4, 3, dtype=torch.float32)), "of one type"),
    "whole": (lambda: flash_attention(*(x.long() for x in drawn(5, 7))), "of a floating-point type"),
    "values": (lambda: flash_attention(*wrong(2, 2, 6, 2, 2)), "`k` and `v` must agree"),
    "channels": (lambda: flash_attention(*wrong(0, 2, 5, 4, 4)), "`q` and `k` must agree"),
    "heads": (lambda: flash_attention(*wrong(0, 2, 5, 3, 3)), "cannot share"),
    "window": (lambda: flash_attention(*drawn(5, 7), window=0), "at least 1"),
    "weight": (lambda: flash_attention(*drawn(5, 7), weight="relu"), "one of softmax, sigmoid, softplus"),
    "bias": (lambda: flash_attention(*drawn(5, 7), bias=1.0), "leave it out"),
    "packed": (
        lambda: flash_attention(*drawn(5, 7, batch=1), starts=torch.tensor([0, 5])), "give `key_starts` too",
    ),
    "keys that are too few": (
        lambda: flash_attention(*drawn(5, 7, batch=1), **packs((0, 5), (0, 6))), "`key_starts`: `starts` goes from 0",
    ),
    "sequences": (
        lambda: flash_attention(*drawn(5, 7, batch=1), **packs((0, 5), (0, 3, 7))), "packs 1 sequences, `key_starts` 2",
    ),
    "no starts": (
        lambda: flash_attention(*drawn(5, 7), key_starts=torch.tensor([0, 7])), "which was not given",
    ),
    "starts": (lambda: flash_attention(*drawn(5, 5), starts=torch.tensor([0, 5])), "one row of tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()

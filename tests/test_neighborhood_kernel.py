"""The operator of neighborhood attention on the CPU: the definition in float64, gradients, torch's own checks."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import Problem, truth
from gna import brute
from torch import Tensor

from dsf.errors import InvalidInput, Refused
from dsf.kernels import flash_attention, neighborhood_attention
from dsf.kernels.attention.geometry import of_pattern
from dsf.numerics import require_within
from dsf.sim import Pattern, Tiling, count, count_backward
from dsf.sim.pattern import show

PATTERNS = (
    Pattern(70, 24),
    Pattern(61, 16, 4, causal=True),
    Pattern(50, 8, 4, 3),
    Pattern((9, 11), (3, 5), (1, 2)),
    Pattern((8, 9), (3, 4), (2, 1), (2, 1), (False, True)),
    Pattern((4, 5, 8), (2, 4, 4), (1, 2, 3), causal=(True, False, False)),
    Pattern((5, 4, 6), (2, 3, 3), (1, 1, 2), (2, 1, 2), (False, True, False)),
    Pattern((2, 3, 2, 3), (2, 2, 2, 2), dilation=(1, 1, 1, 1), causal=(False, True, False, False)),
)


def drawn(pattern: Pattern, dtype: torch.dtype = torch.float64, heads: int = 4) -> list[Tensor]:
    """q, k, v; two heads of q share one of k and v."""
    draw = torch.Generator().manual_seed(pattern.tokens)
    lead = (2, *pattern.layout)
    sizes = ((*lead, heads, 3), (*lead, heads // 2, 3), (*lead, heads // 2, 2))
    return [torch.randn(size, generator=draw, dtype=dtype) for size in sizes]


def seen_in(pattern: Pattern) -> Tensor:
    p = pattern
    return torch.from_numpy(brute.mask(p.layout, p.window, p.stride, p.dilation, p.causal))


@pytest.mark.parametrize("weight", ["softmax", "sigmoid", "softplus"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: show(pattern.layout))
def test_is_the_definition_with_its_gradients(pattern: Pattern, weight: str) -> None:
    leaves = [x.requires_grad_() for x in drawn(pattern, torch.float32)]
    found = neighborhood_attention(*leaves, pattern, weight=weight, scale=0.3)
    do = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, leaves, do)
    flat = [x.detach().flatten(1, pattern.rank) for x in (*leaves, do)]
    exact = truth(Problem(*flat, seen_in(pattern), weight))
    require_within(found.flatten(1, pattern.rank), exact.outputs, exact.of_outputs, "outputs")
    rows = zip(gradients, exact.gradients, exact.of_gradients, "qkv", strict=True)
    for each, other, bound, name in rows:
        require_within(each.flatten(1, pattern.rank), other, bound, f"gradient of {name}")


LARGE = (
    (Pattern((30, 48, 80), (18, 24, 24), (16, 8, 8)), "4x8x8/2x8x8"),
    (Pattern((16, 44, 80), (16, 32, 48), (1, 8, 1)), "8x4x8/4x4x8"),
    (Pattern((256, 256), (80, 80), dilation=(1, 3), causal=(True, False)), "16x16/16x8"),
)


@pytest.mark.parametrize(("pattern", "tiles"), LARGE, ids=lambda x: str(x)[:24])
def test_tables_of_published_sizes_hold_the_simulators_tiles(pattern: Pattern, tiles: str) -> None:
    """Over axes the tiles of a box multiply, so the sums along each axis do."""
    tiling, device = Tiling.parse(tiles), torch.device("cpu")
    geometry = of_pattern(pattern)
    expected = count(pattern, tiling).visited, count_backward(pattern, tiling).visited
    for of_keys in (False, True):
        walk = geometry.walk(tiling.q, tiling.kv, of_keys, device)
        many, found = (walk.boxes[:, 1] - walk.boxes[:, 0]).tolist(), 1
        for line, q, kv in zip(geometry.lines[::-1], tiling.q[::-1], tiling.kv[::-1], strict=True):
            rows = line.step * line.tiles(line.keys, kv if of_keys else q)
            found, many = found * sum(many[:rows]), many[rows:]
        assert found == expected[of_keys] and many == [1] * (3 - pattern.rank)


def test_gradients_by_differences() -> None:
    pattern = PATTERNS[4]
    leaves = [x[:1].requires_grad_() for x in drawn(pattern, heads=2)]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return neighborhood_attention(q, k, v, pattern)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_a_causal_line_is_windowed_attention() -> None:
    """A causal neighborhood of stride 1 in one axis is attention over a window."""
    pattern = Pattern(40, 7, causal=True)
    q, k, v = drawn(pattern)
    found, other = neighborhood_attention(q, k, v, pattern), flash_attention(q, k, v, window=7)
    limit = truth(Problem(q, k, v, torch.zeros_like(found), seen_in(pattern), scale=3**-0.5))
    require_within(found, other, 2 * limit.of_outputs, "a causal line")


def test_operators_are_what_torch_asks_for() -> None:
    pattern = PATTERNS[4]
    q, k, v = (x.flatten(1, 2).requires_grad_() for x in drawn(pattern))
    p = pattern
    seen = (p.layout, p.window, p.stride, p.dilation, p.causal, (8, 2), (2, 8))
    given = (q, k, v, "softmax", True, 0.5, 0.0, *map(list, seen))
    torch.library.opcheck(torch.ops.dsf.neighborhood_attention.default, given)


def test_shapes_are_known_on_a_device_that_is_not_there() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q, k, v = (torch.empty(x.shape, device="cuda") for x in drawn(PATTERNS[3], torch.float32))
        given = [x.flatten(1, 2) for x in (q, k, v)]
        rest = ((9, 11), (3, 5), (1, 2), (1, 1), (False, False), None, None)
        outputs, row = torch.ops.dsf.neighborhood_attention(
            *given, "sigmoid", False, 1.0, 0.0, *rest
        )
        assert outputs.shape == (2, 99, 4, 2) and row.shape == (0,)
        assert outputs.device.type == row.device.type == "cuda"


def test_what_no_program_can_run_is_refused() -> None:
    """On CUDA tensors, with what to do instead; on the CPU both run."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    pytest.importorskip("triton")
    with FakeTensorMode():
        wide = torch.empty(1, 4, 1, 300, device="cuda")
        with pytest.raises(Refused, match="a tile holds 256"):
            flash_attention(wide, wide, wide)
        many = torch.empty(1, *PATTERNS[7].layout, 1, 16, device="cuda")
        with pytest.raises(Refused, match="4 axes; programs walk three"):
            neighborhood_attention(many, many, many, PATTERNS[7])
    assert flash_attention(*[torch.zeros(1, 4, 1, 300)] * 3).shape == (1, 4, 1, 300)


def called(pattern: Pattern = PATTERNS[3], **how) -> Tensor:
    return neighborhood_attention(*drawn(PATTERNS[3]), pattern, **how)


BAD = {
    "layout": (lambda: called(Pattern((9, 12), (3, 5))), r"`q` must be \(B, 9, 12, heads, channels\)"),
    "extra keys": (lambda: called(Pattern((9, 11), (3, 5), extra_keys=2)), "no place in the layout"),
    "dynamic": (lambda: called(tiling=Tiling((4, 4), (4, 4), "dynamic")), "fixed grid"),
    "odd tiles": (lambda: called(tiling=Tiling((3, 8), (4, 4))), "powers of two"),
    "small tiles": (lambda: called(tiling=Tiling((2, 4), (4, 4))), "hold 16 to 128"),
    "axes": (lambda: called(tiling=Tiling(16, 16)), "have 1 axes"),
    "weight": (lambda: called(weight="exp"), "one of softmax"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()


def test_tiles_change_nothing_on_the_cpu() -> None:
    assert torch.equal(called(), called(tiling=Tiling((4, 8), (8, 4))))

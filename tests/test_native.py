"""Chunks in C++: what they admit, every width of vector, memory beside tensors, threads, no compiler."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch
from lawbook import laws
from torch import Tensor
from torch.autograd import forward_ad

from dsf.coupling import OuterCoupling
from dsf.forms import native, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.lowering import lower
from dsf.forms.native import library
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Identity, Scalar
from dsf.system import System

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="nothing can be compiled here")

KINDS = ("identity", "scalar", "log scalar", "diagonal", "dplr", "dplr scalar", "dplr diagonal")
LENGTHS = (1, 15, 16, 17, 33, 70)


def drawn(
    kind: str, length: int, sizes: tuple[int, int, int, int] = (2, 3, 5, 7), dtype=torch.float64
) -> tuple[System, Tensor, State]:
    """A system that compiled code computes; decays have both signs, and the fourth is zero."""
    draw = torch.Generator().manual_seed(length)
    batch, heads, keys, values = sizes

    def normal(*own: int) -> Tensor:
        return torch.randn(batch, length, heads, *own, generator=draw, dtype=torch.float64)

    gate: Identity | Scalar | Diagonal = Identity()
    if "scalar" in kind or "diagonal" in kind:
        own = (keys,) if "diagonal" in kind else ()
        decay = (2 * torch.sigmoid(normal(*own)) - 1).to(dtype)
        decay[:, 3:4] = 0
        make = Diagonal if own else Scalar
        gate = make.from_log(decay.abs().log()) if "log" in kind else make(decay)
    transition = gate
    if "dplr" in kind:
        right = torch.nn.functional.normalize(normal(keys), dim=-1).to(dtype)[..., None]
        transition = DPLR(gate, -torch.sigmoid(normal(1, 1)).to(dtype) * right, right)
    vectors = (OuterCoupling(normal(keys).to(dtype)) for _ in range(2))
    state = torch.randn(batch, heads, keys, values, generator=draw, dtype=torch.float64)
    return System(transition, *vectors), normal(values).to(dtype), State(state.to(dtype))


def admitted(system: System, tokens: Tensor, state: State | None = None) -> bool:
    return native.admits(lower(system, tokens, state).core)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_outputs_states_and_gradients_are_those_of_the_recurrence(kind: str, dtype) -> None:
    for length in LENGTHS:
        system, tokens, state = drawn(kind, length)
        assert admitted(system, tokens, state)
        laws.forms_agree(Chunkwise(), system, tokens, state, dtype)
        laws.gradients_agree(Chunkwise(), system, tokens, state, dtype)


WIDTHS = [(16,), (32, "-mavx2", "-mfma"), library._WIDTHS["AVX512"]]


@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: f"{width[0]} bytes")
def test_every_width_of_vector_is_right(width, monkeypatch, tmp_path) -> None:
    able = torch.backends.cpu.get_cpu_capability()
    if able not in ("AVX2", "AVX512")[(width[0] == 64) :] and len(width) > 1:
        pytest.skip(f"this processor has {able}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "_WIDTHS", {able: width})
    monkeypatch.setattr(library, "_library", library._library.__wrapped__)
    made = library._library()
    assert made is not None and len(list(tmp_path.glob("dsf/chunks-*.so"))) == 1
    monkeypatch.setattr(library, "_library", lambda: made)
    for kind in KINDS:
        for dtype in (torch.float32, torch.float64):
            laws.forms_agree(Chunkwise(), *drawn(kind, 37, (1, 2, 17, 18)), dtype)
            laws.gradients_agree(Chunkwise(), *drawn(kind, 37), dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_no_number_beside_a_tensor_is_read_or_written(kind: str) -> None:
    """Tensors that lie in larger ones: NaN around them is not seen, and stays."""
    system, tokens, state = drawn(kind, 21)
    room: list[tuple[Tensor, Tensor]] = []

    def inside(x: Tensor) -> Tensor:
        outer = torch.full([n + 2 for n in x.shape], torch.nan, dtype=x.dtype)
        view = outer[tuple(slice(1, n + 1) for n in x.shape)]
        view.copy_(x)
        room.append((outer, view))
        return view

    def results(place) -> list[Tensor]:
        leaves: list[Tensor] = []

        def leaf(x: Tensor) -> Tensor:
            leaves.append(place(x).requires_grad_())
            return leaves[-1]

        own = system.map(leaf), leaf(tokens), State(leaf(state.memory))
        outputs, last = run(*own, form=Chunkwise())
        up = [torch.ones_like(outputs), torch.ones_like(last.memory)]
        found = (outputs, last.memory)
        return [*found, *torch.autograd.grad(found, leaves, up)]

    for one, other in zip(results(inside), results(Tensor.clone), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        for outer, view in room:
            view.fill_(torch.nan)
            assert bool(outer.isnan().all())


def test_the_count_of_threads_changes_no_bit(monkeypatch) -> None:
    system, tokens, state = drawn("dplr diagonal", 200, (2, 5, 16, 16))
    monkeypatch.setattr("dsf.forms.native.step._WORTH_A_THREAD", 1)
    found = []
    for threads in (1, 2, 3, 11):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        outputs, last = run(system, tokens, state, form=Chunkwise())
        found.append((outputs, last.memory))
    for outputs, memory in found[1:]:
        assert torch.equal(outputs, found[0][0]) and torch.equal(memory, found[0][1])


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # within torch, where there are tangents
def test_what_is_not_admitted() -> None:
    system, tokens, state = drawn("scalar", 9)
    assert admitted(system, tokens, state)
    assert not admitted(system.map(lambda x: x.to(torch.complex128)), tokens)
    gate = Scalar(torch.ones(2, 9, 3, dtype=torch.float64))
    rank_two = DPLR(gate, *(torch.zeros(2, 9, 3, 5, 2, dtype=torch.float64) for _ in range(2)))
    assert not admitted(system.replace(transition=rank_two), tokens)
    reads = OuterCoupling(torch.zeros(2, 9, 3, 2, 5, dtype=torch.float64))
    assert not admitted(system.replace(read=reads), tokens)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tokens, torch.ones_like(tokens))
        assert not admitted(system, dual, state)


def test_where_it_does_not_compile_torch_runs(monkeypatch, tmp_path) -> None:
    """With a warning that says what the compiler said, and the same results within their bounds."""

    def fail(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr="chunks.cpp:1: no such thing")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library.subprocess, "run", fail)
    monkeypatch.setattr(library, "_library", library._library.__wrapped__)
    monkeypatch.setattr(library, "missing", library.missing.__wrapped__)
    with pytest.warns(UserWarning, match="no such thing"):
        refusal = library.missing()
    assert refusal is not None and "compile" in refusal.reason
    assert list(tmp_path.glob("dsf/*")) == []
    monkeypatch.setattr(library, "missing", lambda: refusal)
    system, tokens, state = drawn("scalar", 40)
    assert not admitted(system, tokens, state)
    laws.forms_agree(Chunkwise(), system, tokens, state, torch.float32)


def test_without_a_compiler_the_reason_is_given(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refusal = library.missing.__wrapped__()
    assert refusal is not None and "g++" in str(refusal)


def test_laws_notice_streams_that_are_exchanged(monkeypatch) -> None:
    """A planted bug: what is read is handed over as what is written."""
    names = list(library.SLOTS)
    first, second = names.index("read"), names.index("write")
    names[first], names[second] = names[second], names[first]
    monkeypatch.setattr(library, "SLOTS", tuple(names))
    with pytest.raises(AssertionError):
        laws.forms_agree(Chunkwise(), *drawn("dplr", 20), torch.float32)


def test_gradient_law_notices_states_of_another_place(monkeypatch) -> None:
    """A planted bug: the way back begins from what was kept of the steps before."""
    true = library.call

    def call(name: str, sizes, streams) -> None:
        if name == "backward":
            streams = streams | {"starts": streams["starts"].roll(1, 0)}
        return true(name, sizes, streams)

    monkeypatch.setattr(library, "call", call)
    with pytest.raises(AssertionError):
        laws.gradients_agree(Chunkwise(), *drawn("diagonal", 70), torch.float64)

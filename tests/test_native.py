"""Chunks and scans in C++: what they admit, every width of vector, memory beside tensors, threads, no compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from lawbook import laws
from torch import Tensor
from torch.autograd import forward_ad

from dsf.cli.kernels import listed
from dsf.coupling import ChannelCoupling, OuterCoupling, ScaledCoupling
from dsf.forms import native, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.core import Core
from dsf.forms.lowering import lower
from dsf.forms.native import library, scan, streams
from dsf.forms.scan import Scan
from dsf.numerics import require_within, unit_roundoff
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Discretised, Elementwise, Identity, Scalar
from dsf.structure.base import Structure
from dsf.system import System

pytestmark = pytest.mark.skipif(
    native.missing("scan") is not None, reason="nothing can be compiled here"
)


@dataclass(frozen=True)
class Way:
    """A form, the library that runs it, and what it is tried on."""

    library: str
    form: Chunkwise | Scan
    admits: Callable[[Core], bool]
    kinds: tuple[str, ...]

    def __str__(self) -> str:
        return self.library


_GATES = ("identity", "scalar", "log scalar", "diagonal", "log diagonal")
CHUNKS = Way(
    "chunks",
    Chunkwise(),
    native.admits_chunks,
    (*_GATES, "dplr", "dplr scalar", "dplr diagonal"),
)
_NUMBERS = ("elementwise", "log elementwise", "discretised", "discretised scaled", "scalar scaled")
SCAN = Way("scan", Scan(), native.admits_scan, (*_GATES, *_NUMBERS))
WAYS = (CHUNKS, SCAN)
EACH = pytest.mark.parametrize(
    ("way", "kind"), [(way, kind) for way in WAYS for kind in way.kinds], ids=str
)
LENGTHS = (1, 15, 16, 17, 33, 70)


def drawn(
    kind: str, length: int, sizes: tuple[int, int, int, int] = (2, 3, 5, 7), dtype=torch.float64
) -> tuple[System, Tensor, State]:
    """A system that compiled code computes; decays have both signs, and those of the fourth step are zero."""
    draw = torch.Generator().manual_seed(length)
    batch, heads, keys, values = sizes

    def normal(*own: int) -> Tensor:
        return torch.randn(batch, length, heads, *own, generator=draw, dtype=torch.float64)

    axes = {"scalar": (Scalar, ()), "diagonal": (Diagonal, (keys,))}
    axes["elementwise"] = (Elementwise, (keys, values))
    gate: Identity | Scalar | Diagonal | Elementwise = Identity()
    for name in axes.keys() & set(kind.split()):
        make, own = axes[name]
        decay = (2 * torch.sigmoid(normal(*own)) - 1).to(dtype)
        decay[:, 3:4] = 0
        gate = make.from_log(decay.abs().log()) if "log" in kind else make(decay)
    transition: Structure = gate
    if "discretised" in kind:
        rate = -normal(keys, values)[:, :1].abs()
        transition = Discretised(normal(1, values).abs().to(dtype), rate.to(dtype))
    if "dplr" in kind:
        right = torch.nn.functional.normalize(normal(keys), dim=-1).to(dtype)[..., None]
        transition = DPLR(gate, -torch.sigmoid(normal(1, 1)).to(dtype) * right, right)
    write, read = (OuterCoupling(normal(keys).to(dtype)) for _ in range(2))
    if "scaled" in kind:
        write = ScaledCoupling(write.weights, normal(values).to(dtype))
    state = torch.randn(batch, heads, keys, values, generator=draw, dtype=torch.float64)
    return System(transition, write, read), normal(values).to(dtype), State(state.to(dtype))


def admitted(way: Way, system: System, tokens: Tensor, state: State | None = None) -> bool:
    return way.admits(lower(system, tokens, state).core)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_outputs_states_and_gradients_are_those_of_the_recurrence(
    way: Way, kind: str, dtype
) -> None:
    for length in LENGTHS:
        system, tokens, state = drawn(kind, length)
        assert admitted(way, system, tokens, state)
        laws.forms_agree(way.form, system, tokens, state, dtype)
        laws.gradients_agree(way.form, system, tokens, state, dtype)


@pytest.mark.parametrize(
    "kind", ["identity", "scalar", "diagonal", "log elementwise", "discretised scaled"]
)
def test_every_count_of_keys_and_channels_is_scanned(kind: str, monkeypatch) -> None:
    """Vectors that are not full, groups of them that are not even, keys that are left over, heads cut in parts."""
    monkeypatch.setattr(scan, "_FEW", 1)
    for values in (1, 2, 3, 4, 17, 63, 64, 65, 129, 200, 300):
        drawn_here = drawn(kind, 37, (1, 2, (1, 3, 5)[values % 3], values))
        assert admitted(SCAN, *drawn_here)
        laws.forms_agree(Scan(), *drawn_here, torch.float32)
        laws.gradients_agree(Scan(), *drawn_here, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_exponential_is_right_to_its_ends(dtype) -> None:
    """Within two units of torch's, as decays in a scan of one step: results that are small, zero, infinite, NaN."""
    info = torch.finfo(dtype)
    ends = torch.tensor([-torch.inf, -1e30, -1.0, -0.0, 0.0, 1e-30, 1e30, torch.inf, torch.nan])
    least, most = (torch.tensor(x, dtype=torch.float64).log() for x in (info.tiny, info.max))
    inner = torch.linspace(float(least), float(most), 4001, dtype=torch.float64)[1:-1]
    logs = torch.cat([inner, ends.double()]).to(dtype).reshape(1, 1, 1, 1, -1)
    ones, none = torch.ones(1, 1, 1, 1, dtype=dtype), torch.zeros_like(logs)[0]
    system = System(Elementwise.from_log(logs), OuterCoupling(ones), OuterCoupling(ones))
    assert admitted(SCAN, system, none)
    found = run(system, none, State(torch.ones_like(logs)[0]), form=Scan())[0].flatten()
    wanted = logs.flatten().exp()
    special = ~(torch.isfinite(wanted) & (wanted > 0))
    assert torch.equal(found[special].nan_to_num(nan=7.0), wanted[special].nan_to_num(nan=7.0))
    found, wanted = found[~special], wanted[~special]
    require_within(found, wanted.double(), 4 * unit_roundoff(dtype) * wanted.double(), "exp")


WIDTHS = [(16,), (32, "-mavx2", "-mfma"), library._WIDTHS["AVX512"]]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: f"{width[0]} bytes")
def test_every_width_of_vector_is_right(width, way: Way, monkeypatch, tmp_path) -> None:
    able = torch.backends.cpu.get_cpu_capability()
    if able not in ("AVX2", "AVX512")[(width[0] == 64) :] and len(width) > 1:
        pytest.skip(f"this processor has {able}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "_WIDTHS", {able: width})
    monkeypatch.setattr(library, "_library", library._library.__wrapped__)
    made = library._library(way.library)
    assert made is not None and len(list(tmp_path.glob(f"dsf/{way.library}-*.so"))) == 1
    monkeypatch.setattr(library, "_library", lambda name: made)
    for kind in way.kinds:
        for dtype in (torch.float32, torch.float64):
            laws.forms_agree(way.form, *drawn(kind, 37, (1, 2, 17, 18)), dtype)
            laws.gradients_agree(way.form, *drawn(kind, 37), dtype)


@EACH
def test_no_number_beside_a_tensor_is_read_or_written(way: Way, kind: str) -> None:
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
        outputs, last = run(*own, form=way.form)
        up = [torch.ones_like(outputs), torch.ones_like(last.memory)]
        found = (outputs, last.memory)
        return [*found, *torch.autograd.grad(found, leaves, up)]

    for one, other in zip(results(inside), results(Tensor.clone), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        for outer, view in room:
            view.fill_(torch.nan)
            assert bool(outer.isnan().all())


@pytest.mark.parametrize(
    ("way", "kind", "sizes"),
    [(CHUNKS, "dplr diagonal", (2, 5, 16, 16)), (SCAN, "discretised", (1, 2, 3, 700))],
    ids=str,
)
def test_the_count_of_threads_changes_no_bit(way: Way, kind: str, sizes, monkeypatch) -> None:
    system, tokens, state = drawn(kind, 200, sizes)
    system, tokens = system.map(Tensor.requires_grad_), tokens.requires_grad_()
    leaves = [*system.transition.leaves, *system.write.tensors, *system.read.tensors, tokens]
    monkeypatch.setattr(streams, "_WORTH_A_THREAD", 1)
    found = []
    for threads in (1, 2, 3, 11):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        outputs, last = run(system, tokens, state, form=way.form)
        back = torch.autograd.grad(outputs, leaves, torch.ones_like(outputs))
        found.append((outputs, last.memory, *back))
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # within torch, where there are tangents
def test_what_is_not_admitted() -> None:
    system, tokens, state = drawn("scalar", 9)
    reads = OuterCoupling(torch.zeros(2, 9, 3, 2, 5, dtype=torch.float64))
    for way in WAYS:
        assert admitted(way, system, tokens, state)
        assert not admitted(way, system.map(lambda x: x.to(torch.complex128)), tokens)
        assert not admitted(way, system.replace(read=reads), tokens)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(tokens, torch.ones_like(tokens))
            assert not admitted(way, system, dual, state)
    gate = Scalar(torch.ones(2, 9, 3, dtype=torch.float64))
    rank_two = DPLR(gate, *(torch.zeros(2, 9, 3, 5, 2, dtype=torch.float64) for _ in range(2)))
    assert not admitted(CHUNKS, system.replace(transition=rank_two), tokens)
    own = torch.ones(2, 9, 3, 5, 7, dtype=torch.float64)
    assert not admitted(SCAN, system.replace(write=ChannelCoupling(own)), tokens)
    assert not admitted(SCAN, system.replace(transition=Elementwise(own[:, :1])), tokens)
    steps = Discretised(own, own[:, :1])
    assert not admitted(SCAN, system.replace(transition=steps), tokens)


def test_where_it_does_not_compile_torch_runs(monkeypatch, tmp_path) -> None:
    """With a warning that says what the compiler said, and the same results within their bounds."""

    def fail(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr="chunks.cpp:1: no such thing")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library.subprocess, "run", fail)
    monkeypatch.setattr(library, "_library", library._library.__wrapped__)
    monkeypatch.setattr(library, "missing", library.missing.__wrapped__)
    with pytest.warns(UserWarning, match="no such thing"):
        refusal = library.missing("chunks")
    assert refusal is not None and "compile" in refusal.reason
    assert list(tmp_path.glob("dsf/*")) == []
    monkeypatch.setattr(library, "missing", lambda name: refusal)
    system, tokens, state = drawn("scalar", 40)
    for way in WAYS:
        assert not admitted(way, system, tokens, state)
        laws.forms_agree(way.form, system, tokens, state, torch.float32)


def test_the_list_of_kernels_compiles_nothing(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    listed()
    assert capsys.readouterr().out.count("C++, compiled on first use") == len(library.SLOTS)
    assert list(tmp_path.iterdir()) == []
    for name in library.SLOTS:
        made = library._place(name, library._flags())
        made.parent.mkdir(exist_ok=True)
        made.touch()
    listed()
    assert capsys.readouterr().out.count("on the CPU: compiled") == len(library.SLOTS)


def test_without_a_compiler_the_reason_is_given(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refusal = library.missing.__wrapped__("scan")
    assert refusal is not None and "g++" in str(refusal)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_laws_notice_streams_that_are_exchanged(way: Way, monkeypatch) -> None:
    """A planted bug: what is read is handed over as what is written."""
    names = list(library.SLOTS[way.library])
    first, second = names.index("read"), names.index("write")
    names[first], names[second] = names[second], names[first]
    monkeypatch.setitem(library.SLOTS, way.library, tuple(names))
    with pytest.raises(AssertionError):
        laws.forms_agree(way.form, *drawn("diagonal", 20), torch.float32)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradient_law_notices_states_of_another_place(way: Way, monkeypatch) -> None:
    """A planted bug: the way back begins from what was kept of the steps before."""
    true = library.call

    def call(which: str, name: str, sizes, streams) -> bool:
        if name == "backward":
            streams = streams | {"starts": streams["starts"].roll(1, 0)}
        return true(which, name, sizes, streams)

    monkeypatch.setattr(library, "call", call)
    with pytest.raises(AssertionError):
        laws.gradients_agree(way.form, *drawn("diagonal", 70), torch.float64)

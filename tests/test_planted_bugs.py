"""One planted bug per law: each law must notice it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from lawbook import laws
from lawbook.rows import Row

import dsf.forms.accumulate as accumulate
import dsf.forms.between_chunks as between_chunks
import dsf.forms.fold as fold
import dsf.forms.fold_decays as fold_decays
import dsf.forms.fold_gates as fold_gates
import dsf.forms.fold_gates_back as fold_gates_back
import dsf.forms.fold_rows as fold_rows
import dsf.forms.gated_scan as gated_scan
import dsf.forms.low_rank as low_rank
import dsf.forms.lowering as lowering
import dsf.forms.segments as segments
import dsf.forms.shared_decay as shared_decay
import dsf.forms.unit_triangular as unit_triangular
from dsf import packing
from dsf.forms import run
from dsf.forms.chunk_layout import ChunkLayout
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.convolution import Convolution
from dsf.forms.core import Core
from dsf.forms.gated_scan import GatedScan
from dsf.forms.native import NativeChunks
from dsf.forms.recurrent import Recurrent
from dsf.forms.scan import Scan
from dsf.forms.segments import Step
from dsf.forms.workspace import Workspace
from dsf.mixers import linear_attention, mlstm
from dsf.structure import Identity


@dataclass(frozen=True)
class Changed(Recurrent):
    """The loop on a problem that something has been done to."""

    change: Callable[[Core], Core] = lambda core: core

    def evaluate(self, core: Core):
        return super().evaluate(self.change(core))


def agree(form, row: Row, length: int = 40) -> None:
    system, tokens, state = row.draw(length)
    laws.forms_agree(form, system, tokens, state, torch.float32)


def caught(law: Callable[[], object]) -> None:
    with pytest.raises(AssertionError):
        law()


def test_the_laws_hold_where_nothing_is_planted() -> None:
    agree(Changed(), Row("diagonal", "outer"))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, memory=torch.zeros_like(c.memory)),
        lambda c: replace(c, transition=c.transition.map(lambda x, _: x.roll(1, 1))),
        lambda c: replace(c, transition=c.transition.conj()),
        lambda c: replace(c, tokens=c.tokens.to(torch.bfloat16).to(c.tokens.dtype)),
        lambda c: replace(c, write=c.write.map(lambda x: x * (1 + 3e-4))),
        lambda c: replace(c, read=c.read.map(lambda x: x.flip(2))),
    ],
    ids=["no start", "gate late", "conjugate", "bf16 inputs", "3e-4 too much", "heads mixed"],
)
def test_outputs_law_notices(change) -> None:
    caught(lambda: agree(Changed(change=change), Row("complex diagonal", "outer")))


def test_state_law_notices_padding_that_decays(monkeypatch) -> None:
    """Chunks padded with zero gates instead of the identity give right outputs and a wrong state."""

    def decaying(self, structure):
        return structure.map(lambda leaf, _: self(leaf))

    monkeypatch.setattr(ChunkLayout, "structure", decaying)
    caught(lambda: agree(Chunkwise(16), Row("diagonal", "outer")))


def test_chunk_law_notices_a_fold_with_the_decay_of_the_wrong_half(monkeypatch) -> None:
    in_pairs = fold_gates.in_pairs
    monkeypatch.setattr(fold_gates, "in_pairs", lambda totals: in_pairs(totals).flip(0))
    caught(lambda: agree(Chunkwise(16), Row("diagonal", "outer")))


def test_gradient_law_notices_a_fold_back_with_the_decay_of_the_wrong_half(monkeypatch) -> None:
    system, tokens, state = Row("diagonal", "outer").draw(40)
    in_pairs = fold_gates_back.in_pairs
    monkeypatch.setattr(fold_gates_back, "in_pairs", lambda totals: in_pairs(totals).flip(0))
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


@pytest.mark.parametrize("transition", ["scalar", "two factors"])
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_chunk_law_notices_a_decay_one_step_off(early, transition, monkeypatch) -> None:
    first = fold_decays._first
    monkeypatch.setattr(
        fold_decays, "_first", lambda decay, size: first(decay.roll(1 if early else -1, 1), size)
    )
    caught(lambda: agree(Chunkwise(16), Row(transition, "outer")))


@pytest.mark.parametrize(
    ("transition", "module"), [("scalar", shared_decay), ("two factors", fold_rows)]
)
def test_gradient_law_notices_a_table_of_decays_without_its_column(
    transition, module, monkeypatch
) -> None:
    system, tokens, state = Row(transition, "outer").draw(40)
    back = fold_decays.between_vjp

    def without(decay, between, of_between, *rest):
        of_between[:, 1:, 0] = 0
        return back(decay, between, of_between, *rest)

    laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64)
    monkeypatch.setattr(module, "between_vjp", without)
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


def test_outputs_law_notices_results_left_in_the_workspace(monkeypatch) -> None:
    """Outputs that lie in a buffer are overwritten by the next piece."""
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)
    agree(Chunkwise(16), Row("diagonal", "outer"))
    monkeypatch.setattr(segments, "walk", _joined_at_the_end(copied=True))
    agree(Chunkwise(16), Row("diagonal", "outer"))
    monkeypatch.setattr(segments, "walk", _joined_at_the_end(copied=False))
    caught(lambda: agree(Chunkwise(16), Row("diagonal", "outer")))


def _joined_at_the_end(copied: bool):
    def walk(step, core, segment, keeps):
        outputs, memories, space = [], [core.memory], Workspace(keeps)
        for start in range(0, core.length, segment):
            stop = min(start + segment, core.length)
            output, memory, _ = step(core.window(start, stop, memories[-1]), space)
            output = output if isinstance(output, torch.Tensor) else output.fresh()
            kept = output if copied else space("left here", output.shape, output).copy_(output)
            outputs.append(kept)
            memories.append(memory)
        return torch.cat(outputs, 1), memories, []

    return walk


def test_chunk_law_notices_a_fold_of_blocks_with_the_wrong_half(monkeypatch) -> None:
    monkeypatch.setattr(fold, "_halves", lambda s, which: s.map(lambda leaf, _: leaf[:, 0::2]))
    caught(lambda: agree(Chunkwise(16), Row("block", "outer")))


@pytest.mark.parametrize("transition", ["householder", "two factors"])
def test_wy_law_notices_reads_of_the_wrong_step(transition, monkeypatch) -> None:
    agree(Chunkwise(16), Row(transition, "outer"))

    def all_late(self, x):
        rows = x.unflatten(1, (-1, self.chunk))
        return rows, rows[:, :0]

    monkeypatch.setattr(fold_rows._Rows, "apart", all_late)
    caught(lambda: agree(Chunkwise(16), Row(transition, "outer")))


def test_wy_law_notices_an_inverse_of_first_order(monkeypatch) -> None:
    monkeypatch.setattr(unit_triangular, "_of_two", lambda given, onto, ones: onto.copy_(given))
    caught(lambda: agree(Chunkwise(16), Row("householder", "outer")))


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "way back"])
def test_gradient_law_notices_a_walk_with_low_rank_that_forgets_the_gate(
    backward, monkeypatch
) -> None:
    system, tokens, state = Row("two factors", "outer").draw(40)
    laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64)
    walk = low_rank._walk

    def forgetful(total, *given):
        walk(Identity() if given[-1] == backward else total, *given)

    monkeypatch.setattr(low_rank, "_walk", forgetful)
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


@pytest.mark.parametrize("transition", ["householder", "two factors", "complex and rank one"])
def test_gradient_law_notices_a_system_solved_without_its_adjoint(transition, monkeypatch) -> None:
    system, tokens, state = Row(transition, "outer").draw(40)
    laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64)
    step = low_rank.LowRank
    back = step.vjp

    def unsolved(self, core, kept, cotangents, space):
        start, inner, inverse = kept
        one = torch.eye(inverse.shape[-1], dtype=inverse.dtype).expand_as(inverse)
        return back(self, core, (start, inner, one), cotangents, space)

    monkeypatch.setattr(step, "vjp", unsolved)
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


@pytest.mark.parametrize("transition", ["diagonal", "scalar"])
def test_gradient_law_notices_a_walk_back_without_the_decay(transition, monkeypatch) -> None:
    system, tokens, state = Row(transition, "outer").draw(40)
    laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64)
    monkeypatch.setattr(between_chunks, "advance", lambda total, memory, onto: onto.add_(memory))
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


@pytest.mark.parametrize("lost", ["of_total", "from_start", "carry_back"])
def test_gradient_law_notices_a_decay_lost_on_the_way_back(lost, monkeypatch) -> None:
    system, tokens, state = Row("scalar", "outer").draw(40)
    monkeypatch.setattr(shared_decay._Decays, lost, lambda self, x, *rest: x)
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


@pytest.mark.parametrize("transition", ["discretised", "log diagonal", "scalar"])
def test_gradient_law_notices_a_gate_that_sees_its_own_step(transition, monkeypatch) -> None:
    system, tokens, state = Row(transition, "outer").draw(40)
    laws.gradients_agree(Scan(segment=16), system, tokens, state, torch.float64)
    back = gated_scan.gates_vjp
    monkeypatch.setattr(
        gated_scan,
        "gates_vjp",
        lambda core, a, h, after: back(core, a, h.roll(-1, 1), after),
    )
    caught(lambda: laws.gradients_agree(Scan(segment=16), system, tokens, state, torch.float64))


def test_gradient_law_notices_a_fold_back_that_forgets_the_diagonal(monkeypatch) -> None:
    system, tokens, state = Row("diagonal", "outer").draw(40)
    steps = fold_gates_back._of_steps
    monkeypatch.setattr(
        fold_gates_back, "_of_steps", lambda kept, of_gates: steps(kept, of_gates.clone())
    )
    caught(lambda: laws.gradients_agree(Chunkwise(16), system, tokens, state, torch.float64))


def test_scan_law_notices_a_segment_that_forgets(monkeypatch) -> None:
    walk = segments.walk

    def forgetful(step, core, segment, keeps):
        outputs, memories, kept = walk(step, core, segment, keeps)
        stop = min(2 * segment, core.length)
        piece = core.window(segment, stop, torch.zeros_like(core.memory))
        outputs[:, segment:stop] = step(piece, Workspace(keeps))[0]
        return outputs, memories, kept

    monkeypatch.setattr(segments, "walk", forgetful)
    caught(lambda: agree(Scan(segment=8), Row("diagonal", "outer")))


def test_convolution_law_notices_circular_wrapping() -> None:
    @dataclass(frozen=True)
    class Circular(Convolution):
        def evaluate(self, core: Core):
            outputs, memory = super().evaluate(core)
            return outputs + outputs.roll(1, 1) * 1e-3, memory

    caught(lambda: agree(Circular(), Row("diagonal", "outer", constant=True)))


@pytest.mark.parametrize(
    ("step", "transition"), [(GatedScan, "diagonal"), (segments.ByAutograd, "block")]
)
def test_gradient_law_notices_a_cotangent_lost_between_segments(
    step, transition, monkeypatch
) -> None:
    honest = step.vjp

    def lossy(self, core, kept, cotangents, space):
        lost = cotangents[0], torch.zeros_like(cotangents[1])
        return honest(self, core, kept, lost, space)

    monkeypatch.setattr(step, "vjp", lossy)
    system, tokens, state = Row(transition, "outer").draw(40)
    caught(lambda: laws.gradients_agree(Scan(segment=8), system, tokens, state, torch.float32))


def test_scan_law_notices_a_block_that_forgets_what_came_before(monkeypatch) -> None:
    in_blocks = accumulate._in_blocks
    monkeypatch.setattr(
        accumulate, "_in_blocks", lambda a, h, backward: in_blocks(0 * a, h, backward)
    )
    caught(lambda: agree(Scan(segment=64), Row("diagonal", "outer")))


def test_split_law_notices_a_normaliser_that_is_not_carried(monkeypatch) -> None:
    q, k, v = torch.randn(
        3, 1, 12, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    finish = lowering.Lowered.finish

    def dropping(self, outputs, memory):
        y, state = finish(self, outputs, memory)
        return y, replace(state, normaliser=torch.zeros_like(state.normaliser))

    laws.split_is_whole("chunkwise", linear_attention(q, k), v, None, [5])
    monkeypatch.setattr(lowering.Lowered, "finish", dropping)
    caught(lambda: laws.split_is_whole("chunkwise", linear_attention(q, k), v, None, [5]))


def test_split_law_notices_a_stabiliser_that_is_not_carried(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 1, 12, 2, 4, generator=generator, dtype=torch.float64)
    gates = 3 * torch.randn(2, 1, 12, 2, generator=generator, dtype=torch.float64)
    finish = lowering.Lowered.finish

    def dropping(self, outputs, memory):
        y, state = finish(self, outputs, memory)
        return y, replace(state, stabiliser=torch.zeros_like(state.stabiliser))

    laws.split_is_whole("chunkwise", mlstm(q, k, *gates), v, None, [5])
    monkeypatch.setattr(lowering.Lowered, "finish", dropping)
    caught(lambda: laws.split_is_whole("chunkwise", mlstm(q, k, *gates), v, None, [5]))


@pytest.mark.parametrize("form", [Chunkwise(16), Chunkwise()])
def test_past_law_notices_a_chunk_without_containment(form, monkeypatch) -> None:
    system, tokens, _ = Row("diagonal", "outer").draw(40)
    laws.past_is_untouched(form, system, tokens, "tokens", 25, torch.nan)
    for step in (Step, NativeChunks):
        monkeypatch.setattr(step, "finite", lambda self, found, space: True)
    caught(lambda: laws.past_is_untouched(form, system, tokens, "tokens", 25, torch.nan))


def test_packing_law_notices_padding_that_writes(monkeypatch) -> None:
    drawn = [Row("diagonal", "outer").draw(n, seed=n) for n in (4, 6, 7)]
    systems, tokens = [s.map(lambda x: x[:1]) for s, _, _ in drawn], [t[:1] for _, t, _ in drawn]
    laws.packed_is_apart("chunkwise", systems, tokens)
    monkeypatch.setattr(packing, "neutralise", lambda system, valid: system)
    caught(lambda: laws.packed_is_apart("chunkwise", systems, tokens))


def test_precision_law_notices_a_float16_accumulator() -> None:
    @dataclass(frozen=True)
    class Coarse(Recurrent):
        def evaluate(self, core: Core):
            outputs, memory = super().evaluate(core)
            return outputs, memory.to(torch.bfloat16).to(memory.dtype)

    caught(lambda: agree(Coarse(), Row("diagonal", "outer")))
    assert run(*Row("diagonal", "outer").draw(3)[:2])[0].shape[1] == 3

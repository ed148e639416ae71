"""Laws without tolerance: on systems of small integers every form gives the same bits.

The recurrent form is judged by numpy (`lawbook.naive`); all others, split runs, packed runs and
derived systems are judged by the recurrent form. The FFT of a convolution rounds even integers:
`test_forms_agree` judges that form.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lawbook import exact, naive
from lawbook.bits import (
    ORACLE,
    admitting,
    everything,
    integers,
    law_core_gradients,
    law_loop_is_numpy,
    law_packed_is_apart,
    law_padding_is_silent,
    law_pieces_are_whole,
    law_same_bits,
    results,
    same,
)
from lawbook.exact import FACTORS, possible, problem
from lawbook.spanning import name_of, pairs_of, spanning
from torch import Tensor

from dsf.composition import adjoint, concatenate, summarise
from dsf.forms import mixing_matrix, run
from dsf.forms.recurrent import Recurrent
from dsf.gauges import change_gauge, scale_state
from dsf.packing import pack, unpack
from dsf.state import State
from dsf.structure import DPLR
from dsf.system import System

ROWS = spanning(FACTORS, possible)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment per chunk, so that short runs have several."""
    monkeypatch.setattr("dsf.forms.chunkwise._WORKING_SET", 1)


# -- over the rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_form_gives_the_same_bits(row) -> None:
    given = problem(row)
    exact.within_range(given)
    law_loop_is_numpy(given)
    expected = results(ORACLE, given)
    for form in admitting(given.system):
        law_same_bits(form, given, expected)
        if given.system.normaliser is not None:
            law_core_gradients(form, given)


def test_the_rows_hold_every_pair_of_levels() -> None:
    """Of 20 000 random rows none has a pair of levels that the sample lacks."""
    import random

    have = set().union(*map(pairs_of, ROWS))
    draw = random.Random(1)
    for _ in range(20_000):
        row = {name: draw.choice(levels) for name, levels in FACTORS.items()}
        if possible(row):
            assert pairs_of(row) <= have, row


CUT = spanning(
    {**FACTORS, "length": (2, 8, 19), "timing": ("after", "before"), "cuts": ("middle", "steps")},
    possible,
    seed=1,
)


@pytest.mark.parametrize("row", CUT, ids=name_of)
def test_whole_is_split_is_step(row) -> None:
    """Outputs, final state and gradients, those of the start state and of shared leaves included."""
    levels = {name: row[name] for name in FACTORS}
    given = problem(levels)
    length = given.length
    cuts = tuple(range(1, length)) if row["cuts"] == "steps" else (0, length // 2, length // 2)
    if row["dtype"] in ("bf16", "f16"):  # gradients of shared leaves are rounded per piece
        given = problem(levels | {"dtype": "f32"})
    for form in admitting(given.system):
        if row["cuts"] == "middle" or length <= 8 or form == ORACLE:
            law_pieces_are_whole(form, given, cuts)


PACKED = spanning(
    {
        "kind": FACTORS["kind"],
        "coupling": FACTORS["coupling"],
        "timing": ("after", "before"),
        "extra": FACTORS["extra"],
        "start": FACTORS["start"],
    },
    possible,
    seed=2,
)


@pytest.mark.parametrize("row", PACKED, ids=name_of)
def test_packed_sequences_are_each_alone(row) -> None:
    levels = {name: row[name] for name in ("kind", "coupling", "timing", "extra", "start")}
    given = [problem({**levels, "length": n, "layout": "one"}) for n in (5, 0, 1, 8, 7)]
    states = None
    if given[0].state is not None:
        parts = [p.state for p in given if p.state is not None]
        states = State(
            *(
                None
                if getattr(parts[0], name) is None
                else torch.cat([getattr(s, name) for s in parts])
                for name in ("memory", "normaliser", "stabiliser")
            )
        )  # type: ignore[arg-type]
    for form in admitting(given[0].system):
        law_packed_is_apart(form, given, states)
    for before, after in zip(given, unpack(pack([p.system for p in given])), strict=True):
        same(after.write.weights, before.system.write.weights, "unpack")
        for found, expected in zip(
            after.transition.leaves, before.system.transition.leaves, strict=True
        ):
            same(found, expected, "unpack")


@pytest.mark.parametrize("row", everything(), ids=name_of)
def test_padding_is_silent(row) -> None:
    given = problem(row)
    for form in admitting(given.system):
        for lengths in ((7, 3), (0, 7), (1, 0)):
            law_padding_is_silent(form, given, torch.tensor(lengths))


@pytest.mark.parametrize("row", everything(), ids=name_of)
def test_concatenated_systems_run_in_turn(row) -> None:
    first, second = problem(row), problem({**row, "length": 4}, seed=1)
    joined = concatenate([first.system, second.system])
    expected, held = run(first.system, first.tokens, first.state, form=ORACLE)
    later, end = run(second.system, second.tokens, held, form=ORACLE)
    tokens = torch.cat([first.tokens, second.tokens], 1)
    for form in admitting(joined):
        outputs, final = run(joined, tokens, first.state, form=form)
        same(outputs, torch.cat([expected, later], 1), f"{form} outputs")
        same(final.memory, end.memory, f"{form} memory")


@pytest.mark.parametrize("first", FACTORS["kind"])
def test_concatenation_across_kinds(first) -> None:
    """Every pair of kinds that has a join; the product of transitions across the seam too."""
    for second in FACTORS["kind"]:
        a, b = (problem({"kind": kind, "length": 3}, seed=5) for kind in (first, second))
        mixing = {"block", "rank", "dense"}
        pair = {"elementwise" in kind for kind in (first, second)}
        if pair == {True, False} and any(w in first + second for w in mixing):
            continue
        tokens = torch.cat([a.tokens.real, b.tokens.real], 1)
        joined = concatenate([a.system, b.system])
        _, held = run(a.system, tokens[:, :3], form=ORACLE)
        _, end = run(b.system, tokens[:, 3:], held, form=ORACLE)
        for form in admitting(joined):
            found = run(joined, tokens, form=form)[1].memory
            same(found, end.memory.to(found.dtype), f"{first}, {second}: {form}")
        pieces = [summarise(p.system, tokens[:, i : i + 3]) for i, p in ((0, a), (3, b))]
        merged = pieces[0].then(pieces[1]).state.memory
        same(merged, end.memory.to(merged.dtype), f"{first}, {second}: merged pieces")


@pytest.mark.parametrize("row", everything(start="started"), ids=name_of)
def test_pieces_are_a_monoid(row) -> None:
    given = problem(row)
    system, tokens, state = given.system, given.tokens, given.state
    assert state is not None
    a, b, c = (summarise(system[i:j], tokens[:, i:j]) for i, j in ((0, 2), (2, 3), (3, 7)))
    nothing = summarise(system[:0], tokens[:, :0])
    expected = run(system, tokens, state, form=ORACLE)[1].memory
    products = (a.then(b).then(c), a.then(b.then(c)), nothing.then(a).then(b).then(c))
    for product in (*products, a.then(b).then(c.then(nothing))):
        same(product.apply(state).memory, expected, given.name)


@pytest.mark.parametrize("row", everything(start="started"), ids=name_of)
def test_the_adjoint_is_the_gradient(row) -> None:
    """du = Φᴴ dy, and the cotangent of the start state, with D in place."""
    if row["coupling"] not in ("outer", "channel write", "channel", "vector"):
        pytest.skip("several writes or read-outs have no adjoint of the same kind")
    for extra in ("plain", "D scalar", "D matrix"):
        given = problem({**row, "extra": extra})
        system = given.system
        tokens = given.tokens + 0j if system.is_complex else given.tokens.clone()
        assert given.state is not None
        memory = given.state.memory.clone().requires_grad_()
        outputs, final = run(system, tokens.requires_grad_(), State(memory), form=ORACLE)
        seeds = integers(outputs, 3), integers(final.memory, 4)
        expected = torch.autograd.grad((outputs, final.memory), (tokens, memory), seeds)
        back = adjoint(system)
        for form in admitting(back):
            found, end = run(back, seeds[0].flip(1), State(seeds[1]), form=form)
            same(found.flip(1), expected[0], f"{given.name} {form} tokens")
            same(end.memory, expected[1], f"{given.name} {form} memory")


@pytest.mark.parametrize("own", [(), (exact.K,)], ids=["one factor", "factor per key"])
@pytest.mark.parametrize("row", everything(start="started"), ids=name_of)
def test_a_gauge_of_powers_of_two_keeps_the_map(row, own) -> None:
    if "elementwise" in row["kind"] and own == ():
        row = {**row, "timing": "after"}
    given = problem(row)
    shape = (2, given.length + 1, 2, *own)
    powers = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(6))
    scale = 2.0 ** powers.double()
    moved = change_gauge(given.system, scale)
    assert given.state is not None
    start = scale_state(given.state, scale[:, 0])
    expected, end = run(given.system, given.tokens, given.state, form=ORACLE)
    for form in admitting(moved):
        outputs, final = run(moved, given.tokens, start, form=form)
        same(outputs, expected, f"{given.name} {form} outputs")
        same(final.memory, scale_state(end, scale[:, -1]).memory, f"{given.name} {form} memory")


def equation(system: System, phi: Tensor, tokens: Tensor, outputs: Tensor) -> str:
    """How Φ acts on tokens: r and w count read-outs and writes, v channels that differ."""
    if system.is_vector:
        return "bhirjw,bjhw->bihr"
    r, w = "r" * (outputs.ndim == 5), "w" * (tokens.ndim == 5)
    v = "v" * (phi.ndim - len(f"bhi{r}j{w}"))
    return f"bh{v}i{r}j{w},bjh{w}v->bih{r}v"


@pytest.mark.parametrize("row", everything(start="empty"), ids=name_of)
def test_the_mixing_matrix_mixes(row) -> None:
    for extra in ("plain", "D scalar"):
        full = {name: {**row, "extra": extra}.get(name, FACTORS[name][0]) for name in FACTORS}
        if not possible(full):
            continue
        given = problem({**row, "extra": extra})
        tokens = given.tokens.real
        phi = mixing_matrix(given.system)
        expected = run(given.system, tokens, form=ORACLE)[0]
        how = equation(given.system, phi, tokens, expected)
        same(torch.einsum(how, phi, tokens.to(phi.dtype)), expected, f"{given.name} Φ u")


# -- each law can fail --------------------------------------------------------------------------------


def caught(call) -> None:
    with pytest.raises(AssertionError):
        call()


def test_numpy_notices_a_loop_that_reads_too_early() -> None:
    class Late(Recurrent):
        def evaluate(self, core):
            outputs, memory = super().evaluate(core)
            return outputs.roll(1, 1), memory

    row = {"kind": "diagonal", "coupling": "outer", "length": 7}
    law_loop_is_numpy(problem(row))
    caught(lambda: law_loop_is_numpy(problem(row), Late()))


@pytest.mark.parametrize("leaf", range(4), ids=["gate", "write", "read", "tokens"])
def test_bits_notice_a_wrong_gradient(leaf: int) -> None:
    class Biased(Recurrent):
        """Right outputs; the gradient of one leaf is doubled."""

        def evaluate(self, core):
            x = core.tensors[leaf]
            doubled = (x - x.detach()) + x if x.requires_grad else x
            tensors = (*core.tensors[:leaf], doubled, *core.tensors[leaf + 1 :])
            return super().evaluate(core.rebuild(tensors, core.memory))

    given = problem({"kind": "diagonal", "coupling": "outer", "length": 7})
    caught(lambda: law_same_bits(Biased(), given, results(ORACLE, given)))


def test_bits_notice_a_missing_conjugate() -> None:
    class Plain(Recurrent):
        def evaluate(self, core):
            return super().evaluate(replace(core, transition=core.transition.conj()))

    given = problem({"kind": "complex diagonal", "coupling": "outer", "length": 7})
    caught(lambda: law_same_bits(Plain(), given, results(ORACLE, given)))


def test_pieces_notice_a_start_state_without_gradient() -> None:
    class Detached(Recurrent):
        def evaluate(self, core):
            return super().evaluate(replace(core, memory=core.memory.detach()))

    given = problem({"kind": "scalar", "coupling": "outer", "length": 8, "start": "started"})
    law_pieces_are_whole(ORACLE, given, (4,))
    caught(lambda: law_pieces_are_whole(Detached(), given, (4,)))


@pytest.mark.parametrize("what", ["state", "order"])
def test_packing_notices(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """States of the wrong sequence; sequences that start from their neighbour's state."""
    from dsf import packing

    row = {"kind": "diagonal", "coupling": "outer", "layout": "one"}
    given = [problem({**row, "length": n}) for n in (5, 0, 1, 8, 7)]
    law_packed_is_apart(ORACLE, given, None)
    if what == "state":
        joined = packing._join_states
        monkeypatch.setattr(packing, "_join_states", lambda s, back: joined(s, back.flip(0)))
        caught(lambda: law_packed_is_apart(ORACLE, given, None))
    else:
        through = type("Through", (Recurrent,), {})()
        monkeypatch.setattr(
            packing,
            "run_packed",
            lambda system, tokens, state, form: run(
                system.replace(boundaries=None), tokens, state, form=form
            ),
        )
        caught(lambda: law_packed_is_apart(through, given, None))


def test_padding_notices_a_step_that_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsf import packing

    given = problem({"kind": "scalar", "coupling": "outer", "length": 7, "start": "started"})
    law_padding_is_silent(ORACLE, given, torch.tensor([7, 3]))
    monkeypatch.setattr(packing, "_keep_transition", lambda transition, keep: transition)
    caught(lambda: law_padding_is_silent(ORACLE, given, torch.tensor([7, 3])))


def test_numpy_and_the_library_share_no_dense_matrix() -> None:
    """The oracle's matrices are its own: a wrong `DPLR.dense` does not hide."""
    given = problem({"kind": "rank one", "coupling": "outer", "length": 3})
    transition = given.system.transition
    assert isinstance(transition, DPLR)
    own = torch.from_numpy(naive.matrices(transition, exact.K, exact.V))[:, :, :, 0]
    same(transition.dense(exact.K), own, "dense")

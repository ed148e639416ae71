"""Any two forms that admit a system agree within the sum of their bounds: outputs, states, gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from lawbook import laws
from lawbook.rows import ALL_ROWS, ROWS, Row

from dsf.forms import forms, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.scan import Scan
from dsf.structure import Dense, Diagonal, Scalar

FORMS = [*(f for f in forms()), Chunkwise(8), Scan(segment=7)]
LENGTHS = (0, 1, 2, 7, 33, 130)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def form_id(form: object) -> str:
    return repr(form).lower()


def sample(rows: list[Row], lengths: tuple[int, ...]) -> list[tuple[Row, int, torch.dtype, bool]]:
    """Each row with two lengths; dtypes and start states in turn, so that all pairs occur."""
    turns = itertools.count()
    chosen = []
    for i, row in enumerate(rows):
        for j in range(2):
            turn = next(turns)
            length = lengths[(2 * i + j) % len(lengths)]
            chosen.append((row, length, DTYPES[(turn + i) % len(DTYPES)], bool((turn + j) % 2)))
    return chosen


def case_id(case: tuple[Row, int, torch.dtype, bool]) -> str:
    row, length, dtype, started = case
    return f"{row.name}-T{length}-{str(dtype)[6:]}-{'started' if started else 'empty'}"


def check_outputs(form, row, length, dtype, started) -> None:
    system, tokens, state = row.draw(length, seed=length)
    if form.admits(system):
        laws.forms_agree(form, system, tokens, state if started else None, dtype)


@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("case", sample(ROWS, LENGTHS), ids=case_id)
def test_outputs_and_states(form, case) -> None:
    check_outputs(form, *case)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize(
    "case", list(itertools.product(ALL_ROWS, LENGTHS, DTYPES, (False, True))), ids=case_id
)
def test_outputs_and_states_of_all(form, case) -> None:
    check_outputs(form, *case)


def check_gradients(form, row, length, dtype) -> None:
    system, tokens, state = row.draw(length, seed=length + 1)
    if form.admits(system):
        laws.gradients_agree(form, system, tokens, state, dtype)


@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_gradients(form, row) -> None:
    turn = ROWS.index(row)
    length = (1, 37, 65, 0, 2)[turn % 5]
    check_gradients(form, row, length, (torch.float64, torch.float32)[turn % 2])


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32))
@pytest.mark.parametrize("length", (0, 1, 37, 65, 200))
@pytest.mark.parametrize("row", ALL_ROWS, ids=lambda r: r.name)
def test_gradients_of_all(form, row, length, dtype) -> None:
    check_gradients(form, row, length, dtype)


EXTRAS = [
    {"timing": "before"},
    {"timing": "end"},
    {"feedthrough": Scalar(torch.full((1, 1, 3), 0.5, dtype=torch.float64))},
    {"feedthrough": Diagonal(torch.linspace(-1, 1, 5, dtype=torch.float64).expand(1, 1, 1, 5))},
    {"feedthrough": Dense(torch.linspace(-1, 1, 25, dtype=torch.float64).reshape(1, 1, 1, 5, 5))},
    {"offset": torch.linspace(0, 1, 5, dtype=torch.float64).expand(1, 1, 1, 5)},
]


@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("options", EXTRAS, ids=lambda o: str(next(iter(o))))
@pytest.mark.parametrize("transition", ["diagonal", "householder", "block"])
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_timing_feedthrough_and_offset(form, options, transition, constant) -> None:
    for length, dtype in (
        (0, torch.float64),
        (1, torch.float32),
        (21, torch.float64),
        (34, torch.float32),
    ):
        system, tokens, state = Row(transition, "outer", constant, options).draw(length, seed=3)
        if form.admits(system):
            laws.forms_agree(form, system, tokens, state, dtype)


@pytest.mark.parametrize("form", FORMS, ids=form_id)
def test_layout_of_memory_does_not_matter(form) -> None:
    system, tokens, state = Row("diagonal", "outer").draw(19)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))

    def strided(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    expected, final = run(system, tokens, state, form=form)
    outputs, memory = run(system.map(strided), strided(tokens), state.map(strided), form=form)
    bound = laws.error_bound(system, tokens, state, form=form)
    laws.require_within(outputs, expected, 2 * bound.outputs, "strided outputs")
    laws.require_within(memory.memory, final.memory, 2 * bound.memory, "strided memory")
    one = run(system.map(lambda x: x[:1]), tokens[:1].expand(4, -1, -1, -1), form=form)[0]
    assert one.shape[0] == 4


@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("transition", ["diagonal", "two factors"])
def test_no_sequences_at_all(transition, form) -> None:
    for coupling in ("outer", "several", "dense"):
        system, tokens, _ = Row(transition, coupling).draw(5)
        empty, none = system.map(lambda x: x[:0]), tokens[:0]
        if form.admits(empty):
            outputs, state = run(empty, none, form=form)
            assert outputs.shape[:2] == (0, 5) and state.memory.shape[0] == 0


def test_the_bounds_are_not_empty_words() -> None:
    """In float32 the loop uses a fair share of its bound: at least a hundredth somewhere."""
    for transition in ("scalar", "diagonal", "complex diagonal", "elementwise"):
        system, tokens, state = Row(transition, "outer").draw(150, seed=0)
        assert laws.forms_agree("recurrent", system, tokens, state, torch.float32) > 1 / 100

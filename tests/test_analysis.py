"""Realizations, Gramians, Hankel singular values and reductions, over a table of systems."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lawbook import analysis as laws
from lawbook.analysis import MIXERS, ROWS, attention
from lawbook.rows import Row

import dsf
from dsf.analysis import (
    exact_realization,
    gramians,
    hankel,
    hankel_block,
    minimal_realization,
    realize,
    reduce,
    smallest_recurrence,
    sweeps,
    truncation,
)
from dsf.analysis.compression import compress
from dsf.claims.exact import hankel_ranks
from dsf.errors import InvalidInput, Refusal
from dsf.mixers import linear_attention, retnet
from dsf.numerics import BoundExceeded, orthogonal_error
from dsf.system import System

SYSTEMS = {row.name: (lambda T, row=row: row.draw(T)[0]) for row in ROWS} | MIXERS
LENGTHS = (1, 7)


@pytest.fixture(params=SYSTEMS)
def draw(request):
    return SYSTEMS[request.param]


@pytest.mark.parametrize("T", LENGTHS)
def test_realization(draw, T: int) -> None:
    laws.law_realization_is_the_map(draw(T), T)


@pytest.mark.parametrize("T", LENGTHS)
def test_hankel_values(draw, T: int) -> None:
    laws.law_hankel_values(draw(T), T)


@pytest.mark.parametrize("T", LENGTHS)
def test_gramians(draw, T: int) -> None:
    laws.law_gramians(draw(T), T)


@pytest.mark.parametrize("method", ["sequential", "balanced"])
@pytest.mark.parametrize("T", LENGTHS)
def test_reduction(draw, method, T: int) -> None:
    system = draw(T)
    for order in (0, 2):
        small = reduce(system, order=order, method=method, length=T)
        laws.law_reduction(system, small, T)
        assert small.order <= order
    laws.law_forms_run(small, T)
    within = reduce(system, tolerance=0.3, method=method, length=T)
    laws.law_reduction(system, within, T)
    assert (within.error <= 0.3 * within.norm).all()


@pytest.mark.parametrize("T", LENGTHS)
def test_minimal_realization_keeps_the_map(draw, T: int) -> None:
    system = draw(T)
    small = minimal_realization(system, T)
    laws.law_reduction(system, small, T)
    size = orthogonal_error(8 * T, 64, 1.0)
    assert (small.relative_error <= size * max(1, realize(system, T).members[0].orders[0])).all()
    ranks = hankel(system, T).rank(size)
    assert (small.orders >= ranks).all()


@pytest.mark.parametrize("row", ROWS[:4], ids=lambda r: r.name)
def test_no_steps(row: Row) -> None:
    system = row.draw(0)[0] if not row.constant else row.draw(3)[0]
    found = hankel(system, 0)
    assert found.values.shape[-1] in (0, 4) or found.values.size == 0
    assert (found.norm == 0).all()


@pytest.mark.parametrize("name", ["linear attention", "mlstm", "s6", "feedthrough"])
def test_mixing_matrix_is_realized(name: str) -> None:
    laws.mixing_is_realized(MIXERS[name](9), 9)


# -- maps without a system --------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 33, 65, 100])
def test_compression_is_exact(T: int) -> None:
    phi = attention(T, 4)
    r, lost = compress(phi)
    size = orthogonal_error(T, T, float(np.linalg.norm(phi)))
    assert lost <= size and np.abs(r.matrix() - phi).max() <= size
    found = hankel(phi)
    for cut in range(T + 1):
        block = hankel_block(phi, cut)
        expected = np.linalg.svd(block, compute_uv=False) if block.size else np.zeros(0)
        laws._close(found.values[cut], expected, size, f"cut {cut}")


@pytest.mark.parametrize("T", [40, 100])
def test_compression_keeps_to_what_is_allowed(T: int) -> None:
    phi = attention(T, 4)
    for allowed in (0.01, 0.1, 1.0):
        r, lost = compress(phi, allowed)
        slack = orthogonal_error(T, T, float(np.linalg.norm(phi)))
        error = np.linalg.norm(phi - r.matrix(), 2)
        assert error <= lost + slack and lost <= allowed + slack
    assert max(compress(phi, most=5)[0].orders) <= 5 + 32


def test_a_resolution_moves_no_value_further_and_needs_no_more() -> None:
    phi = attention(100, 4)
    exact = hankel(phi)
    for resolution in (0.003, 0.03):
        coarse = hankel(phi, resolution=resolution)
        width = coarse.values.shape[-1]
        assert width < exact.values.shape[-1]
        gap = np.abs(exact.values[:, :width] - coarse.values).max()
        assert gap <= resolution * exact.norm
        assert (exact.values[:, width:] <= resolution * exact.norm).all()
        assert coarse.needed(0.01) <= exact.needed(0.01)
    few = hankel(phi, cuts=[10, 50])
    assert few.values.shape == (2, 50) and few.needed(0.01) <= exact.needed(0.01)


@pytest.mark.parametrize("method", ["sequential", "balanced"])
def test_reduction_of_attention(method) -> None:
    phi = np.stack([attention(48, 4, seed) for seed in range(3)])
    for order in (0, 1, 5, 12, 60):
        small = reduce(phi, order=order, method=method)
        laws.law_reduction(phi, small, 48)
        laws.law_forms_run(small, 48)
        assert small.orders.shape == (3, 49) and small.order <= order
    for tolerance in (0.02, 0.3):
        small = reduce(phi, tolerance=tolerance, method=method)
        laws.law_reduction(phi, small, 48)
        slack = orthogonal_error(48, 48, float(np.linalg.norm(phi)))
        assert (small.bound <= tolerance * small.norm + slack).all()


@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.01])
def test_the_smallest_recurrence(tolerance: float) -> None:
    phi = attention(64, 3)
    found = smallest_recurrence(phi, tolerance)
    assert not isinstance(found, Refusal)
    laws.law_reduction(phi, found, 64)
    assert found.relative_error <= tolerance
    assert found.order >= hankel(phi).needed(tolerance)
    assert reduce(phi, order=found.order - 1).relative_error > tolerance


def test_a_head_that_no_small_recurrence_is_near_is_refused() -> None:
    # Every output is one earlier token of its own: Φ[i:, :i] is a permutation.
    phi = np.zeros((64, 64))
    phi[range(32, 64), range(32)] = 1
    refusal = smallest_recurrence(phi, 0.5, largest=16)
    assert isinstance(refusal, Refusal) and "fewer than 32" in str(refusal)
    assert smallest_recurrence(phi, 0.5, largest=32)
    # Three cuts do not show it, and the search ends at `largest`.
    late = smallest_recurrence(attention(64, 3), 0.01, largest=14)
    assert isinstance(late, Refusal) and "14 states do not" in str(late)


def test_the_frobenius_error_of_sequential_truncation_is_what_was_dropped() -> None:
    """Pythagoras: what is dropped at different cuts has orthogonal rows."""
    phi = attention(40, 4)
    r, _ = compress(phi)
    small = truncation.sequential(r, lambda cut, sizes: min(3, len(sizes)))
    dropped = sum(float((x**2).sum()) for x in small.dropped) ** 0.5
    error = float(np.linalg.norm(phi - small.realization.matrix()))
    assert abs(error - dropped) <= orthogonal_error(80, 40, float(np.linalg.norm(phi)))


def test_the_smallest_of_a_system_is_itself_where_it_is_minimal() -> None:
    system = MIXERS["linear attention"](32)
    found = smallest_recurrence(system, 1e-9)
    assert not isinstance(found, Refusal) and found.order == 4


# -- exact ranks ------------------------------------------------------------------------------------

causal = st.integers(1, 7).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=n, max_size=n
    ).map(lambda rows: [[x if j <= i else 0 for j, x in enumerate(r)] for i, r in enumerate(rows)])
)


@given(causal)
def test_exact_realization_of_integers(phi) -> None:
    r = exact_realization(phi)
    assert r.matrix() == [[Fraction(x) for x in row] for row in phi]
    exact = [[Fraction(x) for x in row] for row in phi]
    assert list(r.orders[1:-1]) == hankel_ranks(exact)
    assert minimal_realization(np.array(phi, dtype=float)).orders.tolist() == list(r.orders)


def test_flint_finds_the_same_ranks() -> None:
    flint = pytest.importorskip("flint")
    rng = np.random.default_rng(0)
    q, k = rng.integers(1, 9, (2, 14, 3))
    phi = np.tril(q @ k.T)
    orders = exact_realization(phi.tolist()).orders
    for cut in range(1, 14):
        assert flint.fmpz_mat(phi[cut:, :cut].tolist()).rank() == orders[cut]


def test_linear_attention_needs_its_keys_and_softmax_its_tokens() -> None:
    system = linear_attention(*(laws.normal(i, 1, 40, 1, 5) for i in (1, 2)))
    tiny = orthogonal_error(40, 40, 1.0)
    assert hankel(system).rank(tiny)[0, 0].max() == 5
    assert minimal_realization(dsf.mixing_matrix(system)).orders[0, 0].max() == 5
    full = [min(i, 24 - i) for i in range(25)]
    assert minimal_realization(attention(24, 4, scale=2)).orders.tolist() == full


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: hankel(np.ones((3, 3))), "not causal"),
        (lambda s: hankel(np.full((2, 2), np.nan)), "not finite"),
        (lambda s: hankel(np.ones((2, 3))), "axes"),
        (lambda s: hankel(np.eye(3), cuts=[4]), "cut"),
        (lambda s: hankel(s, cuts=[99]), "cuts"),
        (lambda s: hankel_block(np.eye(3), 4), "cut"),
        (lambda s: gramians(np.eye(3)), "state"),
        (lambda s: hankel(dsf.pack([s, s])), "packed"),
        (lambda s: hankel(s.replace(timing="end")), "not causal"),
        (lambda s: hankel(retnet(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))), "length"),
        (lambda s: reduce(s), "exactly one"),
        (lambda s: reduce(s, order=1, tolerance=0.1), "exactly one"),
        (lambda s: reduce(s, order=-1), "negative"),
        (lambda s: reduce(s, tolerance=1.0), "tolerance"),
        (lambda s: reduce(s, order=1, method="other"), "method"),
        (lambda s: smallest_recurrence(s, 0.0), "positive"),
        (lambda s: exact_realization([[1, 1], [0, 1]]), "above the diagonal"),
        (lambda s: realize(s.replace(read=s.read.map(lambda x: x * torch.nan))), "not finite"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:
    q, k = laws.normal(0, 2, 1, 6, 1, 2)
    system = linear_attention(q, k, normalise=False)
    error = InvalidInput if "gramians" not in words else Exception
    with pytest.raises((error, TypeError) if words == "state" else error, match=words):
        try:
            call(system)
        except Exception as found:
            if type(found).__name__ == "TypeCheckError":
                raise InvalidInput(f"{words}") from found
            raise


# -- planted bugs -----------------------------------------------------------------------------------


def _caught(law, *arguments) -> None:
    with pytest.raises(AssertionError):
        law(*arguments)


COMPLEX = Row("complex diagonal", "outer")


def test_laws_notice_a_transpose_without_conjugation(monkeypatch) -> None:
    system = COMPLEX.draw(7)[0]
    laws.law_hankel_values(system, 7)

    def plain(r):
        roots = [np.zeros((r.orders[0], 0), dtype=complex)]
        for a, b in zip(r.A, r.B, strict=True):
            roots.append(sweeps.triangle(np.concatenate([a @ roots[-1], b], 1).conj().T).T)
        return roots

    monkeypatch.setattr("dsf.analysis.hankel_blocks.reachability_roots", plain)
    _caught(laws.law_gramians, system, 7)
    monkeypatch.setattr(sweeps, "reachability_roots", plain)
    _caught(laws.law_hankel_values, system, 7)


def test_laws_notice_a_read_of_the_wrong_timing(monkeypatch) -> None:
    row = Row("diagonal", "outer", options={"timing": "before"})
    system = row.draw(7)[0]
    honest = realize(system)
    after = realize(system.replace(timing="after"))
    monkeypatch.setattr(laws, "realize", lambda *_: after)
    _caught(laws.law_realization_is_the_map, system, 7)
    monkeypatch.setattr(laws, "realize", lambda *_: honest)
    laws.law_realization_is_the_map(system, 7)


@pytest.mark.parametrize("what", ["the largest are dropped", "a token is lost", "scale"])
def test_reduction_law_notices(what: str, monkeypatch) -> None:
    phi = attention(30, 3)
    method = "balanced" if what == "scale" else "sequential"
    honest = truncation._svd

    def wrong(matrix):
        left, sizes, rows = honest(matrix)
        if what == "the largest are dropped":
            return left[:, ::-1], sizes, rows[::-1]
        if what == "a token is lost":
            rows = rows.copy()
            rows[:, -1:] = 0
            return left, sizes, rows
        return left, sizes * 1.5, rows

    laws.law_reduction(phi, reduce(phi, order=12, method=method), 30)
    monkeypatch.setattr(truncation, "_svd", wrong)
    _caught(laws.law_reduction, phi, reduce(phi, order=12, method=method), 30)


def test_reduction_law_notices_a_bound_of_one_run(monkeypatch) -> None:
    phi = attention(30, 3)
    monkeypatch.setattr(truncation, "run_bound", lambda dropped, orders: 0.0)
    _caught(laws.law_reduction, phi, reduce(phi, order=4, method="balanced"), 30)


def test_comparisons_raise() -> None:
    with pytest.raises(BoundExceeded):
        laws._at_most(float("nan"), 1.0, "x")
    assert isinstance(MIXERS["s4d"](3), System)

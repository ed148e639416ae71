"""Lyapunov exponents, spectra with their gauge, and reach by lag."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from lawbook import analysis as laws
from lawbook.analysis import MIXERS, ROWS
from lawbook.rows import Row

from dsf.analysis import (
    gate_half_life,
    lyapunov,
    lyapunov_spectrum,
    memory,
    spectrum,
)
from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.gauges import change_gauge
from dsf.mixers import linear_attention, retnet
from dsf.numerics import orthogonal_error
from dsf.structure import DPLR, Block, Dense, Scalar
from dsf.system import System

SYSTEMS = {row.name: (lambda T, row=row: row.draw(T)[0]) for row in ROWS} | MIXERS


def matrices_of(system: System, T: int) -> np.ndarray:
    """Λ_i (…, T, K, K) of a system without channels of its own, straight from its structure."""
    full = system.expand(T)
    dense = full.transition.dense(full.key_size)
    return dense.expand(full.lead[0], T, full.lead[2], *dense.shape[-2:]).movedim(1, 2).numpy()


def law_exponents_sum_to_the_determinant(system: System, T: int) -> None:
    found = lyapunov_spectrum(system, T).exponents
    for index in np.ndindex(found.shape[:2]):
        product = mpmath.eye(found.shape[-1])
        for step in matrices_of(system, T)[index]:
            product = mpmath.matrix(step.tolist()) * product
        expected = float(mpmath.log(abs(mpmath.det(product)))) / T
        limit = orthogonal_error(T, found.shape[-1], 1 + float(np.abs(found[index]).sum()))
        laws._at_most(abs(found[index].sum() - expected), limit, "sum of the exponents")


@pytest.mark.parametrize(
    "row",
    [
        Row(t, "outer", c)
        for t in ("scalar", "complex diagonal", "dense", "two factors")
        for c in (0, 1)
    ],
    ids=lambda r: r.name,
)
@pytest.mark.parametrize("T", [1, 9])
def test_exponents_sum_to_the_determinant(row: Row, T: int) -> None:
    law_exponents_sum_to_the_determinant(row.draw(T)[0], T)


def _lone(structure) -> System:
    ones = OuterCoupling(torch.ones(1, 1, 1, structure.key_size or 1, dtype=torch.float64))
    return System(structure, ones, ones)


def test_exponents_of_a_symmetric_constant_are_logs_of_its_eigenvalues() -> None:
    eigenvalues = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    basis = torch.linalg.qr(laws.normal(0, 3, 3))[0]
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    T = 400
    found = lyapunov_spectrum(_lone(Dense(matrix[None, None, None])), T).exponents[0, 0]
    # The frame turns into the eigenvectors at the rate of the gaps; until then it costs O(1/T).
    initial = 2 * abs(np.log(0.1)) * 3 / T
    assert np.abs(found - np.log(eigenvalues.numpy())).max() <= initial


def test_a_rotation_neither_grows_nor_fades() -> None:
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    found = lyapunov_spectrum(_lone(Block(turn.expand(1, 50, 1, 1, 2, 2))))
    assert np.abs(found.exponents).max() <= orthogonal_error(50, 2, 1.0)


def test_a_gate_of_zero_is_an_exact_loss() -> None:
    gates = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64).reshape(1, 3, 1)
    found = lyapunov_spectrum(_lone(Scalar(gates)))
    assert found.exponents.item() == -np.inf and found.half_lives.item() == 0
    erased = DPLR.householder(torch.tensor([[1.0, 0.0]]).expand(1, 3, 1, 2), torch.ones(1, 3, 1))
    assert lyapunov_spectrum(_lone(erased)).exponents[0, 0].tolist() == [0.0, -np.inf]


def test_bounded_gauges_keep_the_exponents_and_move_the_spectrum() -> None:
    T = 600
    gates = torch.full((1, T, 1), 0.9, dtype=torch.float64)
    ones = OuterCoupling(torch.ones(1, T, 1, 1, dtype=torch.float64))
    system = System(Scalar(gates), ones, ones)
    scale = 1 + (torch.arange(T + 1, dtype=torch.float64) % 2)[None, :, None]  # 1, 2, 1, 2, …
    other = change_gauge(system, scale)
    a, b = (lyapunov_spectrum(s).exponents.item() for s in (system, other))
    assert abs(a - b) <= np.log(2) / T + orthogonal_error(T, 1, 1.0)
    assert spectrum(other).moduli.max() == 1.8 and spectrum(system).moduli.max() == 0.9


def test_no_steps_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no steps"):
        lyapunov_spectrum(Row("diagonal", "outer").draw(0)[0])


# -- spectra ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense-outer", "two_factors-outer", "complex_diagonal-outer"])
def test_eigenvalues_solve_the_characteristic_equation(name: str) -> None:
    row = Row(name.split("-")[0].replace("_", " "), "outer")
    system = row.draw(5)[0]
    values, matrices = spectrum(system).eigenvalues, matrices_of(system, 5)
    for index in np.ndindex(values.shape[:3]):
        for value in values[index]:
            least = np.linalg.svd(matrices[index] - value * np.eye(4), compute_uv=False)[-1]
            laws._at_most(float(least), orthogonal_error(1, 16, 4.0), "σ_min(Λ - λ)")
        assert (np.diff(np.abs(values[index])) <= orthogonal_error(1, 4, 1.0)).all()


def test_the_gauge_is_named_and_moves_the_moduli() -> None:
    system = linear_attention(*(laws.normal(i, 1, 30, 2, 3) for i in (1, 2)))
    read, state = spectrum(system), spectrum(system, gauge="state")
    assert read.gauge == "normaliser at the read-out" and (read.moduli == 1).all()
    assert state.gauge == "normaliser in the state" and state.moduli.max() > 1
    assert read.share_within(0.9, 1.0).tolist() == [[1.0, 1.0]]
    assert spectrum(MIXERS["mlstm"](4)).gauge.endswith("stabiliser divided out")
    assert (
        spectrum(retnet(*(laws.normal(i, 1, 3, 1, 2) for i in (1, 2)))).gauge == "the system's own"
    )
    with pytest.raises(InvalidInput, match="normaliser"):
        spectrum(retnet(*(laws.normal(i, 1, 3, 1, 2) for i in (1, 2))), gauge="state")


def test_phases_are_those_of_the_poles() -> None:
    gate = torch.polar(torch.full((1, 2, 1), 0.5), torch.full((1, 2, 1), 1.0)).to(torch.complex128)
    found = spectrum(_lone(Scalar(gate)))
    assert np.abs(found.phases - 1.0).max() <= orthogonal_error(1, 1, 1.0, torch.float32)


# -- reach --------------------------------------------------------------------------------------------


def law_reach(system: System, T: int) -> None:
    """Profiles by lag against norms of the blocks of Φ, one by one."""
    phi = laws.dense_matrices(system, T)
    found = memory(system, T)
    p, m = phi.shape[-2] // T, phi.shape[-1] // T
    flat = phi.reshape(-1, *phi.shape[-2:])
    pairs = zip(flat, found.largest.reshape(-1, T), found.mean.reshape(-1, T), strict=True)
    for head, largest, mean in pairs:
        for lag in range(T):
            sizes = [
                float(np.linalg.norm(head[i * p : (i + 1) * p, (i - lag) * m : (i - lag + 1) * m]))
                for i in range(lag, T)
            ]
            limit = orthogonal_error(T, p * m, max(sizes))
            laws._at_most(abs(max(sizes) - largest[lag]), limit, "largest")
            laws._at_most(abs(sum(sizes) / len(sizes) - mean[lag]), limit, "mean")


@pytest.mark.parametrize("name", SYSTEMS)
def test_reach(name: str) -> None:
    law_reach(SYSTEMS[name](6), 6)


def test_horizon_and_half_life_by_hand() -> None:
    q = torch.ones(1, 40, 1, 1, dtype=torch.float64)
    found = memory(retnet(q, q, decay=torch.tensor([0.5], dtype=torch.float64)))
    assert found.horizon(2.0**-7).item() == 7 and found.horizon(1.0).item() == 0
    assert found.half_life().item() == 0
    running = memory(np.tril(np.ones((40, 40))))
    assert running.horizon(0.5) == 39 and running.half_life() == 19
    assert memory(np.zeros((5, 5))).horizon(0.5) == -1
    with pytest.raises(InvalidInput, match="level"):
        running.horizon(0.0)


def test_half_life_of_gates() -> None:
    gates = torch.full((2, 10, 3), 0.25, dtype=torch.float64)
    assert (gate_half_life(gates) == 0.5).all()
    assert (gate_half_life(torch.ones(1, 4, 1)) == np.inf).all()


# -- planted bugs -------------------------------------------------------------------------------------


def test_laws_notice(monkeypatch) -> None:
    system = Row("two factors", "outer").draw(9)[0]
    honest = lyapunov._by_qr
    monkeypatch.setattr(lyapunov, "_by_qr", lambda m: honest(m[..., 1:, :, :]))
    with pytest.raises(AssertionError):
        law_exponents_sum_to_the_determinant(system, 9)
    monkeypatch.setattr("dsf.analysis.reach._by_lag", lambda size: (size[:, 0], size.mean(0)))
    with pytest.raises(AssertionError):
        law_reach(system, 9)

"""Runs of the dynamics: resumed runs, batches, flows, paths, mirror steps, and what is said of where they end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsf.errors import InvalidInput
from dsf.theory import dynamics
from dsf.theory.dynamics import (
    Objective,
    Outcome,
    QuadraticHead,
    classify,
    correlation,
    descend,
    direction_error,
    flow,
    margin_ratio,
    margins,
    mirror_descent,
    regularisation_path,
)
from dsf.theory.dynamics.classify import locally_optimal, selected
from dsf.theory.dynamics.path import stationarity
from dsf.theory.instances import TokenData, causal, equal_scores, orthonormal, picture, sphere
from dsf.theory.svm import att_svm

U = 2.0**-53


def equal(a: tuple, b: tuple) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def solution(data: TokenData, norm: str | float = "frobenius") -> np.ndarray:
    found = att_svm(data.ragged(), data.queries, data.optimal, norm=norm)
    assert found and found.relative_gap <= 1e-5
    return found.W


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_run_that_was_interrupted_gives_the_same_numbers(
    tmp_path: Path, pair: bool, normalised: bool
) -> None:
    objective = Objective.of([sphere(3, 4, 5, seed=s) for s in range(2)])
    rng = np.random.default_rng(0)
    start = tuple(rng.standard_normal((2, 2, 5, 3))) if pair else rng.standard_normal((2, 5, 5))
    arguments = {"steps": 50, "rate": 0.1, "normalised": normalised, "record": [0, 5, 30, 40]}
    whole = descend(objective, start, **arguments)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 50
        if done == 30:
            raise Stop

    path = tmp_path / "run.npz"
    with pytest.raises(Stop):
        descend(objective, start, **arguments, checkpoint=path, every=10, progress=stop)
    seen: list[int] = []
    resumed = descend(
        objective,
        start,
        **arguments,
        checkpoint=path,
        every=10,
        progress=lambda done, total: seen.append(done),
    )
    assert seen == [40, 50]
    assert np.array_equal(whole.at, resumed.at)
    assert all(equal(a, b) for a, b in zip(whole.snapshots, resumed.snapshots, strict=True))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    objective, path = Objective.of(sphere(3, 4, 5, seed=0)), tmp_path / "run.npz"
    descend(objective, np.zeros((5, 5)), 20, 0.1, checkpoint=path)
    with pytest.raises(InvalidInput, match="another run"):
        descend(objective, np.zeros((5, 5)), 20, 0.2, checkpoint=path)
    path.write_bytes(b"not one")
    with pytest.raises(InvalidInput, match="not a checkpoint"):
        descend(objective, np.zeros((5, 5)), 20, 0.1, checkpoint=path)


def test_normalised_steps_have_the_length_of_the_rate() -> None:
    objective = Objective.of(sphere(3, 4, 5, seed=0))
    run = descend(objective, 1e4 * np.eye(5), 3, 0.5, record=[0, 1, 2])
    lengths = np.linalg.norm(np.diff(run.weights(), axis=0), axis=(1, 2))
    assert np.abs(lengths - 0.5).max() <= 64 * U * 1e4 * 5


def test_plain_descent_lowers_the_risk() -> None:
    objective = Objective.of(sphere(4, 5, 6, seed=1))
    run = descend(objective, np.zeros((6, 6)), 200, 0.5, normalised=False, record=range(201))
    risks = np.array([float(objective.value(w)) for w in run.weights()])
    assert (np.diff(risks) < 0).all()


def test_a_batch_is_its_members() -> None:
    sets = [sphere(3, 4, 5, seed=s) for s in range(3)]
    together = descend(Objective.of(sets), np.zeros((5, 5)), 100, 0.1).final[0]
    for data, w in zip(sets, together, strict=True):
        alone = descend(Objective.of(data), np.zeros((5, 5)), 100, 0.1).final[0]
        assert np.abs(alone - w).max() <= 100 * 64 * U * 5 * 10


def test_mirror_descent_with_p_2_is_normalised_descent() -> None:
    objective = Objective.of(sphere(3, 4, 5, seed=0))
    a = mirror_descent(objective, np.zeros((5, 5)), 200, 0.1, 2.0).final[0]
    b = descend(objective, np.zeros((5, 5)), 200, 0.1).final[0]
    assert np.abs(a - b).max() <= 200 * 64 * U * 20


def test_flow_is_the_limit_of_small_steps() -> None:
    """Halving the step of descent halves its distance from the flow of the same length."""
    objective = Objective.of(sphere(3, 4, 5, seed=0))
    end = flow(objective, np.zeros((5, 5)), [4.0]).final[0]
    far, near = (
        np.linalg.norm(descend(objective, np.zeros((5, 5)), round(4 / h), h).final[0] - end)
        for h in (0.02, 0.01)
    )
    assert 1.8 < far / near < 2.2


def test_flow_has_unit_speed_and_conserves_the_balance() -> None:
    objective = Objective.of(equal_scores(2, 3, 4, seed=0), "exponential")
    k, q = np.random.default_rng(0).standard_normal((2, 4, 3))
    run = flow(objective, (k, q), [0.5, 1.0, 8.0])
    for k_t, q_t in run.snapshots:
        drift = k_t.T @ k_t - q_t.T @ q_t - (k.T @ k - q.T @ q)
        assert np.linalg.norm(drift) <= 1e-9 * 1e3 * ((k_t**2).sum() + (q_t**2).sum())
    step = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(*run.snapshots[:2], strict=True)))
    assert 0.4 < step <= 0.5


def test_flow_into_a_stationary_point_gives_up() -> None:
    data = orthonormal(2, 3, 4, seed=0)
    assert data.head is not None
    objective = Objective.of(data, "linear", QuadraticHead(data.head, 5.0))
    with pytest.raises(ArithmeticError, match="stationary"):
        flow(objective, np.zeros((4, 4)), [100.0], evaluations=2000)


@pytest.mark.parametrize("width", [None, 5, 2])
def test_the_path_is_stationary_on_its_sphere(width: int | None) -> None:
    data = sphere(3, 4, 5, seed=0)
    objective, rng = Objective.of(data), np.random.default_rng(0)
    start = (
        rng.standard_normal((5, 5)) if width is None else tuple(rng.standard_normal((2, 5, width)))
    )
    path = regularisation_path(objective, start, [1.0, 10.0, 100.0])
    assert path.reached
    for radius, parts in zip(path.at, path.snapshots, strict=True):
        square = sum((part**2).sum() for part in parts)
        size = np.sqrt(square) if width is None else square / 2
        assert abs(size / radius - 1) <= 64 * U
        assert stationarity(objective, parts) <= 1e-4  # the judges' limit


def test_a_path_beats_random_points_of_its_sphere() -> None:
    data = sphere(3, 4, 5, seed=0)
    objective, rng = Objective.of(data), np.random.default_rng(0)
    path = regularisation_path(objective, np.eye(5), [3.0], others=[solution(data)])
    best, _ = objective.log_excess(path.final[0], data.optimal)
    for w in rng.standard_normal((200, 5, 5)):
        assert objective.log_excess(3.0 / np.linalg.norm(w) * w, data.optimal)[0] > best


def test_a_path_leaves_a_selection_that_a_support_token_beats() -> None:
    data = equal_scores(3, 4, 6, seed=0)
    beaten = (data.optimal + 1) % 4
    start = att_svm(data.ragged(), data.queries, beaten).W  # type: ignore[union-attr]
    path = regularisation_path(Objective.of(data), start, [1e2, 1e3], beaten)
    assert not path.reached


def test_long_runs_turn_to_the_max_margin_solution() -> None:
    """The slope of the direction error against the norm is -1: see the claims for the certified form."""
    data = equal_scores(3, 4, 6, seed=0)
    run = descend(Objective.of(data), np.zeros((6, 6)), 4000, 2.0, record=[400, 4000])
    early, late = direction_error(run.weights(), solution(data))
    assert 5 < early / late < 20
    w_star = solution(data, "nuclear")
    ratio = margin_ratio(data, data.optimal, w_star, np.linalg.norm(w_star, "nuc"))
    assert 1 - 1e-5 <= ratio <= 1 + 64 * U


def test_outcomes() -> None:
    data = picture(5)
    objective = Objective.of(data)
    ends = {}
    for start in ([4.0, 0.0], [0.0, -8.0]):
        w = np.zeros((2, 2))
        w[:, 0] = start
        end = descend(objective, w, 400, 0.1).final[0]
        chosen, least = selected(data, end)
        found = att_svm(data.ragged(), data.queries, chosen)
        assert found and least > 7
        ends[classify(data, end, found.W, 1e-6)] = chosen.tolist()
        assert locally_optimal(data, chosen, found.W, 1e-6)
    assert ends == {Outcome.GLOBAL: [0, 0], Outcome.LOCAL: ends[Outcome.LOCAL]}
    assert ends[Outcome.LOCAL] != [0, 0]
    assert classify(data, 1e-3 * np.eye(2), np.eye(2), 1e-6) is Outcome.NEITHER
    assert classify(data, 1e3 * np.eye(2), None, 1e-6) is Outcome.NEITHER


def test_margins_by_hand_and_of_padded_samples() -> None:
    x = np.array([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    data = TokenData(x, np.array([[2.0, 0.0]]), np.zeros((1, 3)), np.array([2]))
    w = np.array([[3.0, 7.0], [1.0, 7.0]])
    assert margins(data, np.array([0]), w).tolist() == [4.0]
    assert len(margins(causal(2, 4, 5, 0), causal(2, 4, 5, 0).optimal, np.eye(5))) == 2 * (
        1 + 2 + 3
    )


def test_correlation_and_error_agree() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 4, 4))
    assert abs(direction_error(a, b) ** 2 - 2 * (1 - correlation(a, b))) <= 64 * U


@pytest.mark.parametrize(
    "call",
    [
        lambda o: descend(o, np.zeros((4, 4)), 10, 0.1),
        lambda o: descend(o, np.zeros((5, 5)), 0, 0.1),
        lambda o: descend(o, np.zeros((5, 5)), 10, 0.0),
        lambda o: descend(o, np.zeros((5, 5)), 10, 0.1, record=[11]),
        lambda o: descend(o, np.zeros((3, 5, 5)), 10, 0.1),
        lambda o: descend(o, (np.zeros((5, 2)), np.zeros((5, 3))), 10, 0.1),
        lambda o: descend(o, np.full((5, 5), np.nan), 10, 0.1),
        lambda o: flow(o, np.zeros((5, 5)), [2.0, 1.0]),
        lambda o: regularisation_path(o, np.zeros((5, 5)), [1.0]),
        lambda o: regularisation_path(o, np.eye(5), [0.0]),
        lambda o: mirror_descent(o, np.zeros((5, 5)), 10, 0.1, 1.0),
    ],
)
def test_bad_input_is_refused(call) -> None:
    with pytest.raises(InvalidInput):
        call(Objective.of(sphere(3, 4, 5, seed=0)))


def test_the_public_names_are_there() -> None:
    for name in ("Objective", "descend", "flow", "regularisation_path", "mirror_descent"):
        assert getattr(dynamics, name).__doc__

"""Gradients of the attention risk against independent references: mpmath at any norm, torch, differences."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsf.errors import InvalidInput
from dsf.theory.dynamics import LOSSES, Objective, QuadraticHead, ReluHead
from dsf.theory.instances import TokenData, causal, equal_scores, orthonormal, relu_network, sphere

U = 2.0**-53


def exact_gradient(data: TokenData, w: np.ndarray, loss: str) -> mpmath.matrix:
    """-∇L by the textbook formula in as many digits as the softmax needs; linear head."""
    n, _, d = data.shape
    slope = {
        "logistic": lambda x: 1 / (1 + mpmath.exp(x)),
        "exponential": lambda x: mpmath.exp(-x),
        "linear": lambda x: mpmath.mpf(1),
        "log": lambda x: 1 / x,
    }[loss]
    total = mpmath.matrix(d, d)
    for x, z, gamma in zip(data.ragged(), data.queries, data.scores, strict=True):
        x, z = mpmath.matrix(x.tolist()), mpmath.matrix(z.tolist())
        gamma = [mpmath.mpf(g) for g in gamma[: x.rows]]
        a = x * (mpmath.matrix(w.tolist()) * z)
        e = [mpmath.exp(a[t] - max(a)) for t in range(x.rows)]
        s = [each / mpmath.fsum(e) for each in e]
        f = mpmath.fsum(p * g for p, g in zip(s, gamma, strict=True))
        for t in range(x.rows):
            pull = slope(f) * s[t] * (gamma[t] - f) / n
            total += pull * x[t, :].T * z.T
    return total


def relative_error(objective: Objective, data: TokenData, w: np.ndarray, loss: str) -> float:
    """Of the direction and of the logarithm of its size, whichever is larger."""
    found = objective.gradient(w)
    with mpmath.workdps(60 + int(3 * np.abs(objective.logits(w)[data.mask]).max())):
        exact = exact_gradient(data, w, loss)
        size = mpmath.mnorm(exact, "f")
        unit = np.array((exact / size).tolist(), dtype=float)
        logs = abs(float(mpmath.log(size)) - float(found.log_norm()))
    return max(float(np.abs(found.unit() - unit).max()), logs)


def bound(objective: Objective, w: np.ndarray) -> float:
    """Roundings of the logits (their sums have d² terms) act on the exponentials one to one."""
    n, most, d = objective.tokens.shape
    logits = np.abs(objective.logits(w)[objective.mask]).max()
    return 64 * d * (1 + logits) * n * most * U


@pytest.mark.parametrize("norm", [0.0, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("loss", ["logistic", "exponential", "linear"])
def test_any_norm_against_mpmath(norm: float, loss: str) -> None:
    data = sphere(3, 4, 5, seed=7)
    w = np.random.default_rng(3).standard_normal((5, 5))
    w *= norm / np.linalg.norm(w)
    objective = Objective.of(data, loss)
    assert relative_error(objective, data, w, loss) <= bound(objective, w)


@pytest.mark.parametrize("make", [equal_scores, sphere, causal])
def test_near_the_max_margin_direction_against_mpmath(make: Callable) -> None:
    """All mass on the optimal tokens: where 1 - s would cancel."""
    data = make(2, 4, 6, seed=1)
    objective = Objective.of(data)
    w = 0.0 * np.eye(6)
    for _ in range(300):
        w = w + objective.gradient(w).unit()
    assert relative_error(objective, data, w, "logistic") <= bound(objective, w)


@pytest.mark.parametrize("size", [30.0, 1e3])
def test_ties_of_the_largest_logit_against_mpmath(size: float) -> None:
    """A copy of the largest token: all that is left of its row is the mean, far below one."""
    base = sphere(3, 4, 5, seed=2)
    w = np.zeros((5, 5))
    for _ in range(300):
        w = w + Objective.of(base).gradient(w).unit()
    w *= size / np.linalg.norm(w)
    top = Objective.of(base).logits(w).argmax(1)[:, None]
    tokens = np.concatenate([base.tokens, np.take_along_axis(base.tokens, top[..., None], 1)], 1)
    scores = np.concatenate([base.scores, np.take_along_axis(base.scores, top, 1)], 1)
    data = TokenData(tokens, base.queries, scores)
    objective = Objective.of(data)
    assert relative_error(objective, data, w, "logistic") <= bound(objective, w)


def test_the_textbook_formula_in_float64_would_be_caught() -> None:
    data = sphere(3, 4, 5, seed=7)
    w = 1e3 * np.random.default_rng(3).standard_normal((5, 5))
    objective = Objective.of(data)
    s = objective.attention(w).weights()
    f = (s * data.scores).sum(1)
    table = s * (data.scores - f[:, None]) / (1 + np.exp(f))[:, None]
    naive = np.einsum("it,itd,ie->de", table, data.tokens, data.queries)
    found = objective.gradient(w).unit()
    size = np.linalg.norm(naive)
    assert size == 0 or np.abs(naive / size - found).max() > bound(objective, w)


HEADS = {
    "quadratic": lambda: (
        orthonormal(3, 4, 6, seed=2),
        QuadraticHead(np.arange(6.0) / 6, 0.3),
        lambda o: o @ torch.arange(6.0, dtype=torch.float64) / 6 - 0.3 * (o**2).sum(-1),
    ),
    "relu": lambda: (
        (made := relu_network(3, 4, 6, seed=2))[0],
        ReluHead(made[1]),
        lambda o: torch.relu(o @ torch.from_numpy(made[1]).T).sum(-1),
    ),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", ["logistic", "exponential", "linear"])
def test_heads_against_autograd(head: str, loss: str) -> None:
    data, ours, theirs = HEADS[head]()
    w = np.random.default_rng(5).standard_normal((6, 6))
    torch_w = torch.tensor(w, requires_grad=True)
    x, z, y = (torch.from_numpy(a) for a in (data.tokens, data.queries, data.labels))
    s = torch.softmax(torch.einsum("itd,de,ie->it", x, torch_w, z), 1)
    margin = y * theirs(torch.einsum("it,itd->id", s, x))
    risk = {
        "logistic": torch.nn.functional.softplus(-margin),
        "exponential": torch.exp(-margin),
        "linear": -margin,
    }[loss].mean()
    risk.backward()
    objective = Objective.of(data, loss, ours)
    found = objective.gradient(w)
    mine = -np.exp(found.log_scale) * found.direction
    assert torch_w.grad is not None
    scale = np.abs(torch_w.grad.numpy()).max()
    assert np.abs(mine - torch_w.grad.numpy()).max() <= 100 * bound(objective, w) * scale
    assert abs(float(objective.value(w)) - float(risk.detach())) <= bound(objective, w)


@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.1, 3.0, 200.0]))
def test_a_batch_is_its_members(seed: int, size: float) -> None:
    sets = [sphere(3, 4, 5, seed=seed + i) for i in range(3)]
    w = size * np.random.default_rng(seed).standard_normal((3, 5, 5))
    together = Objective.of(sets).gradient(w)
    for i, data in enumerate(sets):
        alone = Objective.of(data)
        limit = bound(alone, w[i])
        assert np.abs(alone.gradient(w[i]).unit() - together.unit()[i]).max() <= limit
        assert abs(alone.gradient(w[i]).log_norm() - together.log_norm()[i]) <= limit


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1.0, 40.0, 1e4])
def test_the_excess_of_the_risk_against_mpmath(loss: str, size: float) -> None:
    base = sphere(3, 4, 5, seed=7)
    data = TokenData(base.tokens, base.queries, 0.2 + np.abs(base.scores))  # log needs scores > 0
    w = np.random.default_rng(3).standard_normal((5, 5))
    w *= size / np.linalg.norm(w)
    objective = Objective.of(data, loss)
    value = {
        "logistic": lambda x: mpmath.log1p(mpmath.exp(-x)),
        "exponential": lambda x: mpmath.exp(-x),
        "linear": lambda x: -x,
        "log": lambda x: -mpmath.log(x),
    }[loss]
    for chosen in (data.optimal, (data.optimal + 1) % 4):
        log_excess, sign = objective.log_excess(w, chosen)
        with mpmath.workdps(60 + int(3 * np.abs(objective.logits(w)).max())):
            total = mpmath.mpf(0)
            for x, z, gamma, best in zip(
                data.tokens, data.queries, data.scores, chosen, strict=True
            ):
                a = mpmath.matrix(x.tolist()) * (
                    mpmath.matrix(w.tolist()) * mpmath.matrix(z.tolist())
                )
                e = [mpmath.exp(a[t] - max(a)) for t in range(4)]
                f = mpmath.fsum(p * mpmath.mpf(g) for p, g in zip(e, gamma, strict=True))
                total += value(f / mpmath.fsum(e)) - value(mpmath.mpf(gamma[best]))
            total /= 3
            error = abs(float(mpmath.log(abs(total))) - float(log_excess))
        assert int(sign) == int(mpmath.sign(total))
        assert error <= 100 * bound(objective, w)


def test_a_sample_of_one_token_pulls_nowhere() -> None:
    whole = sphere(3, 4, 5, seed=0)
    cut = TokenData(whole.tokens, whole.queries, whole.scores, np.array([4, 1, 3]))
    w = np.random.default_rng(0).standard_normal((5, 5))
    without = cut.samples([0, 2])
    a, b = Objective.of(cut).gradient(w), Objective.of(without).gradient(w)
    assert np.abs(a.unit() - b.unit()).max() <= bound(Objective.of(cut), w)
    lonely = TokenData(whole.tokens, whole.queries, whole.scores, np.array([1, 1, 1]))
    assert not Objective.of(lonely).gradient(w).direction.any()


def test_padding_is_not_seen() -> None:
    data = causal(2, 4, 6, seed=3)
    other = np.where(data.mask[..., None], data.tokens, 1e6)
    w = np.random.default_rng(0).standard_normal((6, 6))
    padded = TokenData(other, data.queries, np.where(data.mask, data.scores, 1e9), data.lengths)
    a, b = Objective.of(data).gradient(w), Objective.of(padded).gradient(w)
    assert np.array_equal(a.direction, b.direction) and a.log_scale == b.log_scale


@pytest.mark.parametrize(
    "fault",
    [
        lambda: Objective.of(sphere(2, 3, 4, 0), "hinge"),
        lambda: Objective.of([sphere(2, 3, 4, 0), sphere(2, 3, 5, 0)]),
        lambda: Objective.of([]),
        lambda: TokenData(np.ones((2, 3, 4)), np.ones((2, 5)), np.ones((2, 3))),
        lambda: TokenData(np.full((2, 3, 4), np.nan), np.ones((2, 4)), np.ones((2, 3))),
        lambda: TokenData(np.ones((2, 3, 4)), np.ones((2, 4)), np.ones((2, 3)), np.array([4, 1])),
        lambda: TokenData(np.ones((2, 3)), np.ones((2, 4)), np.ones((2, 3))),
        lambda: sphere(0, 3, 4, 0),
        lambda: orthonormal(2, 5, 4, 0),
        lambda: Objective.of(
            TokenData(np.ones((2, 3, 4)), np.ones((2, 4)), np.ones((2, 3))),
            head=QuadraticHead(np.ones(4), 1.0),
        ),
    ],
)
def test_bad_input_is_refused(fault: Callable) -> None:
    with pytest.raises(InvalidInput):
        fault()


EXACT = {
    "logistic": lambda x: mpmath.log1p(mpmath.exp(-x)),
    "exponential": lambda x: mpmath.exp(-x),
    "linear": lambda x: -x,
    "log": lambda x: -mpmath.log(x),
}
DROPS = (1e-9, 0.3, 0.99, 1.01, 5.0, 50.0, 800.0, 5000.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", EXACT)
def test_excess_of_a_loss_in_sixty_digits(name: str, sign: float) -> None:
    """Slopes that underflow, growth that overflows, and drops that undo all of a loss."""
    usable = (0.7, 3.0) if name == "log" else (0.7, 3.0, 40.0, 900.0, -5.0, -900.0)
    for x in usable:
        for drop in (d for d in DROPS if name != "log" or d < 0.6):
            log_drop = float(np.log(drop))
            one = (np.array([each]) for each in (x, log_drop, sign))
            (found,) = LOSSES[name].log_excess(*one)
            with mpmath.workdps(60):
                moved = mpmath.mpf(x) - sign * mpmath.exp(mpmath.mpf(log_drop))
                value = EXACT[name](moved) - EXACT[name](mpmath.mpf(x))
                exact = float(mpmath.log(abs(value)))
            # δ is known to the rounding of its logarithm, and e^δ to δ times that.
            assert abs(float(found) - exact) <= 64 * U * (
                1 + drop * (1 + abs(log_drop)) + abs(exact)
            )

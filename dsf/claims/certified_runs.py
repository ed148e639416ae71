"""What rounding does to the delta rule: a run with a proved error."""

from __future__ import annotations

import numpy as np

import dsf
from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.contraction import Steps, contraction
from dsf.verify.judges import under, within

from .tensors import array, tensor

_LENGTHS = {Budget.SMOKE: 128, Budget.DEFAULT: 512, Budget.FULL: 4096}
_KEYS, _VALUES = 8, 4
_BOUND = 2.0**-30


def _draw(task: Task) -> Evidence:
    """Keys of float32 and strengths of five bits: β k is exact in float64, so the rule is what is run."""
    rng, length = task.rng(), _LENGTHS[task.budget]
    keys = rng.standard_normal((length, _KEYS))
    return {
        "q": rng.standard_normal((length, _KEYS)),
        "k": (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32).astype(float),
        "beta": rng.integers(0, 33, length) / 16,
        "v": rng.uniform(-1, 1, (length, _VALUES)),
    }


def _run(drawn: Evidence) -> Evidence:
    """DeltaNet in float64, chunkwise."""
    from dsf.mixers import deltanet

    q, k, v = (tensor(drawn[name])[None, :, None] for name in ("q", "k", "v"))
    system = deltanet(q, k, tensor(drawn["beta"])[None, :, None])
    y, _ = dsf.run(system, v, form="chunkwise")
    return {**drawn, "y": array(y[0, :, 0])}


def _kept_in_float32(drawn: Evidence) -> Evidence:
    found = _run(drawn)
    return {**found, "y": found["y"].astype(np.float32).astype(float)}


def _judge(evidence: Evidence) -> Verdict:
    """A float64 loop in numpy, its states' error by residuals and norms, and the distance to it."""
    q, k, beta, v, y = (
        np.asarray(evidence[name], dtype=np.float64) for name in ("q", "k", "beta", "v", "y")
    )
    length, keys = k.shape
    states = np.zeros((length + 1, keys, v.shape[1]))
    for i in range(length):
        written = beta[i] * np.outer(k[i], v[i] - k[i] @ states[i])
        states[i + 1] = states[i] + written
    strengths = (beta[:, None] * k)[..., None]
    steps = Steps(np.ones((length, keys)), -strengths, k[..., None], strengths, v[:, None])
    found = contraction(steps, states)
    growth = float(np.prod(np.maximum(found.norms, 1)))
    exact = Hypothesis("bits of β k", _bits(beta, k), _bits(beta, k) <= 53)
    stable = Hypothesis("product of norms", min(growth, 1e300), growth < 2)

    def conclude() -> Verdict:
        lengths = np.linalg.norm(q, axis=1)
        reads = np.einsum("tk,tkv->tv", q, states[1:])
        rounded = (keys + 8) * 2.0**-52 * np.einsum("tk,tkv->tv", np.abs(q), np.abs(states[1:]))
        radius = (lengths * found.errors[1:])[:, None] * (1 + 2.0**-40) + rounded
        return within(float(np.abs(y - reads).max()), _BOUND, error=float(radius.max()))

    return under([exact, stable], conclude)


def _bits(beta: np.ndarray, k: np.ndarray) -> int:
    """Bits of the products: exact where those of both factors fit into 53 together."""
    return _width(beta) + _width(k)


def _width(x: np.ndarray) -> int:
    mantissas, _ = np.frexp(x[x != 0])
    whole = (mantissas * 2.0**53).astype(np.int64)
    trailing = whole & -whole
    return 53 - int(np.log2(trailing.min(initial=2**53)))


DELTA_RULE_RUN = Claim(
    id="yang2024.float64-run",
    title="Chunks of the delta rule in float64 are within 2^-30 of the exact recurrence",
    statement=(
        r"$|\hat{y}_i - y_i| \leq 2^{-30}, \quad \|\tilde{h}_i - h_i\| \leq e_i = L_i e_{i-1} + r_i, "
        r"\quad L_i \geq \|I - \beta_i k_i k_i^T\|$"
    ),
    citation="Yang, Kautz, Hatamizadeh, arXiv 2412.06464, the chunkwise delta rule; own statement and bound",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="residuals of a float64 loop in extended precision, norms by Cholesky factorisations",
    instance=_draw,
    witness=_run,
    control=_kept_in_float32,
    judge=_judge,
)

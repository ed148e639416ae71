r"""How many operations a token costs: counted by running the chunk algebra, with its results checked.

A multiplication of (m, k) by (k, n) matrices counts 2 m k n operations, and full square blocks are multiplied where
a mask keeps half, as matrix instructions do. Exponentials and products with masks are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

_ROWS = {Budget.SMOKE: 8, Budget.DEFAULT: 32, Budget.FULL: 128}
_QIN = "Qin et al., arXiv 2405.17381 (constant training speed), own wording and own count"


class Counting:
    """Products of integer matrices, exact, and the operations that they took."""

    def __init__(self) -> None:
        self.operations = self.products = 0

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        self.products += 1
        self.operations += 2 * x.shape[0] * x.shape[1] * y.shape[1]
        return x @ y


def forward(C: int, K: int, V: int) -> int:
    """Operations a token of the chunk form: QKᵀ, PV, QS and KᵀV.

    >>> forward(64, 128, 128)
    98304
    """
    return 2 * C * (K + V) + 4 * K * V


def backward(C: int, K: int, V: int) -> int:
    """Operations a token of the gradients: three walks like the forward one, those of q, k and v.

    >>> backward(64, 128, 128)
    294912
    """
    return 3 * forward(C, K, V)


Draw = dict[str, np.ndarray]


def draws(C: int, K: int, V: int, chunks: int) -> Draw:
    """Small integers: all that follows is exact."""
    rng, T = np.random.default_rng((C, K, V, chunks)), C * chunks
    return {
        "q": rng.integers(-2, 3, (T, K)),
        "k": rng.integers(-2, 3, (T, K)),
        "v": rng.integers(-2, 3, (T, V)),
        "dy": rng.integers(-2, 3, (T, V)),
        "a": rng.integers(1, 3, T),
    }


def _decays(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps = range(len(a))
    inside = np.array([[np.prod(a[j + 1 : i + 1]) if i >= j else 0 for j in steps] for i in steps])
    return inside, np.cumprod(a)[:, None], inside[-1][:, None]


def in_chunks(x: Draw, C: int, times: Counting) -> np.ndarray:
    return _walk(x, "qkv", C, times)


def three_walks(x: Draw, C: int, times: Counting) -> tuple[np.ndarray, ...]:
    """dQ reads dO among (V, K); against time dK reads V among (dO, Q), and dV reads K among (Q, dO)."""
    dq = _walk(x, ("dy", "v", "k"), C, times)
    dk = _walk(x, ("v", "dy", "q"), C, times, reverse=True)
    return dq, dk, _walk(x, ("k", "q", "dy"), C, times, reverse=True)


def _walk(
    x: Draw, names: Sequence[str], C: int, times: Counting, *, reverse: bool = False
) -> np.ndarray:
    """Reads among writes and values, in chunks, from the first to the last or the other way."""
    reads, writes, values = (x[name] for name in names)
    state = np.zeros((writes.shape[1], values.shape[1]), np.int64)
    found = np.zeros((len(reads), values.shape[1]), np.int64)
    starts = range(0, len(reads), C)
    for at in reversed(starts) if reverse else starts:
        q, k, v = (y[at : at + C] for y in (reads, writes, values))
        inside, early, late = _decays(x["a"][at : at + C])
        if reverse:
            inside, near, far = inside.T, late, early
        else:
            near, far = early, late
        found[at : at + C] = times(times(q, k.T) * inside, v) + near * times(q, state)
        state = early[-1] * state + times(k.T, far * v)
    return found


def _by_steps(x: Draw) -> tuple[np.ndarray, ...]:
    """Outputs, and the gradients of q, k and v for dy, one step after another."""
    q, k, v, dy, a = (x[name] for name in ("q", "k", "v", "dy", "a"))
    T, state = len(a), np.zeros((k.shape[1], v.shape[1]), np.int64)
    y, dq = np.zeros_like(v), np.zeros_like(q)
    for t in range(T):
        state = a[t] * state + np.outer(k[t], v[t])
        y[t], dq[t] = q[t] @ state, state @ dy[t]
    after, dk, dv = np.zeros_like(state), np.zeros_like(k), np.zeros_like(v)
    for t in reversed(range(T)):
        after = after + np.outer(q[t], dy[t])
        dk[t], dv[t] = after @ v[t], k[t] @ after
        after = a[t] * after
    return y, dq, dk, dv


def _counted_forward(C: int, K: int, V: int, chunks: int) -> tuple[int, bool]:
    x, times = draws(C, K, V, chunks), Counting()
    found = in_chunks(x, C, times)
    return times.operations, np.array_equal(found, _by_steps(x)[0])


def _counted_backward(C: int, K: int, V: int, chunks: int) -> tuple[int, bool]:
    x, times = draws(C, K, V, chunks), Counting()
    found = three_walks(x, C, times)
    right = zip(found, _by_steps(x)[1:], strict=True)
    return times.operations, all(np.array_equal(a, b) for a, b in right)


def _sizes(task: Task) -> Evidence:
    """Chunk lengths, keys, values and numbers of chunks, at random; each with one chunk too."""
    drawn = task.rng().integers((2, 1, 1, 2), (6, 6, 6, 5), (_ROWS[task.budget] // 2, 4))
    return {"sizes": np.concatenate([drawn, drawn * (1, 1, 1, 0) + (0, 0, 0, 1)])}


def _judge(counted: Callable[..., tuple[int, bool]]) -> Callable[[Evidence], Verdict]:
    """Runs the algebra at every size, and divides what it took by the tokens."""

    def judge(evidence: Evidence) -> Verdict:
        sizes = [tuple(map(int, row)) for row in np.asarray(evidence["sizes"])]
        stated = [Fraction(x) for x in evidence["per_token"]]
        small = all(len(row) == 4 and min(row) > 0 and max(row) <= 8 for row in sizes)
        fit = Hypothesis("small sizes", len(sizes), 0 < len(sizes) == len(stated) <= 512 and small)

        def conclude() -> Verdict:
            wrong = Fraction(0)
            for (C, K, V, chunks), claimed in zip(sizes, stated, strict=True):
                operations, right = counted(C, K, V, chunks)
                if not right:
                    return Verdict(
                        Status.INCONCLUSIVE, remark="the counted algebra is not the recurrence"
                    )
                wrong = max(wrong, abs(Fraction(operations, C * chunks) - claimed))
            status = Status.HOLDS if wrong == 0 else Status.VIOLATED
            return Verdict(status, float(wrong), 0.0, 0.0, remark=f"{len(sizes)} sizes")

        return under([fit], conclude)

    return judge


def _stated(rule: Callable[[int, int, int], int | Fraction]) -> Callable[[Evidence], Evidence]:
    def witness(drawn: Evidence) -> Evidence:
        rows = [tuple(map(int, row)) for row in drawn["sizes"]]
        return {**drawn, "per_token": [Fraction(rule(*row[:3])) for row in rows]}

    return witness


def _triangle(C: int, K: int, V: int) -> Fraction:
    """The forward count if a mask saved half of the square blocks."""
    return Fraction(forward(C, K, V)) - C * (K + V)


def _shared(C: int, K: int, V: int) -> Fraction:
    """The backward count if the walks of keys and of values shared their state."""
    return Fraction(backward(C, K, V)) - 2 * K * V


CLAIMS = (
    Claim(
        id="qin2024-lightning.operations-per-token",
        title="The chunk form costs a token the same number of operations at every length",
        statement=r"$2 C (K + V) + 4 K V$ operations a token, for any number of chunks of $C$ tokens",
        citation=_QIN,
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="exact counts of a run that equals the recurrence; the control halves the blocks that a mask halves",
        instance=_sizes,
        witness=_stated(forward),
        control=_stated(_triangle),
        judge=_judge(_counted_forward),
    ),
    Claim(
        id="qin2024-lightning.operations-of-gradients",
        title="So do its gradients, which are three walks like the forward one",
        statement=r"$6 C (K + V) + 12 K V$ operations a token, for any number of chunks of $C$ tokens",
        citation=_QIN,
        level=Level.ENCLOSED,
        expected=Status.HOLDS,
        bound_rule="exact counts of a run that equals the recurrence's gradients; the control shares a state",
        instance=_sizes,
        witness=_stated(backward),
        control=_stated(_shared),
        judge=_judge(_counted_backward),
    ),
)

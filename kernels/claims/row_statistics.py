r"""What a row's statistics cost: softmax over tiles of keys against sigmoid weights, operation by operation.

Both attentions are run on counting numbers, and their outputs checked. Products of matrices, which are the same, are
left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

_ROWS = {Budget.SMOKE: 6, Budget.DEFAULT: 24, Budget.FULL: 96}
_PAPER = (
    "Ramapuram et al., arXiv 2409.04431v2, section 4; flash_sigmoid/README.md (row sum and maximum are not needed), "
    "own wording and count"
)


def softmax(T: int, tile: int, V: int) -> dict[str, int]:
    """Operations a row of T keys and V channels: two exponentials where a tile starts, and all is rescaled."""
    tiles = -(-T // tile)
    return {
        "exp": T + tiles,
        "max": T,
        "add": 2 * T + tiles,
        "mul": tiles * (1 + V),
        "div": V,
        "log": 1,
    }


def sigmoid(T: int, tile: int, V: int) -> dict[str, int]:
    """Operations a row: ½ + ½ tanh(½ s + ½ b), whatever the tiles and channels."""
    return {"tanh": T, "add": 2 * T, "mul": 2 * T}


def _run_softmax(
    scores: np.ndarray, tile: int, values: np.ndarray
) -> tuple[Counter[str], np.ndarray]:
    done: Counter[str] = Counter()
    m, total, found = -math.inf, 0.0, np.zeros(values.shape[1])
    for at in range(0, len(scores), tile):
        part = scores[at : at + tile]
        new = m
        for s in part:
            new, done["max"] = max(new, s), done["max"] + 1
        fade = math.exp(m - new)
        done["add"] += 1
        done["exp"] += 1
        found, total = fade * found, fade * total
        done["mul"] += len(found) + 1
        weights = []
        for s in part:
            weights.append(math.exp(s - new))
            total += weights[-1]
            done["exp"] += 1
            done["add"] += 2
        found, m = found + np.array(weights) @ values[at : at + tile], new
    done["div"] += len(found)
    done["log"] += 1  # of the sum, for the backward pass; its reference rides on the last addition
    return done, found / total


def _run_sigmoid(
    scores: np.ndarray, tile: int, values: np.ndarray
) -> tuple[Counter[str], np.ndarray]:
    done: Counter[str] = Counter()
    found = np.zeros(values.shape[1])
    for at in range(0, len(scores), tile):
        weights = []
        for s in scores[at : at + tile]:
            weights.append(0.5 + 0.5 * math.tanh(0.5 * s - 0.5 * math.log(len(scores))))
            done["tanh"] += 1
            done["add"] += 2
            done["mul"] += 2
        found = found + np.array(weights) @ values[at : at + tile]
    return done, found


def _right(scores: np.ndarray, values: np.ndarray, outputs: tuple[np.ndarray, np.ndarray]) -> bool:
    """Both outputs against the formulas, with a wide margin over float64's rounding."""
    gains = np.exp(scores)
    direct = gains @ values / gains.sum(), gains / (gains + len(scores)) @ values
    margin = 64 * len(scores) * 2.0**-53 * np.abs(values).sum()
    return all(np.abs(a - b).max() <= margin for a, b in zip(outputs, direct, strict=True))


def _draw(task: Task) -> Evidence:
    """Keys, tiles and channels of every row."""
    return {"sizes": task.rng().integers((9, 1, 1), (33, 9, 5), (_ROWS[task.budget], 3))}


Rule = Callable[[int, int, int], Mapping[str, int]]


def _stated(of_softmax: Rule, of_sigmoid: Rule) -> Callable[[Evidence], Evidence]:
    def witness(drawn: Evidence) -> Evidence:
        rows = [tuple(map(int, row)) for row in drawn["sizes"]]
        counts = {"softmax": of_softmax, "sigmoid": of_sigmoid}
        return {**drawn} | {
            name: [dict(rule(*row)) for row in rows] for name, rule in counts.items()
        }

    return witness


def _with_one_rescale(T: int, tile: int, V: int) -> dict[str, int]:
    """The control's softmax, which would rescale once a row instead of once a tile."""
    return softmax(T, T, V)


def _judge(evidence: Evidence) -> Verdict:
    sizes = [tuple(map(int, row)) for row in np.asarray(evidence["sizes"])]
    small = all(0 < T <= 64 and 0 < tile <= 64 and 0 < V <= 8 for T, tile, V in sizes)
    stated = {name: evidence[name] for name in ("softmax", "sigmoid")}
    fit = small and all(0 < len(sizes) == len(rows) <= 512 for rows in stated.values())

    def conclude() -> Verdict:
        wrong = 0
        for row, (T, tile, V) in enumerate(sizes):
            rng = np.random.default_rng((T, tile, V))
            scores, values = rng.standard_normal(T), rng.standard_normal((T, V))
            runs = _run_softmax(scores, tile, values), _run_sigmoid(scores, tile, values)
            if not _right(scores, values, (runs[0][1], runs[1][1])):
                return Verdict(Status.INCONCLUSIVE, remark="the counted attention is not attention")
            for name, (done, _) in zip(stated, runs, strict=True):
                wrong += dict(done) != {key: int(n) for key, n in stated[name][row].items()}
        status = Status.HOLDS if wrong == 0 else Status.VIOLATED
        return Verdict(status, float(wrong), 0.0, 0.0, remark=f"{len(sizes)} rows")

    return under([Hypothesis("small rows", len(sizes), fit)], conclude)


STATISTICS_SAVED = Claim(
    id="ramapuram2024.row-statistics-saved",
    title="Sigmoid attention needs one tanh a score; softmax in n tiles n more exponentials and n rescalings",
    statement=(
        r"a row of $T$ keys, $n$ tiles and $V$ channels: $T + n$ exponentials, $T$ maxima, $n (V + 1)$ rescalings, "
        r"$V$ divisions and a logarithm, against $T$ tanh with two products and two sums each"
    ),
    citation=_PAPER,
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact counts of runs whose outputs are checked; the control rescales once a row",
    instance=_draw,
    witness=_stated(softmax, sigmoid),
    control=_stated(_with_one_rescale, sigmoid),
    judge=_judge,
)

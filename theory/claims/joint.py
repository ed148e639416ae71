r"""Head and prompt trained together: v turns to the max-margin separator of the selected tokens' labels, p to a
max-margin separator of tokens that asks 1 of the samples that support v and only 0 of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from ..dynamics.joint import joint_path
from ..instances import TokenData
from ..svm import Instance, Solution, att_svm
from . import judging
from .asymptotics import rate
from .evidence import described, seed_of
from .problem import Problem, U, array, need

_SHAPES = {Budget.SMOKE: (3, 3, 8), Budget.DEFAULT: (4, 3, 10), Budget.FULL: (5, 4, 16)}
_SUPPORT = 1e-3  # relative: a label margin this close to the least is the least
_CLEAR = 0.3  # relative: any other is further away than this
_AT = np.geomspace(100.0, 1000.0, 5)

Rows = np.ndarray


def _tokens(rng: np.random.Generator, shape: tuple[int, int, int], far: bool) -> TokenData:
    """Token 0 of each sample scores ½ on a unit head, others -0.3; where `far`, 2 in the first sample."""
    n, most, d = shape
    v = rng.standard_normal(d)
    v /= np.linalg.norm(v)
    labels = rng.choice([-1.0, 1.0], n)
    u = rng.standard_normal((n, most, d))
    u -= (u @ v)[..., None] * v
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    scores = np.full((n, most), -0.3)
    scores[:, 0] = 0.5
    scores[0, 0] = 2.0 if far else 0.5
    tokens = (labels[:, None] * scores)[..., None] * v + np.sqrt(0.75) * u
    return TokenData(tokens, np.tile(np.eye(d)[0], (n, 1)), scores, labels=labels)


def _labels(data: TokenData) -> Solution | None:
    """min ‖v‖ with Y_i vᵀx_i0 ≥ 1, written as token selection: W e_1 is v."""
    assert data.labels is not None
    rows = data.labels[:, None] * data.tokens[:, 0]
    pairs = [np.stack([row, np.zeros_like(row)]) for row in rows]
    found = att_svm(Instance(pairs, data.queries, np.zeros(len(rows), dtype=int)))
    return found if isinstance(found, Solution) else None


def _selecting(data: TokenData, asked: np.ndarray) -> Solution | None:
    """min ‖p‖ with pᵀ(x_i0 - x_it) ≥ `asked` (n,)."""
    first = np.zeros(len(asked), dtype=int)
    found = att_svm(Instance(data.tokens, data.queries, first, least=asked))
    return found if isinstance(found, Solution) else None


def _instance(far: bool) -> Callable[[Task], Evidence]:
    def draw(task: Task) -> Evidence:
        for child in np.random.SeedSequence(seed_of(task)).generate_state(1000):
            data = _tokens(np.random.default_rng(int(child)), _SHAPES[task.budget], far)
            head = _labels(data)
            if head is None:
                continue
            margins = head.margins
            asked = (margins <= 1 + _SUPPORT).astype(float)
            loose = margins[asked == 0]
            if bool(len(loose)) != far or (loose < 1 + 2 * _CLEAR).any():
                continue
            both = [_selecting(data, each) for each in (asked, _flipped(asked))]
            if None in both:
                continue
            p, other = (each.W[:, 0] / np.linalg.norm(each.W) for each in both if each is not None)
            if np.linalg.norm(p - other) < 0.1:
                continue
            return {"data": data, "head": head, "asked": asked, "slack": loose.min(initial=2.0) - 1}
        raise ArithmeticError("no draw in a thousand has the support that is asked for")

    return draw


def _flipped(asked: np.ndarray) -> np.ndarray:
    """The same, with 0 and 1 exchanged for the first sample: what a control asks."""
    return np.concatenate([1 - asked[:1], asked[1:]])


def _path(right: bool = True, slow: float = 1.0) -> Callable[[Evidence], Evidence]:
    """The path beside v^mm and p^mm; where not `right`, with the margins that a control asks.

    `slow` makes r / R smaller: with little of it the head never gets to large norms.
    """

    def produce(drawn: Evidence) -> Evidence:
        data, head, asked = drawn["data"], drawn["head"], drawn["asked"]
        told = asked if right else _flipped(asked)
        first = np.zeros(len(asked), dtype=int)
        beside, own = _selecting(data, told), _selecting(data, asked)
        assert beside is not None and own is not None
        v, prompt = head.W[:, 0], own.W[:, 0]
        share = slow * 3 * np.linalg.norm(v) / np.linalg.norm(prompt) / drawn["slack"]
        heads, prompts = joint_path(data, first, (v, prompt), np.stack([share * _AT, _AT], axis=1))
        return described(data, first) | {
            "labels": data.labels,
            "share": float(share),
            "at": _AT,
            "V": heads,
            "P": prompts,
            "head_primal": v,
            "head_dual": head.dual,
            "asked": told,
            "primal": beside.W[:, 0],
            "dual": beside.dual,
        }

    return produce


def _separator(
    rows: Rows, asked: np.ndarray, primal: np.ndarray, dual: np.ndarray, what: str
) -> tuple[np.ndarray, float, Hypothesis]:
    """The direction of min ‖x‖ with rows·x ≥ asked, a bound of its error, and whether the gap allows that."""
    need(
        dual.shape == asked.shape and (dual >= 0).all(), f"the dual point of the {what} is not one"
    )
    margins, strict = rows @ primal, asked > 0
    lowest = float((margins[strict] / asked[strict]).min())
    need(lowest > 0, f"the {what} has no positive margin")
    short = float((-margins[~strict]).max(initial=0.0)) / float(np.linalg.norm(primal))
    size = float(np.linalg.norm(dual @ rows))
    need(size > 0, f"the dual point of the {what} is zero")
    rounding = 64 * rows.size * U
    high = float(np.linalg.norm(primal)) / lowest * (1 + rounding)
    low = float(asked @ dual) / size * (1 - rounding)
    need(0 < low <= high, f"the dual point of the {what} is above its primal one")
    bar = 2 * np.sqrt(high**2 - low**2) / high + 2 * short
    gap = (high - low) / high + short
    fine = Hypothesis(f"relative duality gap of the {what}", gap, gap <= judging.NEARLY_OPTIMAL)
    return primal / np.linalg.norm(primal), float(bar), fine


def _asked(margins: np.ndarray) -> tuple[np.ndarray, Hypothesis]:
    """Which samples support the head, and whether that is clear."""
    relative = margins / margins.min() - 1
    clear = bool(((relative <= _SUPPORT) | (relative >= _CLEAR)).all())
    support = Hypothesis("every label margin is the least, or clearly above it", clear, clear)
    return (relative <= _SUPPORT).astype(float), support


def _stationary(problem: Problem, labels: np.ndarray, v: np.ndarray, p: np.ndarray) -> float:
    """The larger sine of the angles between v, p and the falls of the risk in each."""
    scores = labels[:, None] * (problem.tokens @ v)
    seen = Problem(problem.tokens, problem.queries, scores, problem.mask, problem.selection)
    w = np.outer(p, problem.queries[0])
    s = np.exp(problem.log_weights(w))
    margins = (s * scores).sum(1)
    weights = np.exp(-np.logaddexp(0.0, margins) + np.logaddexp(0.0, margins.min()))
    pull = (weights * labels) @ np.einsum("it,itd->id", s, problem.tokens)
    return max(judging.sine(v, pull), judging.sine(w, seen.descent_direction(w)[1]))


def _judge(of_prompt: bool, relaxed: bool) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        problem = Problem.of(evidence)
        n, _, d = problem.shape
        labels = array(evidence, "labels", n)
        need((np.abs(labels) == 1).all(), "labels are not signs")
        need((problem.queries == problem.queries[0]).all(), "queries differ")
        need(abs(np.linalg.norm(problem.queries[0]) - 1) <= 4 * U, "the query is not of length 1")
        chosen = problem.tokens[np.arange(n), problem.selection] * labels[:, None]
        rows, _ = problem.rows()
        v, v_bar, v_gap = _separator(
            chosen,
            np.ones(n),
            array(evidence, "head_primal", d),
            array(evidence, "head_dual", n),
            "head",
        )
        support, clear = _asked(chosen @ v)
        told = array(evidence, "asked", n)
        need(((told == 0) | (told == 1)).all() and told.any(), "margins asked are not 0 or 1")
        counts = problem.mask.sum(1) - 1
        p, p_bar, p_gap = _separator(
            rows,
            np.repeat(told, counts),
            array(evidence, "primal", d),
            array(evidence, "dual", len(rows)),
            "prompt",
        )
        at = array(evidence, "at", None)
        heads, prompts = array(evidence, "V", len(at), d), array(evidence, "P", len(at), d)
        share = float(evidence["share"])
        sizes = np.concatenate(
            [np.linalg.norm(heads, axis=1) / (share * at), np.linalg.norm(prompts, axis=1) / at]
        )
        off = float(np.abs(sizes - 1).max())
        turn = max(_stationary(problem, labels, *pair) for pair in zip(heads, prompts, strict=True))
        loose = bool((support == 0).any())
        found = [
            v_gap,
            p_gap,
            clear,
            Hypothesis("some sample does not support the head", loose, loose == relaxed),
            Hypothesis("relative error of the radii", off, off <= 1e-9),
            Hypothesis("sin of an angle between v or p and -∇L", turn, turn <= judging.STATIONARY),
        ]
        parts, unit, bar = (prompts, p, p_bar) if of_prompt else (heads, v, v_bar)
        units = parts / np.linalg.norm(parts, axis=1, keepdims=True)
        errors = np.linalg.norm(units - unit, axis=1)
        return under(found, lambda: rate(at, errors, np.full(len(at), bar)))

    return judge


_PAPER = (
    "Tarzanagh et al. 2023, arXiv 2306.13596, joint optimisation of head and prompt; own wording"
)
_PROMPT = r"$\| \bar{p}_R / R - p^{mm} / \|p^{mm}\| \| = \Theta(1 / R), \quad p^{mm} = \mathrm{argmin} \|p\|: $"


def _claim(name: str, title: str, statement: str, **rest) -> Claim:
    fields = {
        "citation": _PAPER,
        "level": Level.MEASURED,
        "expected": Status.HOLDS,
        "bound_rule": "slope -1 of the logarithms within 0.1, after the error bar of the duality gap",
    }
    return Claim(
        id=f"tarzanagh2023-max-margin.{name}", title=title, statement=statement, **(fields | rest)
    )


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "joint-head",
        "On the joint path the head turns to the max-margin separator of the labels of selected tokens",
        r"$\| \bar{v}_r / r - v^{mm} / \|v^{mm}\| \| = \Theta(1 / r), \quad "
        r"v^{mm} = \mathrm{argmin} \|v\|: Y_i v^T x_{i\alpha_i} \geq 1$, all samples its support",
        instance=_instance(far=False),
        witness=_path(),
        control=_path(slow=1e-4),
        judge=_judge(of_prompt=False, relaxed=False),
    ),
    _claim(
        "joint-prompt",
        "Where all samples support the head, the joint path's prompt turns to its max-margin separator",
        _PROMPT + r"$p^T (x_{i\alpha_i} - x_{it}) \geq 1$",
        instance=_instance(far=False),
        witness=_path(),
        control=_path(right=False),
        judge=_judge(of_prompt=True, relaxed=False),
    ),
    _claim(
        "joint-prompt-relaxed",
        "Samples that do not support the head ask the prompt for a margin of 0 only",
        _PROMPT
        + r"$p^T (x_{i\alpha_i} - x_{it}) \geq 1$ for the head's support, $\geq 0$ otherwise, "
        r"$r / R$ large",
        instance=_instance(far=True),
        witness=_path(),
        control=_path(right=False),
        judge=_judge(of_prompt=True, relaxed=True),
    ),
)

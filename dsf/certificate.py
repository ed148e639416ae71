r"""Claims and certificates: what is stated, how it is judged, and the record that can be checked later.

A claim is data plus four functions that form a straight line:

    instance(task) ──> witness(instance) ──> evidence ──> judge(evidence) ──> verdict
                       control(instance) ──> evidence ──> judge(evidence) ──> must be the opposite

`instance` draws numpy arrays from one seed. `witness` may use any solver and torch. `judge` sees
nothing but the evidence, needs only numpy (sympy for symbolic evidence), and is the *only* place
where a verdict is made: a run and a later verification call the same judge on the same data.
Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

Evidence = Mapping[str, Any]

_ID = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+")


class Level(StrEnum):
    """How strong the proof is, strongest first."""

    SYMBOLIC = "symbolic"
    ENCLOSED = "enclosed"
    CERTIFIED = "certified"
    MEASURED = "measured"
    STATISTICAL = "statistical"

    @property
    def proves(self) -> bool:
        """True where a verified certificate is a proof rather than a consistent record."""
        return self in (Level.SYMBOLIC, Level.ENCLOSED, Level.CERTIFIED)


class Status(StrEnum):
    """The outcome of judging a claim."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"
    HYPOTHESIS_NOT_MET = "hypothesis-not-met"
    NOT_RUN = "not-run"

    @property
    def definite(self) -> bool:
        return self in (Status.HOLDS, Status.VIOLATED)


class Budget(StrEnum):
    """How much work an instance may ask for; seconds are core-seconds per claim."""

    SMOKE = "smoke"
    DEFAULT = "default"
    FULL = "full"


@dataclass(frozen=True)
class Task:
    """What an instance generator is given: the claim's own seed and the budget."""

    seed: int
    budget: Budget = Budget.DEFAULT

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Hypothesis:
    """One hypothesis of a claim, the value found for it, and whether it is met."""

    name: str
    value: float | int | bool | str
    holds: bool


@dataclass(frozen=True)
class Verdict:
    """What a judge concludes from evidence.

    `measured` is compared with `bound` (and described by `predicted` where the theory predicts a
    number). All three are finite floats or None.
    """

    status: Status
    measured: float | None = None
    predicted: float | None = None
    bound: float | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Claim:
    r"""A statement that can be checked.

    `id` is `<paper-slug>.<statement>`; `statement` is LaTeX (the subset that matplotlib's mathtext
    draws, one formula per line); `citation` names the theorem, equation or table; `bound_rule` says
    where the bound comes from; `requires` lists importable modules of extras.
    """

    id: str
    title: str
    statement: str
    citation: str
    level: Level
    expected: Status
    bound_rule: str
    instance: Callable[[Task], Evidence]
    witness: Callable[[Evidence], Evidence]
    control: Callable[[Evidence], Evidence]
    judge: Callable[[Evidence], Verdict]
    requires: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(
                f"`id` is {self.id!r}; it must read <paper-slug>.<statement> in [a-z0-9.-], "
                "for example 'sieber2024.t1-separable-attention'"
            )
        if not self.expected.definite:
            raise ValueError(
                f"`expected` is {self.expected.value!r}; a claim is expected to be 'holds' or 'violated'"
            )

    @property
    def paper(self) -> str:
        return self.id.split(".", 1)[0]

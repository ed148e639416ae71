"""Jobs: what a run does, in order, each with a key, and how one is done."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from . import checks, clocks, measure
from .case import Case, Sizes
from .cases import named


@dataclass(frozen=True)
class Settings:
    """The device, and how much of the whole: `dry` sizes are tiny, `quick` ones are a sample."""

    device: str
    quick: bool = False

    @property
    def dry(self) -> bool:
        return torch.device(self.device).type != "cuda"

    @property
    def repeats(self) -> int:
        return 2 if self.dry else 6 if self.quick else 20

    @property
    def budget_ms(self) -> float:
        """Milliseconds for one clock to run."""
        return 2.0 if self.dry else 40.0 if self.quick else 80.0


@dataclass(frozen=True)
class Job:
    """One row of the result. `sizes` is the name of sizes in a group of the case."""

    kind: str
    case: str
    group: str
    sizes: str
    dtype: str

    @property
    def key(self) -> str:
        return " | ".join((self.kind, self.case, self.sizes, self.dtype))

    @property
    def limit_s(self) -> float:
        """Seconds after which it is given up: a peer tunes itself, and compiling for the first time is slow."""
        return 150.0 if self.alone else 90.0

    @property
    def alone(self) -> bool:
        """Whether nothing else may use the device."""
        return self.kind == "time"

    def to_json(self) -> dict[str, str]:
        """Its fields and its key, as a row begins."""
        return {"key": self.key, **asdict(self)}

    @classmethod
    def from_json(cls, given: Mapping[str, str]) -> Job:
        return cls(**{name: given[name] for name in cls.__dataclass_fields__})


def present(cases: Iterable[Case]) -> tuple[list[Case], list[Case]]:
    """Those whose operator is there, and those whose is not."""
    found, absent = [], []
    for case in cases:
        (found if case.function() is not None else absent).append(case)
    return found, absent


def plan(cases: Iterable[Case], settings: Settings) -> list[Job]:
    """Checks and repetitions first, those of bfloat16 before the others; then times."""
    cases = list(cases)
    ordered = [*_validation(cases, settings), *_repetitions(cases, settings)]
    ordered.sort(key=lambda job: job.dtype != "bfloat16")
    return [*ordered, *_times(cases, settings)]


def sizes_of(case: Case, group: str, settings: Settings) -> list[Sizes]:
    """The sizes of a group that these settings ask for."""
    if group == "checks" and settings.dry:
        return list(case.small)
    if group == "repeated":
        return [case.small[0] if settings.dry else case.repeated]
    chosen: tuple[Sizes, ...] = getattr(case, group)
    if settings.dry:  # the names of what they stand for, at the sizes of a small check
        return [replace(case.small[0], name=each.name) for each in chosen[:2]]
    return [each for each in chosen if each.quick or not settings.quick]


def _validation(cases: list[Case], settings: Settings) -> Iterator[Job]:
    for case in cases:
        for dtype in case.dtypes:
            for sizes in sizes_of(case, "checks", settings):
                yield Job("check", case.name, "checks", sizes.name, dtype)


def _repetitions(cases: list[Case], settings: Settings) -> Iterator[Job]:
    for case in cases:
        for dtype in case.dtypes[:1] if settings.quick else case.dtypes:
            for sizes in sizes_of(case, "repeated", settings):
                yield Job("repeat", case.name, "repeated", sizes.name, dtype)


def _times(cases: list[Case], settings: Settings) -> Iterator[Job]:
    for group in ("times", "long"):
        for case in cases:
            for sizes in sizes_of(case, group, settings):
                yield Job("time", case.name, group, sizes.name, case.timed)


def to_compile(jobs: Iterable[Job]) -> list[Job]:
    """Jobs that only compile what others will time, one per case and heads: compiling is slow, and can be shared."""
    found: dict[tuple[Any, ...], Job] = {}
    for job in jobs:
        case = named(job.case)
        sizes = next(s for s in getattr(case, job.group) if s.name == job.sizes)
        key = (job.case, sizes.heads, sizes.keys, sizes.values, str(sizes.extra))
        found.setdefault(key, replace(job, kind="compile"))
    return list(found.values())


def _shortened(sizes: Sizes) -> Sizes:
    """The same program, since lengths are divisible alike, on few steps; a pattern has its own length."""
    if "pattern" in sizes.extra:
        return sizes
    return replace(sizes, batch=1, length=min(sizes.length, 128))


def perform(job: Job, settings: Settings, copy_tb_s: float | None) -> dict[str, Any]:
    """What a job found; what an operator raises becomes a row that does not pass."""
    case = named(job.case)
    sizes = next(s for s in sizes_of(case, job.group, settings) if s.name == job.sizes)
    try:
        return _done(job, case, sizes, settings, copy_tb_s)
    except Exception as error:  # whatever a kernel raises is what the run is to report
        return {"error": f"{type(error).__name__}: {error}".strip()[:500], "passes": False}
    finally:
        if not settings.dry:
            gc.collect()
            torch.cuda.empty_cache()


def _done(
    job: Job, case: Case, sizes: Sizes, settings: Settings, copy_tb_s: float | None
) -> dict[str, Any]:
    device = settings.device
    if job.kind == "check":
        return checks.check(case, sizes, job.dtype, device, job.key)
    if job.kind == "repeat":
        return checks.repeat(case, sizes, job.dtype, device, job.key, settings.repeats)
    if job.kind == "compile":
        return checks.repeat(case, _shortened(sizes), job.dtype, device, job.key, 1)
    assert copy_tb_s is not None
    return measure.times(case, sizes, job.dtype, device, job.key, copy_tb_s, settings.budget_ms)


def copied(settings: Settings) -> dict[str, Any]:
    """The bandwidth of a copy, measured in every session."""
    found = clocks.copy_tb_s(torch.device(settings.device), settings.budget_ms)
    return {"tb_s": found}

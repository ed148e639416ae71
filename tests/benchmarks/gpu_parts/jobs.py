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
        """Seconds after which it is given up: compiling is slow, and a peer tunes itself."""
        return 150.0

    @property
    def alone(self) -> bool:
        """Whether nothing else may use the device."""
        return self.kind in ("time", "far")

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
    """Checks first, those of bfloat16 before the others; then times."""
    cases = list(cases)
    first = sorted(_checks(cases, settings), key=lambda job: job.dtype != "bfloat16")
    return [*first, *_times(cases, settings)]


def sizes_of(case: Case, group: str, settings: Settings) -> list[Sizes]:
    """The sizes of a group that these settings ask for."""
    if group == "checks" and settings.dry:
        return list(case.small)
    if group == "repeated":
        return [_small(case, case.repeated) if settings.dry else case.repeated]
    chosen: tuple[Sizes, ...] = getattr(case, group)
    if settings.dry:
        return [_small(case, each) for each in chosen[:2]]
    return [each for each in chosen if each.quick or not settings.quick]


def _small(case: Case, sizes: Sizes) -> Sizes:
    """What stands for them in a dry run: those of a small check."""
    return replace(case.small[0], name=sizes.name, share=1, dtypes=sizes.dtypes)


def _checks(cases: list[Case], settings: Settings) -> Iterator[Job]:
    for kind, group in (("check", "checks"), ("repeat", "repeated"), ("far", "far")):
        for case in cases:
            types = [each for each in case.dtypes if not settings.quick or each != "float16"]
            for sizes in sizes_of(case, group, settings):
                for dtype in types:
                    if sizes.dtypes is None or dtype in sizes.dtypes:
                        yield Job(kind, case.name, group, sizes.name, dtype)


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
        found = _done(job, case, sizes, settings, copy_tb_s)
        if not settings.dry:  # what a kernel did wrong must not be found by the next job
            torch.cuda.synchronize(settings.device)
        return found
    except torch.OutOfMemoryError as error:  # no fault of its own: it is too large for this device
        return {"error": f"does not fit: {error}"[:200], "fits": False}
    except Exception as error:  # whatever a kernel raises is what the run is to report
        words = f"{type(error).__name__}: {error}".strip()[:500]
        return {"error": words, "passes": False, "broken": not _healthy(settings)}
    finally:
        if not settings.dry and _healthy(settings):
            gc.collect()
            torch.cuda.empty_cache()


def _healthy(settings: Settings) -> bool:
    """Whether the device still answers: after an illegal access no call in this process does."""
    if settings.dry:
        return True
    try:
        torch.cuda.synchronize(settings.device)
    except RuntimeError:
        return False
    return True


def _done(
    job: Job, case: Case, sizes: Sizes, settings: Settings, copy_tb_s: float | None
) -> dict[str, Any]:
    device = settings.device
    if job.kind == "check":
        return checks.check(case, sizes, job.dtype, device, job.key)
    if job.kind == "repeat":
        return checks.repeat(case, sizes, job.dtype, device, job.key, settings.repeats)
    if job.kind == "far":
        return checks.far(case, sizes, job.dtype, device, job.key)
    if job.kind == "compile":
        return checks.repeat(case, _shortened(sizes), job.dtype, device, job.key, 1)
    assert copy_tb_s is not None
    return measure.times(case, sizes, job.dtype, device, job.key, copy_tb_s, settings.budget_ms)


def copied(settings: Settings) -> dict[str, Any]:
    """The bandwidth of a copy, measured in every sitting."""
    found = clocks.copy_tb_s(torch.device(settings.device), settings.budget_ms)
    return {"tb_s": found}

"""Running a selection of claims: workers, the journal, and going on after a kill."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool

from dsf.certificate import Budget, Claim
from dsf.certify import versions
from dsf.codec import ArrayStore, dumps, write_atomically
from dsf.errors import InvalidInput

from .document import merged
from .journal import Journal
from .selection import Selection, select
from .threads import one_thread
from .worker import claims_of, run_claim, run_in_worker

Result = Mapping[str, Any]


class WorkerDied(OSError):
    """A worker process ended before its claim did: killed, out of memory, or crashed."""


@dataclass(frozen=True)
class Settings:
    """What to check and how; `json` is the merged file, beside which the journal is kept.

    `reference` names the table of claims as `"module:NAME"`: a mapping by id, or a function.
    """

    ids: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    budget: Budget = Budget.DEFAULT
    seed: int = 0
    jobs: int = 1
    json: Path | None = None
    resume: bool = False
    reference: str = "dsf.registry:claims"

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InvalidInput(f"`jobs` is {self.jobs}; it must be at least 1")
        if not 0 <= self.seed < 2**53:
            raise InvalidInput(f"`seed` is {self.seed}; it must be at least 0 and below 2^53")
        if self.resume and self.json is None:
            raise InvalidInput(
                "`--resume` goes on from the journal beside the JSON file: "
                "give `--json FILE` (a file, not `-`)"
            )

    @property
    def journal(self) -> Path | None:
        return self.json and self.json.with_name(self.json.name + ".journal")

    def claims(self) -> Mapping[str, Claim]:
        """The table that `reference` names."""
        return claims_of(self.reference)

    def selection(self) -> Selection:
        """The claims that are asked for; raises `InvalidInput` as `select` does."""
        return select(self.claims(), self.ids, self.papers, self.levels)


class Watcher:
    """Is told how a run goes on; every method may be overridden."""

    def begins(self, total: int, done: int, forgotten: int) -> None:
        """`done` results of `total` are in the journal; `forgotten` ones there are dropped."""

    def finished(self, result: Result) -> None:
        """One more result is finished, and on disk if there is a journal."""


def check(settings: Settings, watcher: Watcher | None = None) -> dict[str, Any]:
    """Run the claims that `settings` ask for and return the merged document (see `document`).

    With `settings.json` each result is on disk as soon as it is finished, the merged file is put in
    place at the end, and the journal goes away. The document does not depend on the number of
    workers, but for the seconds. Raises `InvalidInput` for bad settings or another run's journal,
    `OSError` where a file cannot be written (what is finished stays in the journal).

    >>> document = check(
    ...     Settings(ids=("example.rounding-of-a-sum",), budget=Budget.SMOKE,
    ...              reference="dsf.claims.examples:TOY")
    ... )
    >>> [(claim["id"], claim["outcome"]) for claim in document["claims"]]
    [('example.rounding-of-a-sum', 'as-expected')]
    """
    watcher = watcher or Watcher()
    ids = settings.selection().ids
    binding = {"seed": settings.seed, "budget": settings.budget.value, "versions": versions()}
    with ExitStack() as stack:
        journal = None
        if settings.journal:
            journal = stack.enter_context(
                Journal(settings.journal, binding, resume=settings.resume)
            )
        results = dict(journal.results) if journal else {}
        todo = [name for name in ids if name not in results]
        watcher.begins(len(ids), len(ids) - len(todo), journal.forgotten if journal else 0)
        for result in stack.enter_context(closing(_stream(settings, todo))):
            if journal:
                journal.add(result)
            results[result["id"]] = result
            watcher.finished(result)
        document = merged(binding, [results[name] for name in ids])
        if settings.json and journal:
            write_atomically(settings.json, dumps(document))
            # Results of claims outside this selection are in no merged file yet: they stay.
            if set(results) <= set(ids):
                journal.remove()
    return document


def _stream(settings: Settings, ids: list[str]) -> Generator[dict[str, Any], None, None]:
    """Results in the order in which they are finished."""
    folder = str(ArrayStore.beside(settings.json).folder) if settings.json else None
    common = (settings.seed, settings.budget.value, folder)
    jobs = min(settings.jobs, len(ids))
    if jobs <= 1:
        with one_thread():
            for name in ids:
                yield run_claim(settings.reference, name, *common)
        return
    with parallel_config(backend="loky", inner_max_num_threads=1):
        call = delayed(run_in_worker)
        pool = Parallel(
            n_jobs=jobs,
            batch_size=1,  # pyright: ignore[reportArgumentType]: joblib documents an integer
            return_as="generator_unordered",
        )
        results: Any = pool(call(os.getpid(), settings.reference, name, *common) for name in ids)
    try:
        for result in results:  # noqa: UP028, since `yield from` would close it without the filter
            yield result
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a worker process ended before its claim did (a crash, or too little memory); "
            "run again with fewer jobs"
        ) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # joblib warns that an interrupted run stops its workers
            results.close()

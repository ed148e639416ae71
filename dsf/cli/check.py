"""`dsf check`: run claims, show what came out, write certificates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import joblib
import typer
from rich.console import Console
from rich.markup import escape

from dsf.certificate import Budget, Level
from dsf.check import Settings, exit_code, finished, junit
from dsf.check import check as run_claims
from dsf.codec import ArrayStore, dumps

from .output import STDOUT, console, for_people, only_one_stdout, write
from .progress import Progress
from .results import show

if TYPE_CHECKING:
    from dsf.check.figures import Drawing

INTERRUPTED, UNDECIDED = 130, 3


@dataclass(frozen=True)
class Outputs:
    """Where the results go, beside the settings' own merged file; `-` is standard output."""

    json: str | None = None
    junit: str | None = None
    report: Path | None = None
    quiet: bool = False


def check(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Claims, as names or globs; all where none is given.")
    ] = None,
    paper: Annotated[list[str] | None, typer.Option(help="Claims of this paper only.")] = None,
    level: Annotated[list[Level] | None, typer.Option(help="Claims of this level only.")] = None,
    budget: Annotated[
        Budget, typer.Option(help="How much work each claim may ask for.")
    ] = Budget.DEFAULT,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0 is one per core.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="The seed from which every claim's own comes.")
    ] = 0,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write certificates; '-' is standard output.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write an HTML page, with the figures of every --paper."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted run of the same --json FILE."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show nothing but what is not as expected.")
    ] = False,
) -> None:
    """Check claims and write their certificates.

    Exit code 0: all as expected. 1: a status is definite and not the expected one, or a negative
    control passes. 2: bad usage. 3: undecided, or a file cannot be written.
    """
    settings = Settings(
        ids=tuple(ids or ()),
        papers=tuple(paper or ()),
        levels=tuple(level or ()),
        budget=budget,
        seed=seed,
        jobs=jobs or joblib.cpu_count(),
        json=None if json in (None, STDOUT) else Path(json),
        resume=resume,
    )
    raise typer.Exit(execute(settings, Outputs(json=json, junit=junit, report=report, quiet=quiet)))


def execute(settings: Settings, outputs: Outputs) -> int:
    """Check, write and show the results, and return the exit code."""
    only_one_stdout([outputs.json, outputs.junit])
    named = settings.selection().named
    errors = console(stderr=True)
    progress = Progress(errors, live=not outputs.quiet)
    try:
        with progress:
            document = run_claims(settings, progress)
    except KeyboardInterrupt:
        errors.print(f"interrupted: {_kept(settings, progress)}", markup=False)
        return INTERRUPTED
    except OSError as error:
        errors.print(f"dsf check: {error}: {_kept(settings, progress)}", markup=False)
        return UNDECIDED
    _write(settings, outputs, document, errors)
    show(for_people([outputs.json, outputs.junit]), errors, document, named, quiet=outputs.quiet)
    return exit_code(document["claims"], named)


def _kept(settings: Settings, progress: Progress) -> str:
    """What is left of a run that broke off; the journal knows better than the last thing shown."""
    if settings.journal is None:
        return (
            f"{progress.done} of {progress.total} results were finished and are lost; "
            "with --json FILE they are kept, and --resume goes on"
        )
    kept = finished(settings.journal)
    if not kept:
        return "no result was finished"
    return f"{kept} results are kept in {settings.journal}; the same command with --resume goes on"


def _write(settings: Settings, outputs: Outputs, document: dict[str, Any], errors: Console) -> None:
    """All but the merged file, which the run has put in place already."""
    if outputs.json == STDOUT:
        write(STDOUT, dumps(document))
    if outputs.junit:
        write(outputs.junit, junit(document))
    if outputs.report:
        from dsf.check.report import write_report  # jinja2, and matplotlib where it is installed

        store = ArrayStore.beside(settings.json) if settings.json else None
        found = _figures(settings.papers, errors, live=not outputs.quiet)
        write_report(outputs.report, document, settings.claims(), store, found)


def _figures(slugs: tuple[str, ...], errors: Console, *, live: bool) -> list[Drawing]:
    """The figures of the papers asked for, with what is being drawn on a terminal; failures are said."""
    from dsf.check.figures import drawings

    if not (live and errors.is_terminal and slugs):
        found = drawings(slugs)
    else:
        with errors.status("drawing figures") as status:
            found = drawings(slugs, lambda name: status.update(f"drawing {escape(name)}"))
    for drawing in found:
        if drawing.failure:
            errors.print(f"figure {drawing.reference}: {drawing.failure}", markup=False)
    return found

"""Live progress of a run, on standard error and only on a terminal."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import rich.progress
from rich.console import Console
from rich.markup import escape

from dsf.check import Watcher
from dsf.check.runner import Result


class Progress(Watcher):
    """Counts results and, on a terminal, shows a bar that leaves no trace."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self.done = 0
        self.total = 0
        self._console = console
        self._live = live and console.is_terminal
        self._talks = live
        self._stack = ExitStack()
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("")

    def begins(self, total: int, done: int, forgotten: int) -> None:
        self.total, self.done = total, done
        if forgotten and self._talks:
            self._console.print(
                f"{forgotten} results of an interrupted run are dropped; --resume keeps them",
                markup=False,
            )
        self._bar.update(self._task, total=total, completed=done)

    def finished(self, result: Result) -> None:
        self.done += 1
        self._bar.update(self._task, completed=self.done, description=escape(result["id"]))

    def __enter__(self) -> Progress:
        if self._live:
            self._stack.enter_context(self._bar)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

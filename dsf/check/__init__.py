"""Running claims: selection, workers, journal, and the merged file in its several forms.

select ──> run_claim (one worker each) ──> Journal ──> merged document ──> JSON, JUnit, report
"""

from __future__ import annotations

from .document import SCHEMA, exit_code, merged, summary
from .journal import Journal, finished
from .junit import junit
from .runner import Settings, Watcher, WorkerDied, check
from .selection import Selection, select

__all__ = [
    "SCHEMA",
    "Journal",
    "Selection",
    "Settings",
    "Watcher",
    "WorkerDied",
    "check",
    "exit_code",
    "finished",
    "junit",
    "merged",
    "select",
    "summary",
]

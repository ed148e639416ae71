"""What one worker does: resolve the table of claims once, then run one claim after another."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, cast

from dsf.certificate import Budget, Claim, Level
from dsf.certify import certify, claim_seed, outcome
from dsf.codec import ArrayStore
from dsf.registry import resolve


@cache
def claims_of(reference: str) -> Mapping[str, Claim]:
    """The table of claims called `"module:NAME"`: a mapping by id, or a function giving one."""
    table = resolve(reference)
    if callable(table):
        table = table()
    return cast(Mapping[str, Claim], table)


def run_in_worker(parent: int, *arguments: Any) -> dict[str, Any]:
    """`run_claim` in a worker process, which ends with the process `parent` and not before."""
    _follow(parent)
    return run_claim(*arguments)


@cache
def _follow(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end soon after it: left alone, a worker waits for minutes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def _load(level: Level) -> None:
    """Import what claims of a level compute with, so that no claim's seconds hold an import."""
    import_module("sympy" if level is Level.SYMBOLIC else "dsf.forms")


def run_claim(
    reference: str, claim_id: str, run_seed: int, budget: str, folder: str | None
) -> dict[str, Any]:
    """Run one claim and give its entry in the merged file; large arrays go to `folder` where given.

    Every argument is plain text or a number, so a worker needs nothing of the process that asks.
    """
    claim = claims_of(reference)[claim_id]
    _load(claim.level)
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to the results
        certificate = certify(claim, claim_seed(run_seed, claim_id), Budget(budget))
    seconds = time.perf_counter() - started
    record = certificate.to_json(ArrayStore(folder) if folder else None)
    return {
        "id": record["claim"],
        **{key: record[key] for key in ("paper", "title", "level", "expected", "status")},
        "outcome": outcome(certificate),
        **{key: record[key] for key in ("measured", "predicted", "bound")},
        "seconds": round(seconds, 6),
        "control": {"status": record["control"]["status"]},
        "certificate": record,
    }

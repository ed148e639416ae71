"""The file of a run: written whole after every row, so that a run that is cut off goes on where it was."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = "dsf.gpu/1"


class BadUsage(ValueError):
    """What the caller can put right: a file of another run, a word that names no case, no device."""


class Journal:
    """Rows by key, with what they are of. `identity` must agree for a run to go on."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self.identity = path, dict(identity)
        self.rows: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0
        if path.exists():
            self._resume()

    def _resume(self) -> None:
        before = read(self._path)
        theirs = before["identity"]
        if theirs != self.identity:
            keys = sorted(set(theirs) | set(self.identity))
            differing = [key for key in keys if theirs.get(key) != self.identity.get(key)]
            raise BadUsage(
                f"{self._path} is of another run: {', '.join(differing)} differ. Give another --out, or delete it."
            )
        self.seconds = before["seconds"]
        # What died or ran out of time is tried again; what failed stays.
        self.rows = {row["key"]: row for row in before["rows"] if not row.get("retry")}

    def add(self, row: dict[str, Any]) -> None:
        self.rows[row["key"]] = row

    def write(self, **more: Any) -> None:
        """The whole file, atomically."""
        document = {
            "schema": SCHEMA,
            "identity": self.identity,
            "seconds": round(self.seconds, 1),
            **more,
            "rows": list(self.rows.values()),
        }
        text = json.dumps(_finite(document), indent=1, allow_nan=False)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self._path)


def read(path: Path) -> dict[str, Any]:
    """A file of this schema; raises `BadUsage` where it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadUsage(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadUsage(f"{path} is not a file of {SCHEMA}")
    return document


def _finite(x: Any) -> Any:
    """JSON has no NaN and no infinity: they are words."""
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if isinstance(x, Mapping):
        return {str(key): _finite(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_finite(each) for each in x]
    return x

r"""The journal of a run: one JSON object per line, on disk before the next claim is waited for.

    {"schema": "dsf.check.journal/1", "seed": …, "budget": …, "versions": …}    the header binds
    {"id": "paper.statement", …}                                                one finished result

A kill can only tear the last line; opening the journal mends it. What binds is what decides the
content of a result, so a run of other claims may go on with the same journal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dsf.codec import CodecError, canonical, loads
from dsf.errors import InvalidInput

SCHEMA = "dsf.check.journal/1"


class Journal:
    """Finished results by id, each on disk as soon as it is added; one process writes at a time.

    `resume=False` begins anew and forgets what the file held. Raises `InvalidInput` where the
    journal belongs to another run or is not a journal, `OSError` where it cannot be written.
    """

    def __init__(self, path: Path, binding: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self.results: dict[str, dict[str, Any]] = {}
        self.forgotten = 0
        header = {"schema": SCHEMA, **binding}
        self._file: BinaryIO = open(
            os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0
        )
        try:
            _lock(self._file, path)
            lines, self._end = _read(path)
            if resume and lines:
                _agree(path, lines[0], header)
                self.results = {line["id"]: line for line in reversed(lines[1:])}
                self._file.truncate(self._end)
            else:
                self.forgotten = max(len(lines) - 1, 0)
                self._file.truncate(0)
                self._end = 0
                self._append(header)
        except BaseException:
            self._file.close()
            raise

    def add(self, result: Mapping[str, Any]) -> None:
        """Put one result on disk; on return it survives a kill. `OSError` if the disk is full."""
        if result["id"] in self.results:
            raise ValueError(f"result {result['id']!r} is in the journal already")
        self._append(result)
        self.results[result["id"]] = dict(result)

    def _append(self, value: Mapping[str, Any]) -> None:
        line = canonical(value) + b"\n"
        try:
            self._file.seek(self._end)
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(line)

    def remove(self) -> None:
        """Delete the file: its results are safe elsewhere."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def finished(path: Path) -> int:
    """How many results a journal holds; 0 where there is none, or none that can be read."""
    try:
        return max(len(_read(path)[0]) - 1, 0)
    except (OSError, InvalidInput):
        return 0


def _lock(file: BinaryIO, path: Path) -> None:
    """Hold the journal until it is closed; the system lets go however the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs on one file are the user's to avoid
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        mine = False
    if not mine:  # held by another run, or deleted by one that just ended
        raise InvalidInput(
            f"{path} is in use by another run; wait for it or give another --json file"
        )


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of the journal and the offset where the torn tail, if any, begins."""
    data = path.read_bytes()
    lines: list[dict[str, Any]] = []
    start = 0
    while (stop := data.find(b"\n", start)) >= 0:
        try:
            line = loads(data[start:stop])
            if not isinstance(line, dict) or ("schema" if start == 0 else "id") not in line:
                raise CodecError((), "not a line of a journal")
        except CodecError as error:
            if data.find(b"\n", stop + 1) < 0:  # a crash may leave a last line of the right length
                break
            raise InvalidInput(
                f"{path} is not a journal (line {len(lines) + 1}: {error}); "
                "delete it, or give another --json file"
            ) from None
        lines.append(line)
        start = stop + 1
    return lines, start


def _agree(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        details = "; ".join(
            f"{key} {found.get(key)!r} there, {wanted[key]!r} here" for key in differing
        )
        raise InvalidInput(
            f"{path} belongs to another run ({details}); "
            "repeat that run's options to go on with it, or leave --resume out to begin anew"
        )

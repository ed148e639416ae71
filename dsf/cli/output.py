"""Where results go: files or standard output, the JSON envelope, and consoles for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsf.certify import versions
from dsf.codec import dumps, write_atomically
from dsf.errors import InvalidInput

STDOUT = "-"
_PLAIN_WIDTH = 200  # columns where there is no terminal to ask


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error: coloured on a terminal, plain text elsewhere."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = _PLAIN_WIDTH
    return made


def for_people(files: Iterable[str | None]) -> Console:
    """The console for tables: standard error where standard output carries one of the files."""
    return console(stderr=only_one_stdout(files))


def only_one_stdout(files: Iterable[str | None]) -> bool:
    """Whether one of the files is standard output; raises `InvalidInput` where several are."""
    count = sum(file == STDOUT for file in files)
    if count > 1:
        raise InvalidInput("only one output can be '-' (standard output); give the others files")
    return count == 1


def write(file: str, data: bytes) -> None:
    """Write to a file, atomically, or to standard output where it is `-`."""
    if file == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_atomically(Path(file), data)


def envelope(command: str, result: Any, seed: int | None = None) -> bytes:
    """The JSON of a command: `{schema, command, versions, seed, result}`."""
    return dumps(
        {
            "schema": f"dsf.{command}/1",
            "command": command,
            "versions": versions(),
            "seed": seed,
            "result": result,
        }
    )


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()
) -> Table:
    """A table for people; cells are text as it stands, never markup."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made

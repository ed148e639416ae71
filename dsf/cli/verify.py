"""`dsf verify`: judge a file of certificates again from its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dsf.certificate import Claim
from dsf.check.text import legal
from dsf.errors import InvalidInput
from dsf.verify import MalformedFile, Verification, verify_file

from .output import console, envelope, for_people, table, write

_STYLES = {"refused": "bold red", "undecided": "yellow"}


def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A certificate, or what `check` wrote.")
    ],
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Also run each claim again from its seed.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the result; '-' is standard output.")
    ] = None,
) -> None:
    """Judge a file of certificates again from its evidence.

    Exit code 0: all accepted. 1: tampered with, or a status that is not the expected one. 2: not a
    file of certificates. 3: undecided, or the file cannot be read.
    """
    raise typer.Exit(execute(file, recompute=recompute, json=json))


def execute(
    file: Path,
    *,
    recompute: bool = False,
    json: str | None = None,
    claims: Mapping[str, Claim] | None = None,
) -> int:
    """Verify against `claims` (the package's by default), show the result, return the exit code."""
    try:
        found = verify_file(file, claims=claims, recompute=recompute)
    except MalformedFile as error:
        raise InvalidInput(str(error)) from None
    if json:
        write(json, envelope("verify", [_plain(one) for one in found]))
    people = for_people([json])
    people.print(table(("claim", "conclusion", "reasons"), map(_row, found)))
    people.print(_summary(found))
    if not found:
        console(stderr=True).print(f"{file} holds no certificate", markup=False)
    return exit_code(found)


def exit_code(found: Sequence[Verification]) -> int:
    """1 where one is refused, or definite and not as expected; else 3 where one is undecided, or
    there is none; else 0. What was not run leaves the code as it is.
    """
    outcomes = {one.outcome for one in found}
    if not all(one.accepted for one in found) or outcomes & {"unexpected", "control-passed"}:
        return 1
    return 3 if "undecided" in outcomes or not found else 0


def _row(one: Verification) -> tuple[str | Text, ...]:
    conclusion = Text(one.conclusion, style=_STYLES.get(one.conclusion, "green"))
    return (legal(one.claim), conclusion, legal("; ".join(_reasons(one))))


def _reasons(one: Verification) -> tuple[str, ...]:
    if one.outcome == "unexpected" and one.status:
        return (*one.reasons, f"{one.status.value}, which is not the expected status")
    return one.reasons


def _plain(one: Verification) -> dict[str, object]:
    return {
        "claim": one.claim,
        "accepted": one.accepted,
        "conclusion": one.conclusion,
        "reasons": list(one.reasons),
        "status": one.status and one.status.value,
        "outcome": one.outcome,
    }


def _summary(found: Sequence[Verification]) -> str:
    names = ("proved", "consistent with recorded data", "undecided", "refused")
    counts = [(sum(one.conclusion == name for one in found), name) for name in names]
    return f"{len(found)} certificates: " + ", ".join(f"{n} {name}" for n, name in counts if n)

"""The results of a run for people: a table, a note for each that is not as expected, a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from dsf.check.text import legal, number

from .output import table

STYLES = {
    "as-expected": "green",
    "unexpected": "bold red",
    "control-passed": "bold red",
    "undecided": "yellow",
    "not-run": "dim",
}


def show(
    people: Console,
    errors: Console,
    document: Mapping[str, Any],
    named: frozenset[str],
    *,
    quiet: bool,
) -> None:
    """Table and summary on `people` (nothing where `quiet`), notes below; the notes always show."""
    claims = document["claims"]
    notes = [
        Text(_note(claim), style=STYLES[claim["outcome"]])
        for claim in claims
        if claim["outcome"] != "as-expected"
        and (claim["outcome"] != "not-run" or claim["id"] in named)
    ]
    if quiet:
        for note in notes:
            errors.print(note)
        return
    columns = ("claim", "paper", "level", "status", "measured", "bound", "time")
    right = ("measured", "bound", "time")
    people.print(table(columns, map(_row, claims), right))
    for note in notes:
        people.print(note)
    people.print(_summary(document))


def _row(claim: Mapping[str, Any]) -> tuple[str | Text, ...]:
    outcome = claim["outcome"]
    status = claim["status"]
    if outcome in ("unexpected", "control-passed"):
        status += f" ({outcome.replace('-', ' ')})"
    return (
        claim["id"],
        claim["paper"],
        claim["level"],
        Text(status, style=STYLES[outcome]),
        number(claim["measured"]),
        number(claim["bound"]),
        f"{claim['seconds']:.2f} s",
    )


def _note(claim: Mapping[str, Any]) -> str:
    record = claim["certificate"]
    said = f"{claim['id']}: {claim['outcome'].replace('-', ' ')}: "
    if claim["outcome"] == "control-passed":
        said += f"the negative control is judged {record['control']['status']} as well"
    else:
        said += f"{claim['status']} where {claim['expected']} is expected"
    unmet = [h["name"] for h in record["hypotheses"] if not h["holds"]]
    if unmet and not record["remark"]:
        said += f"; not met: {', '.join(unmet)}"
    if record["remark"]:
        said += f"; {record['remark']}"
    if claim["outcome"] == "undecided" and record["control"]["remark"] not in (
        "",
        record["remark"],
    ):
        said += f"; negative control ({record['control']['status']}): {record['control']['remark']}"
    return legal(said)


def _summary(document: Mapping[str, Any]) -> str:
    summary = document["summary"]
    counts = [f"{n} {name.replace('-', ' ')}" for name, n in summary["outcomes"].items() if n]
    seconds = sum(claim["seconds"] for claim in document["claims"])
    return (
        f"{summary['claims']} claim{'' if summary['claims'] == 1 else 's'}: {', '.join(counts)} "
        f"(seed {document['seed']}, budget {document['budget']}, {seconds:.1f} core-seconds)"
    )

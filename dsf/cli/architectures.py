"""`dsf architectures`: the sequence mixers that are implemented, with formula and source."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from dsf.registry import resolve

from .output import envelope, for_people, table, write

_FIELDS = ("name", "title", "equation", "citation")


def architectures(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sequence mixers: formula, source, and what the System allows."""
    capabilities = resolve("dsf.mixers.capabilities:capabilities")
    found = [resolve(reference) for reference in resolve("dsf.mixers:ARCHITECTURES")]
    rows = [{field: str(getattr(one, field)) for field in _FIELDS} for one in found]
    known = [capabilities(one) for one in found]
    if json:
        both = zip(rows, known, strict=True)
        write("-", envelope("architectures", [row | _plain(can) for row, can in both]))
        return
    shown = for_people([])
    shown.print(table(_FIELDS, ([row[field] for field in _FIELDS] for row in rows)))
    shown.print(table(("name", *known[0].row()), _cells(rows, known)))


def _plain(can: Any) -> dict[str, Any]:
    return asdict(can) | {"eigenvalues": list(can.eigenvalues)}


def _cells(rows: list[dict[str, str]], known: list[Any]) -> list[list[str]]:
    return [[row["name"], *can.row().values()] for row, can in zip(rows, known, strict=True)]

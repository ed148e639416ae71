"""`dsf architectures`: the sequence mixers that are implemented, with formula and source."""

from __future__ import annotations

from typing import Annotated

import typer

from dsf.registry import resolve

from .output import envelope, for_people, table, write

_FIELDS = ("name", "title", "equation", "citation")


def architectures(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sequence mixers: name, title, formula and source."""
    found = [resolve(reference) for reference in resolve("dsf.mixers:ARCHITECTURES")]
    rows = [{field: str(getattr(one, field)) for field in _FIELDS} for one in found]
    if json:
        write("-", envelope("architectures", rows))
    else:
        for_people([]).print(table(_FIELDS, ([row[field] for field in _FIELDS] for row in rows)))

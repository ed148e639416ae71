"""`dsf papers`: the papers whose claims can be checked."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from dsf import registry

from .output import envelope, for_people, table, write


def papers(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the papers and how many claims each has."""
    listed = registry.papers()
    if json:
        write("-", envelope("papers", [_plain(paper) for paper in listed]))
        return
    several = Counter(claim.paper for claim in registry.claims().values())
    rows = [
        (paper.slug, str(paper.year), str(several[paper.slug]), paper.title) for paper in listed
    ]
    columns = ("paper", "year", "claims", "title")
    for_people([]).print(table(columns, rows, right=("year", "claims")))


def _plain(paper: Any) -> dict[str, object]:
    fields = ("slug", "title", "year", "arxiv", "url", "summary")
    ids = sorted(claim.id for claim in registry.claims().values() if claim.paper == paper.slug)
    return {name: getattr(paper, name) for name in fields} | {
        "authors": list(paper.authors),
        "claims": ids,
    }

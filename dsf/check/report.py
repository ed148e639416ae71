"""A run as one HTML page that needs nothing from elsewhere, with every certificate beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dsf.certificate import Claim
from dsf.certify import Certificate, write_certificate
from dsf.codec import ArrayStore, write_atomically

from . import plots
from .evidence import Row, rows
from .figures import Drawing
from .formulas import Formulas
from .text import legal, number


@dataclass(frozen=True)
class Entry:
    """One claim on the page: its result, and what is drawn of it."""

    result: Mapping[str, Any]
    statement: Markup
    citation: str
    scale: Markup
    rows: list[Row]
    left_out: int
    certificate: str


def write_report(
    folder: Path,
    document: Mapping[str, Any],
    claims: Mapping[str, Claim],
    store: ArrayStore | None = None,
    drawings: Sequence[Drawing] = (),
) -> Path:
    """Write `index.html` and `certificates/<id>.json` into `folder`, and return the page's path.

    `claims` give statement and citation, `store` holds the document's large arrays, `drawings` are
    the papers' figures. Safe to repeat: every file is replaced as a whole, the page last. Raises
    `OSError` where one cannot be written.
    """
    certificates = folder / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    for result in document["claims"]:
        certificate = Certificate.from_json(result["certificate"], store)
        write_certificate(certificates / f"{result['id']}.json", certificate)
    page = folder / "index.html"
    write_atomically(page, render(document, claims, store, drawings).encode("utf-8"))
    return page


def render(
    document: Mapping[str, Any],
    claims: Mapping[str, Claim],
    store: ArrayStore | None = None,
    drawings: Sequence[Drawing] = (),
) -> str:
    """The page of a document of schema `dsf.check/1`."""
    formulas = Formulas()
    entries = [
        _entry(result, claims[result["id"]], store, formulas) for result in document["claims"]
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dsf.check"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template("report.html.j2").render(
        document=document,
        summary=document["summary"],
        entries=entries,
        drawings=drawings,
        missing=formulas.missing,
        definitions=formulas.definitions(),
    )


def _shown(value: object) -> object:
    """Text without forbidden characters (jinja2 escapes it next); drawings as they are."""
    return value if isinstance(value, Markup) else legal(value)


def _entry(
    result: Mapping[str, Any], claim: Claim, store: ArrayStore | None, formulas: Formulas
) -> Entry:
    found, left_out = rows(result["certificate"]["evidence"], store, formulas)
    return Entry(
        result=result,
        statement=formulas.draw(claim.statement),
        citation=claim.citation,
        scale=plots.scale(result["measured"], result["bound"], result["predicted"]),
        rows=found if result["certificate"]["evidence"] is not None else [],
        left_out=left_out,
        certificate=f"certificates/{result['id']}.json",
    )

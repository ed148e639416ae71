"""Figures of papers for the report: drawn when asked for, each one image inside the page."""

from __future__ import annotations

import base64
import inspect
import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dsf.registry import papers, resolve

_log = logging.getLogger("dsf")

Announce = Callable[[str], None]
"""Is told the name of each figure before it is drawn."""


@dataclass(frozen=True)
class Drawing:
    """One figure: its paper, reference and caption, and the image as a data address, or why there is none."""

    paper: str
    reference: str
    caption: str
    image: str = field(repr=False)
    failure: str = ""


def drawings(
    slugs: Iterable[str], announce: Announce | None = None, table: Iterable[Any] | None = None
) -> list[Drawing]:
    """The figures of the papers with these slugs, drawn one by one; a figure that fails says why.

    `table` are the papers to look in, all registered ones where it is not given.

    >>> drawings(["ghodsi2025"])
    []
    """
    wanted = set(slugs)
    return [
        _drawing(paper.slug, reference, announce)
        for paper in (papers() if table is None else table)
        if paper.slug in wanted
        for reference in paper.figures
    ]


def _drawing(slug: str, reference: str, announce: Announce | None) -> Drawing:
    if announce is not None:
        announce(f"{slug} {reference.rpartition(':')[2]}")
    caption = ""
    try:
        function = resolve(reference)
        caption = inspect.getdoc(function) or ""
        return Drawing(slug, reference, caption.partition("\n\n")[0], _image(function()))
    except Exception as error:
        _log.warning("figure %s failed", reference, exc_info=error)
        said = f"{type(error).__name__}: {error}"[:2000]
        return Drawing(slug, reference, caption.partition("\n\n")[0], "", said)


def _image(figure: Any) -> str:
    """SVG in a data address: isolated from the page's ids and styles, and equal for equal figures."""
    if not hasattr(figure, "savefig"):
        raise TypeError(f"a figure must be matplotlib's, not {type(figure).__name__}")
    import matplotlib

    target = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dsf", "svg.fonttype": "path"}):
        figure.savefig(target, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(target.getvalue()).decode("ascii")

"""The entry of one paper: what it is, which claims it makes, what is redrawn from it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dsf.errors import InvalidInput

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Paper:
    """One paper; `claims` and `figures` are `"module:NAME"` references, resolved when asked for.

    A reference of `claims` names a claim, or a tuple of claims.

    `slug` is the first part of every claim's id, so it has no dot. `arxiv` is the identifier,
    without version, or empty. Raises `InvalidInput` where a field cannot be right.

    >>> paper = Paper("doe2024", "On gates", ("Jane Doe",), 2024, "2401.00001",
    ...               "https://arxiv.org/abs/2401.00001", ("dsf.claims.gates:DECAY",))
    >>> paper.slug
    'doe2024'
    """

    slug: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str
    url: str
    claims: tuple[str, ...]
    figures: tuple[str, ...] = ()
    summary: str = ""

    def __post_init__(self) -> None:
        self._need(_SLUG.fullmatch(self.slug), "slug", "lower-case letters, digits and hyphens")
        self._need(self.title.strip(), "title", "a title")
        authors = (
            isinstance(self.authors, tuple) and self.authors and all(map(str.strip, self.authors))
        )
        self._need(authors, "authors", "a tuple of one name or more")
        self._need(1900 <= self.year < 2200, "year", "a year of four digits")
        self._need(
            not self.arxiv or _ARXIV.fullmatch(self.arxiv), "arxiv", "like '2405.15731', or ''"
        )
        self._need(self.url.startswith("https://"), "url", "an address that starts with https://")
        for field in ("claims", "figures"):
            references = getattr(self, field)
            rule = "a tuple of different references that read 'module:NAME'"
            read = isinstance(references, tuple) and all(map(_REFERENCE.fullmatch, references))
            self._need(read and len(set(references)) == len(references), field, rule)

    def _need(self, condition: object, field: str, rule: str) -> None:
        if not condition:
            given = getattr(self, field)
            raise InvalidInput(
                f"paper {self.slug!r}: `{field}` must be {rule}; {given!r} was given"
            )

"""Which claims a run is about: by id, by paper, by level."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsf.certificate import Claim, Level
from dsf.errors import InvalidInput


@dataclass(frozen=True)
class Selection:
    """The ids to check, in order, and those among them that were asked for by their full name."""

    ids: tuple[str, ...]
    named: frozenset[str]


def select(
    claims: Mapping[str, Claim],
    ids: Iterable[str] = (),
    papers: Iterable[str] = (),
    levels: Iterable[str] = (),
) -> Selection:
    """The claims that match one of `ids` (names or globs), one of `papers` and one of `levels`.

    An empty criterion matches all. Raises `InvalidInput`, naming the nearest alternatives, for a
    name, glob or paper that matches nothing, for an unknown level, and where nothing is left.

    >>> select({}, papers=["sieber2024"])
    Traceback (most recent call last):
    dsf.errors.InvalidInput: no claim of a paper 'sieber2024'; `dsf papers` lists them
    """
    ids, papers = tuple(ids), tuple(papers)
    kept = _by_id(claims, ids) & _by_paper(claims, papers) & _by_level(claims, tuple(levels))
    if not kept:
        raise InvalidInput(
            f"none of the {len(claims)} claims meets all of the criteria; ask for fewer of them"
        )
    return Selection(ids=tuple(sorted(kept)), named=frozenset(ids) & kept)


def _by_id(claims: Mapping[str, Claim], patterns: tuple[str, ...]) -> set[str]:
    if not patterns:
        return set(claims)
    kept: set[str] = set()
    for pattern in patterns:
        matches = [name for name in claims if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise InvalidInput(f"no claim matches {pattern!r}{_nearest(pattern, claims)}")
        kept.update(matches)
    return kept


def _by_paper(claims: Mapping[str, Claim], papers: tuple[str, ...]) -> set[str]:
    known = sorted({claim.paper for claim in claims.values()})
    for paper in papers:
        if paper not in known:
            raise InvalidInput(f"no claim of a paper {paper!r}{_nearest(paper, known)}")
    return {name for name, claim in claims.items() if not papers or claim.paper in papers}


def _by_level(claims: Mapping[str, Claim], levels: tuple[str, ...]) -> set[str]:
    for level in levels:
        if level not in list(Level):
            raise InvalidInput(f"no level {level!r}; the levels are {', '.join(Level)}")
    return {name for name, claim in claims.items() if not levels or claim.level in levels}


def _nearest(given: str, known: Iterable[str]) -> str:
    """The end of the message: what may have been meant.

    A claim is often remembered by the part after the paper, so that part is compared as well.
    """
    known = list(known)
    by_tail = {name.partition(".")[2]: name for name in known if "." in name}
    close = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    close += [by_tail[tail] for tail in difflib.get_close_matches(given, by_tail, n=2, cutoff=0.6)]
    if not close:
        return "; `dsf papers` lists them"
    return "; did you mean " + " or ".join(repr(name) for name in dict.fromkeys(close)) + "?"

"""The merged file of a run: every result in the order of the ids, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsf.certificate import Level, Status
from dsf.verify.judging import OUTCOMES

SCHEMA = "dsf.check/1"


def merged(binding: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document of schema `dsf.check/1`; `binding` is seed, budget and versions."""
    claims = sorted(results, key=lambda result: result["id"])
    return {
        "schema": SCHEMA,
        "command": "check",
        **binding,
        "claims": claims,
        "summary": summary(claims),
    }


def summary(claims: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many claims there are, by outcome, by status, and by status within each level.

    >>> summary([])["outcomes"]["as-expected"]
    0
    """
    by_level = {
        level.value: _counts((c["status"] for c in claims if c["level"] == level), Status)
        for level in Level
    }
    return {
        "claims": len(claims),
        "outcomes": _counts((claim["outcome"] for claim in claims), OUTCOMES),
        "statuses": _counts((claim["status"] for claim in claims), Status),
        "levels": {level: counts for level, counts in by_level.items() if any(counts.values())},
    }


def _counts(found: Iterable[str], names: Iterable[str]) -> dict[str, int]:
    counter = Counter(found)
    return {str(name): counter[name] for name in names}


def exit_code(claims: Iterable[Mapping[str, Any]], named: frozenset[str] = frozenset()) -> int:
    """1 where an outcome is definite and wrong, else 3 where one is undecided, else 0.

    A claim that was not run counts as undecided only if it is among the `named` ones.

    >>> exit_code([{"id": "p.a", "outcome": "not-run"}])
    0
    >>> exit_code([{"id": "p.a", "outcome": "not-run"}], frozenset(["p.a"]))
    3
    """
    claims = list(claims)
    outcomes = {claim["outcome"] for claim in claims}
    if outcomes & {"unexpected", "control-passed"}:
        return 1
    left_out = any(claim["outcome"] == "not-run" and claim["id"] in named for claim in claims)
    return 3 if "undecided" in outcomes or left_out else 0

"""Selecting claims, counting what came out, and the exit code."""

from __future__ import annotations

import pytest

from dsf.check import exit_code, select, summary
from dsf.claims.examples import TOY
from dsf.errors import InvalidInput

ALL = set(TOY)


@pytest.mark.parametrize(
    ("criteria", "kept"),
    [
        ({}, ALL),
        ({"ids": ["*"]}, ALL),
        ({"papers": ["example"]}, ALL),
        ({"ids": ["example.undecided"]}, {"example.undecided"}),
        ({"ids": ["*.undecided", "*softplus*"]}, {"example.undecided", "example.softplus-gate"}),
        ({"levels": ["symbolic"]}, {"example.softplus-gate"}),
        (
            {"levels": ["symbolic", "enclosed"]},
            {"example.softplus-gate", "example.float-addition-associates"},
        ),
        ({"ids": ["*a*"], "levels": ["symbolic"]}, {"example.softplus-gate"}),
    ],
)
def test_each_criterion_widens_and_all_together_narrow(criteria, kept):
    found = select(TOY, **criteria)
    assert set(found.ids) == kept
    assert list(found.ids) == sorted(found.ids)


def test_named_are_the_ids_given_in_full():
    found = select(TOY, ["example.undecided", "example.c*"])
    assert found.named == {"example.undecided"}


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"ids": ["example.softplus-gates"]}, "did you mean 'example.softplus-gate'"),
        ({"ids": ["softplus-gate"]}, "did you mean 'example.softplus-gate'"),
        ({"ids": ["example.undecided", "zzz"]}, "no claim matches 'zzz'"),
        ({"papers": ["exampel"]}, "did you mean 'example'"),
        ({"levels": ["proved"]}, "the levels are symbolic, enclosed"),
        ({"ids": ["example.undecided"], "levels": ["symbolic"]}, "none of the 10 claims meets all"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest_names(criteria, message):
    with pytest.raises(InvalidInput, match=message):
        select(TOY, **criteria)


OUTCOMES = {
    "as-expected": 0,
    "not-run": 0,
    "undecided": 3,
    "unexpected": 1,
    "control-passed": 1,
}


@pytest.mark.parametrize("first", OUTCOMES)
@pytest.mark.parametrize("second", OUTCOMES)
def test_the_exit_code_of_two_outcomes(first, second):
    codes = {OUTCOMES[first], OUTCOMES[second]}
    expected = 1 if 1 in codes else max(codes)
    claims = [{"id": "p.a", "outcome": first}, {"id": "p.b", "outcome": second}]
    assert exit_code(claims) == expected
    named_not_run = first == "not-run" and expected == 0
    assert exit_code(claims, frozenset(["p.a"])) == (3 if named_not_run else expected)


def test_the_summary_counts_every_claim_once_per_view():
    claims = [
        {"level": "symbolic", "status": "holds", "outcome": "as-expected"},
        {"level": "symbolic", "status": "violated", "outcome": "unexpected"},
        {"level": "measured", "status": "holds", "outcome": "control-passed"},
    ]
    found = summary(claims)
    assert found["claims"] == 3
    assert {k: n for k, n in found["outcomes"].items() if n} == {
        "as-expected": 1,
        "unexpected": 1,
        "control-passed": 1,
    }
    assert found["statuses"]["holds"] == 2
    assert found["levels"]["symbolic"]["violated"] == 1
    assert set(found["levels"]) == {"symbolic", "measured"}

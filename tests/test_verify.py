"""Verification: what was run is accepted, and no change of a load-bearing field is."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from dsf.certificate import Budget, Level, Status
from dsf.certify import certify, outcome
from dsf.claims.examples import TOY
from dsf.codec import digest
from dsf.verify import AGREEMENT, verify

CONCLUSIONS = {
    "example.softplus-gate": "proved",
    "example.rounding-of-a-sum": "consistent with recorded data",
    "example.float-addition-associates": "proved",
    "example.contraction": "proved",
    "example.contraction-without-convexity": "undecided",
    "example.contraction-disbelieved": "proved",
    "example.undecided": "undecided",
    "example.control-passes": "undecided",
    "example.failing-witness": "undecided",
    "example.missing-module": "undecided",
}
# What only `--recompute` or the envelope of a run can contradict: where the evidence came from.
ORIGIN = ("seed", "budget", "versions", "digest")
# What no judge sees: why there is no evidence, and evidence behind a hypothesis that is not met.
UNJUDGED = {
    "example.failing-witness": ["remark"],
    "example.missing-module": ["remark"],
    "example.contraction-without-convexity": ["evidence"],
}
OTHERS = {
    "status": [str(status) for status in Status],
    "expected": [str(status) for status in Status],
    "level": [str(level) for level in Level],
    "claim": [*TOY, "example.unknown", ""],
    "schema": ["dsf.certificate/2", "dsf.check/1"],
}

Where = tuple[str | int, ...]


@cache
def _record(name: str) -> dict[str, Any]:
    return certify(TOY[name], seed=7, budget=Budget.SMOKE).to_json()


def record(name: str) -> dict[str, Any]:
    return copy.deepcopy(_record(name))


def sealed(changed: dict[str, Any]) -> dict[str, Any]:
    return changed | {"digest": digest(changed)}


def at(value: Any, where: Where) -> Any:
    for step in where:
        value = value[step]
    return value


def changed_at(name: str, where: Where, new: Any) -> dict[str, Any]:
    found = record(name)
    at(found, where[:-1])[where[-1]] = new
    return sealed(found)


def leaves(value: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    if isinstance(value, (dict, list)) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*where, key))
    else:
        yield where, value


def alternatives(where: Where, value: Any) -> list[Any]:
    """Other values that may stand at a place, small changes among them."""
    known = OTHERS.get(str(where[-1]))
    match value:
        case str() if known and "evidence" not in where:
            return [other for other in known if other != value]
        case bool():
            return [not value]
        case int():
            return [value + 1, -value - 1, None]
        case float():
            return [value * (1 + 1e-9) + 1e-300, value + 1.0, -value - 1.0, None]
        case str():
            return [value + "x", ""] if value else ["x"]
        case None:
            return [0.0, 1.0, "x"]
        case _:
            return [[0.0], {"a": 0.0}]


def array_flips(encoded: dict[str, Any]) -> Iterator[str]:
    """The data with one byte of one entry changed: the one with most of the exponent."""
    raw = base64.b64decode(encoded["data"])
    size = np.dtype(encoded["dtype"]).itemsize
    for entry in range(len(raw) // size):
        flipped = bytearray(raw)
        flipped[(entry + 1) * size - 1] ^= 0x40
        yield base64.b64encode(flipped).decode()


def mutants(name: str) -> Iterator[tuple[Where, dict[str, Any]]]:
    original = record(name)
    for where, value in leaves(original):
        if where[0] in ORIGIN:
            continue
        holder = at(original, where[:-1])
        if where[-1] == "remark" and holder["evidence"] is None:
            continue
        if "$array" in where and original["status"] == "hypothesis-not-met":
            continue
        new = array_flips(holder) if "$array" in where and where[-1] == "data" else None
        for other in alternatives(where, value) if new is None else new:
            yield where, changed_at(name, where, other)


@pytest.mark.parametrize("name", TOY)
def test_what_was_run_is_accepted(name: str) -> None:
    certificate = certify(TOY[name], seed=7, budget=Budget.SMOKE)
    result = verify(certificate.to_json(), claims=TOY)
    assert (result.accepted, result.conclusion) == (True, CONCLUSIONS[name])
    assert (result.status, result.outcome) == (certificate.status, outcome(certificate))
    assert result.claim == name


@pytest.mark.parametrize("name", TOY)
def test_every_changed_field_is_refused_though_the_digest_fits(name: str) -> None:
    tried = set()
    for where, mutant in mutants(name):
        result = verify(mutant, claims=TOY)
        assert not result.accepted, f"{where} changed to {at(mutant, where)!r} was accepted"
        assert result.conclusion == "refused" and result.reasons and result.status is None
        tried.add(where[0])
    assert tried == _record(name).keys() - {*ORIGIN, *UNJUDGED.get(name, ())}


def test_the_mutants_reach_arrays_hypotheses_trees_and_controls() -> None:
    places = {where for name in TOY for where, _ in mutants(name)}
    assert any("$array" in where and where[-1] == "data" for where in places)
    assert any(where[:1] == ("control",) and "$array" in where for where in places)
    assert any(where[:1] == ("control",) and "$sympy" in where for where in places)
    assert {where[-1] for where in places if where[0] == "hypotheses"} >= {"name", "value", "holds"}


@pytest.mark.parametrize("name", TOY)
def test_a_missing_and_an_unknown_key_are_refused(name: str) -> None:
    for part in ((), ("control",)):
        for key in at(record(name), part):
            if key == "digest":
                continue
            without = record(name)
            del at(without, part)[key]
            assert not verify(sealed(without), claims=TOY).accepted
        extra = record(name)
        at(extra, part)["more"] = 1
        assert not verify(sealed(extra), claims=TOY).accepted


@pytest.mark.parametrize("key", ["seed", "budget", "versions"])
def test_a_change_without_a_new_digest_is_refused(key: str) -> None:
    other = {"seed": 8, "budget": "full", "versions": {"numpy": "0"}}[key]
    result = verify(record("example.contraction") | {key: other}, claims=TOY)
    assert result.reasons == ("the digest does not match the content",)


def test_a_missing_digest_is_refused() -> None:
    bare = record("example.contraction")
    del bare["digest"]
    assert not verify(bare, claims=TOY).accepted


@pytest.mark.parametrize("name", ["example.contraction", "example.rounding-of-a-sum"])
def test_last_bits_may_differ_where_judges_round(name: str) -> None:
    for factor, accepted in ((1 + AGREEMENT / 4, True), (1 + AGREEMENT * 4, False)):
        mutant = changed_at(name, ("measured",), _record(name)["measured"] * factor)
        assert verify(mutant, claims=TOY).accepted is accepted


def test_exact_levels_are_compared_exactly() -> None:
    name = "example.float-addition-associates"
    measured = np.nextafter(_record(name)["measured"], 1.0).item()
    assert not verify(changed_at(name, ("measured",), measured), claims=TOY).accepted


@pytest.mark.parametrize("name", [name for name, end in CONCLUSIONS.items() if end == "proved"])
def test_the_evidence_of_the_control_is_no_evidence_for_the_claim(name: str) -> None:
    swapped = record(name)
    swapped["evidence"] = swapped["control"]["evidence"]
    assert not verify(sealed(swapped), claims=TOY).accepted


def test_a_control_that_shows_the_claim_again_proves_nothing() -> None:
    copied = record("example.softplus-gate")
    copied["control"] = {key: copied[key] for key in copied["control"]}
    result = verify(sealed(copied), claims=TOY)
    assert (result.conclusion, result.outcome) == ("undecided", "control-passed")


@pytest.mark.parametrize("status", ["not-run", "inconclusive"])
def test_a_claim_stripped_of_its_evidence_is_never_proved(status: str) -> None:
    stripped = record("example.softplus-gate")
    empty = {"status": status, "remark": "stripped", "evidence": None}
    stripped |= empty
    stripped["control"] |= empty
    assert verify(sealed(stripped), claims=TOY).conclusion == "undecided"
    silent = sealed(stripped | {"remark": ""})
    assert not verify(silent, claims=TOY).accepted


def test_claims_the_package_does_not_know_are_refused() -> None:
    result = verify(record("example.contraction"), claims={})
    assert not result.accepted and "not known" in result.reasons[0]


@pytest.mark.parametrize("value", [{}, {"claim": 5}, {"claim": "example.contraction"}])
def test_what_is_no_certificate_is_refused(value: Any) -> None:
    assert not verify(value, claims=TOY).accepted


def test_evidence_that_cannot_be_decoded_is_refused_with_its_place() -> None:
    mutant = changed_at("example.contraction", ("evidence", "d", "$array", "shape"), [-8])
    (reason,) = verify(mutant, claims=TOY).reasons
    assert "/d/$array" in reason and "negative" in reason


PLANTED = {
    "verification._foreign_statement": lambda record, claim: [],
    "verification._agree": lambda recorded, found, exact: True,
    "verification._disagreements": lambda part, claim, store: [],
    "verification.complaints": lambda record: [],
}


@pytest.mark.parametrize("place", PLANTED)
def test_a_verifier_with_a_hole_is_caught(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutants reach every part of the verifier: without it one of them is accepted."""
    names = ("example.contraction", "example.missing-module")
    monkeypatch.setattr(f"dsf.verify.{place}", PLANTED[place])
    assert any(
        verify(mutant, claims=TOY).accepted
        for name in names
        for where, mutant in [*mutants(name), (("more",), sealed(record(name) | {"more": 1}))]
        if where[-1] not in ("claim", "status")
    )

"""Files of certificates: single ones, envelopes of checks, running again, and what is imported."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dsf.certificate import Budget
from dsf.certify import certify, claim_seed, outcome, write_certificate
from dsf.claims.examples import TOY
from dsf.codec import ArrayStore, digest, dumps
from dsf.verify import MalformedFile, verify_file

NAMES = ["example.contraction", "example.rounding-of-a-sum", "example.missing-module"]


def row(name: str, seed: int, budget: Budget, store: ArrayStore) -> dict[str, Any]:
    certificate = certify(TOY[name], claim_seed(seed, name), budget)
    record = certificate.to_json(store)
    fields = ("paper", "title", "level", "expected", "status", "measured", "predicted", "bound")
    return {
        "id": name,
        **{key: record[key] for key in fields},
        "outcome": outcome(certificate),
        "seconds": 0.1,
        "control": {"status": record["control"]["status"]},
        "certificate": record,
    }


@pytest.fixture
def envelope(tmp_path: Path) -> dict[str, Any]:
    store = ArrayStore.beside(tmp_path / "file.json")
    rows = [row(name, 5, Budget.FULL, store) for name in NAMES]
    return {
        "schema": "dsf.check/1",
        "command": "check",
        "versions": {},
        "seed": 5,
        "budget": "full",
        "claims": rows,
        "summary": {
            "claims": len(rows),
            "outcomes": dict(Counter(r["outcome"] for r in rows)) | {"unexpected": 0},
            "statuses": dict(Counter(r["status"] for r in rows)),
            "levels": {
                "certified": {"holds": 1, "not-run": 1},
                "measured": {"holds": 1},
            },
        },
    }


def verified(content: Any, folder: Path, **options: Any) -> Any:
    path = folder / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else dumps(content))
    return verify_file(path, claims=TOY, **options)


@pytest.mark.parametrize("recompute", [False, True])
def test_an_envelope_is_verified_row_by_row(
    envelope: dict[str, Any], tmp_path: Path, recompute: bool
) -> None:
    found = verified(envelope, tmp_path, recompute=recompute)
    assert [(one.claim, one.conclusion) for one in found] == [
        (NAMES[0], "proved"),
        (NAMES[1], "consistent with recorded data"),
        (NAMES[2], "undecided"),
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "example.undecided"),
        ("id", None),
        ("paper", "other"),
        ("title", "other"),
        ("level", "symbolic"),
        ("expected", "violated"),
        ("status", "violated"),
        ("measured", 0.0),
        ("predicted", 1.0),
        ("bound", None),
        ("outcome", "unexpected"),
        ("control", {"status": "holds"}),
        ("control", {}),
        ("control", None),
        ("control", {"status": "violated", "measured": 0.0}),
    ],
)
def test_a_row_that_differs_from_its_certificate_is_refused(
    envelope: dict[str, Any], tmp_path: Path, key: str, value: Any
) -> None:
    del envelope["summary"]
    envelope["claims"][0][key] = value
    first, *rest = verified(envelope, tmp_path)
    assert not first.accepted and first.reasons
    assert all(one.accepted for one in rest)


@pytest.mark.parametrize(("key", "value"), [("seed", 6), ("budget", "smoke")])
def test_a_run_with_another_seed_or_budget_is_refused(
    envelope: dict[str, Any], tmp_path: Path, key: str, value: Any
) -> None:
    envelope[key] = value
    assert not any(one.accepted for one in verified(envelope, tmp_path))


def test_an_id_that_stands_twice_is_refused(envelope: dict[str, Any], tmp_path: Path) -> None:
    envelope["claims"].append(copy.deepcopy(envelope["claims"][0]))
    del envelope["summary"]
    found = verified(envelope, tmp_path)
    assert [one.accepted for one in found] == [False, True, True, False]


@pytest.mark.parametrize(
    "where", ["claims", "outcomes", "statuses", "levels", "dropped row", "no mapping"]
)
def test_a_summary_that_does_not_fit_is_refused(
    envelope: dict[str, Any], tmp_path: Path, where: str
) -> None:
    summary = envelope["summary"]
    match where:
        case "claims":
            summary["claims"] += 1
        case "outcomes" | "statuses":
            summary[where]["holds"] = 7
        case "levels":
            summary["levels"]["symbolic"] = {"holds": 1}
        case "dropped row":
            del envelope["claims"][0]
        case _:
            envelope["summary"] = "all is well"
    *rest, last = verified(envelope, tmp_path)
    assert (last.claim, last.accepted) == ("summary", False)
    assert all(one.accepted for one in rest)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1, 2",
        b'{"schema": "dsf.check/1", "schema": "dsf.check/1"}',
        b'{"schema": "dsf.check/1", "seed": NaN}',
        b"[" * 70 + b"]" * 70,
        [],
        {},
        {"schema": "other"},
        {"schema": "dsf.check/1"},
        {"schema": "dsf.check/1", "versions": {}, "seed": "0", "claims": []},
        {"schema": "dsf.check/1", "versions": {}, "seed": -1, "claims": []},
        {"schema": "dsf.check/1", "versions": {}, "seed": 0, "claims": {}},
        {"schema": "dsf.check/1", "versions": {}, "seed": 0, "claims": [1]},
        {"schema": "dsf.check/1", "versions": {}, "seed": 0, "claims": [{"id": "a.b"}]},
    ],
    ids=str,
)
def test_malformed_files_are_refused_as_such(content: Any, tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"file\.json"):
        verified(content, tmp_path)


def test_an_empty_envelope_has_nothing_to_verify(tmp_path: Path) -> None:
    content = {"schema": "dsf.check/1", "versions": {}, "seed": 0, "claims": []}
    assert verified(content, tmp_path) == ()


def test_a_file_that_cannot_be_read_is_an_io_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify_file(tmp_path / "nothing.json", claims=TOY)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_arrays_beside_the_file_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file.json"
    certificate = certify(TOY["example.rounding-of-a-sum"], budget=Budget.FULL)
    write_certificate(path, certificate)
    (one,) = verify_file(path, claims=TOY)
    assert one.accepted
    for array in (tmp_path / "file.json.evidence").iterdir():
        content = bytearray(array.read_bytes())
        content[-1] ^= 0x40
        match damage:
            case "flip":
                array.write_bytes(content)
            case "cut":
                array.write_bytes(content[:-4])
            case _:
                array.unlink()
    (one,) = verify_file(path, claims=TOY)
    assert not one.accepted and "the evidence cannot be read" in one.reasons[0]


@pytest.mark.parametrize("change", [{"seed": 1}, {"budget": "default"}])
def test_running_again_finds_another_origin(change: dict[str, Any], tmp_path: Path) -> None:
    record = certify(TOY["example.rounding-of-a-sum"], budget=Budget.SMOKE).to_json()
    assert verified(record, tmp_path, recompute=True)[0].accepted
    changed = record | change
    changed |= {"digest": digest(changed)}
    assert verified(changed, tmp_path)[0].accepted
    (one,) = verified(changed, tmp_path, recompute=True)
    assert not one.accepted and "evidence differs" in one.reasons[0]


def test_running_again_finds_that_a_claim_was_not_undecided(tmp_path: Path) -> None:
    record = certify(TOY["example.contraction"]).to_json()
    empty = {"status": "inconclusive", "measured": None, "bound": None, "evidence": None}
    record |= empty | {"predicted": None, "hypotheses": [], "remark": "made up"}
    record |= {"digest": digest(record)}
    assert verified(record, tmp_path)[0].conclusion == "undecided"
    (one,) = verified(record, tmp_path, recompute=True)
    assert not one.accepted and "the status is holds" in one.reasons[0]


IMPORTS = """
import sys
import dsf.verify
from dsf.claims.examples import TOY
(one,) = dsf.verify.verify_file(sys.argv[1], claims=TOY)
assert one.accepted, one
heavy = {"torch", "scipy", "matplotlib", "cvxpy", "sympy", "mpmath", "flint"} & sys.modules.keys()
print(one.conclusion, sorted(heavy))
"""


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("example.rounding-of-a-sum", "consistent with recorded data []"),
        ("example.contraction", "proved []"),
        ("example.softplus-gate", "proved ['mpmath', 'sympy']"),
    ],
)
def test_verification_imports_no_more_than_it_needs(
    name: str, printed: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    write_certificate(path, certify(TOY[name]))
    environment = os.environ | {"SYMPY_GROUND_TYPES": "python"}
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == printed

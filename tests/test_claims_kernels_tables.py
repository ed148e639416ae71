"""Claims about tables of tiles against brute force, and about files of measured times."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsf.certificate import Budget, Claim, Status, Task
from dsf.certify import certify, outcome
from dsf.kernels.claims import neighborhoods, speeds
from dsf.numerics import require_close
from dsf.verify import verify


def evidence_of(claim: Claim, seed: int = 0) -> dict:
    return dict(claim.witness(claim.instance(Task(seed, Budget.SMOKE))))


# -- tables of neighborhoods --------------------------------------------------------------------------


def test_the_neighborhood_tables_are_those_of_brute_force() -> None:
    claim = neighborhoods.VISITED_TILES
    record = certify(claim, seed=3, budget=Budget.SMOKE).to_json()
    found = verify(record, claims={claim.id: claim})
    assert (found.conclusion, found.outcome) == ("proved", "as-expected")
    for seed in range(3):
        evidence = evidence_of(claim, seed)
        assert claim.judge(evidence).status is Status.HOLDS
        for name in ("queries", "keys"):
            for column in range(2):
                moved = [boxes.copy() for boxes in evidence[name]]
                moved[1][0, column] += 1
                assert claim.judge({**evidence, name: moved}).status is Status.VIOLATED
        fewer = {**evidence, "visited": [n - 1 for n in evidence["visited"]]}
        assert claim.judge(fewer).status is Status.VIOLATED
        wide = {**evidence, "axes": evidence["axes"] * (1, 1, 30, 1, 1, 1)}
        assert claim.judge(wide).status is Status.HYPOTHESIS_NOT_MET


def test_brute_force_by_hand() -> None:
    seen = np.tril(np.ones((3, 3), dtype=bool))  # causal, tiles of two: a ragged last one
    visited, full = neighborhoods._tiles(seen, 2, 2)
    assert visited.tolist() == [[True, False], [True, True]]
    assert full.tolist() == [[False, False], [True, False]]
    axis = (np.eye(2, dtype=bool), 1, 1)
    assert np.array_equal(neighborhoods._over_two(axis, axis), np.eye(4, dtype=bool))


# -- measured times -----------------------------------------------------------------------------------


def document(growth: float, kind: str = "cuda") -> dict[str, Any]:
    """A file of the schema with made-up times: per token they grow by `growth` a row."""

    def row(case: str, group: str, sizes: str, tokens: int, forward: float) -> dict[str, Any]:
        clocks = {"eager_ms": 9 * forward, "graph_ms": forward}, {"eager_ms": 3 * forward}
        return {
            "kind": "time",
            "case": case,
            "group": group,
            "sizes": sizes,
            "tokens": tokens,
        } | dict(zip(("forward", "both"), clocks, strict=True))

    lengths = [2048, 8192, 32768, 131072]
    rows = [
        row("scalar decay", "long", f"length {n}", n, 1e-3 * n * growth**i)
        for i, n in enumerate(lengths)
    ]
    rows += [
        row(f"{name} attention", "times", "a", 8, t)
        for name, t in (("sigmoid", 1.0), ("softmax", 1.25))
    ]
    identity = {"kind": kind, "quick": False, "device": "a made-up device"}
    return {"schema": speeds.SCHEMA, "identity": identity, "complete": True, "rows": rows}


MEASURED = (speeds.CONSTANT_TIME, speeds.SIGMOID_IS_FASTER)


@pytest.mark.parametrize("claim", MEASURED, ids=lambda c: c.id)
def test_without_a_file_nothing_is_measured(claim: Claim) -> None:
    if importlib.util.find_spec(speeds.FOLDER) is not None:
        pytest.skip("measured files are there")
    certificate = certify(claim, budget=Budget.SMOKE)
    assert certificate.status is Status.NOT_RUN and speeds.FOLDER in certificate.verdict.remark


@pytest.mark.parametrize("claim", MEASURED, ids=lambda c: c.id)
def test_a_file_in_the_package_is_read(claim: Claim, tmp_path: Path, monkeypatch) -> None:
    import dsf.kernels.claims as room

    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "made-up.json").write_text(json.dumps(document(1.02)), "utf-8")
    monkeypatch.setattr(room, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, speeds.FOLDER, raising=False)
    certificate = certify(claim, budget=Budget.SMOKE)
    assert outcome(certificate) == "as-expected", certificate.verdict.remark
    assert "a made-up device" in certificate.verdict.remark
    found = verify(certificate.to_json(), claims={claim.id: claim})
    assert found.conclusion == "consistent with recorded data"
    monkeypatch.delitem(sys.modules, speeds.FOLDER, raising=False)


def test_slower_times_violate_and_other_files_are_refused(monkeypatch) -> None:
    claim, read = speeds.CONSTANT_TIME, {"a.json": document(1.02)}
    monkeypatch.setattr(speeds, "documents", lambda: read)
    evidence = evidence_of(claim)
    require_close(claim.judge(evidence).measured or 0.0, 1.02**2, 8)
    read["a.json"] = document(1.2)
    assert claim.judge(evidence).status is Status.INCONCLUSIVE
    assert claim.judge(evidence_of(claim)).status is Status.VIOLATED
    read["a.json"] = document(1.0, kind="cpu")
    assert claim.judge(evidence_of(claim)).status is Status.HYPOTHESIS_NOT_MET
    read["a.json"] = document(1.0) | {"rows": []}
    assert claim.judge(evidence_of(claim)).status is Status.INCONCLUSIVE

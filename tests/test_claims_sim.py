"""Claims about Generalized Neighborhood Attention: as expected, verified, tampered with, and judged by
a definition that is checked against NATTEN's masks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from dsf.certificate import Budget, Claim, Level, Status, Task
from dsf.certify import certify, outcome
from dsf.codec import digest
from dsf.registry import claims, papers
from dsf.sim.claims import blocks, searches, tables, theorems, times
from dsf.sim.claims.definition import axis_mask, axis_tiles
from dsf.verify import verify

PAPERS = ("hassani2025", "zhang2025")
MINE = {
    name: claim
    for name, claim in claims().items()
    if claim.paper in PAPERS and claim.judge.__module__.startswith("dsf.sim.")
}
ENCLOSED = [c for c in MINE.values() if c.level is Level.ENCLOSED]


@pytest.mark.parametrize("name", MINE)
def test_as_expected_and_verified(name: str) -> None:
    certificate = certify(MINE[name], seed=3, budget=Budget.SMOKE)
    assert outcome(certificate) == "as-expected", certificate.to_json()["remark"]
    verification = verify(certificate.to_json(), claims=MINE)
    assert verification.accepted, verification.reasons
    proves = MINE[name].level.proves
    assert verification.conclusion == ("proved" if proves else "consistent with recorded data")


@pytest.mark.parametrize("claim", theorems.CLAIMS, ids=lambda c: c.id)
def test_theorems_at_the_default_length(claim: Claim) -> None:
    assert outcome(certify(claim, budget=Budget.DEFAULT)) == "as-expected"


@pytest.mark.parametrize("claim", MINE.values(), ids=lambda c: c.id)
def test_the_controls_evidence_is_not_accepted_for_the_claims(claim: Claim) -> None:
    record = certify(claim, seed=5, budget=Budget.SMOKE).to_json()
    swapped = {**record, "evidence": record["control"]["evidence"]}
    swapped["digest"] = digest(swapped)
    assert not verify(swapped, claims=MINE).accepted


def moved(evidence: dict) -> list[dict]:
    """The evidence with each of its integers changed by one, field by field."""
    found = []
    for key, value in evidence.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            other = value.copy()
            other.flat[0] += 1
            found.append({**evidence, key: other})
        elif isinstance(value, list) and value and isinstance(value[0], int):
            found.append({**evidence, key: [value[0] + 1, *value[1:]]})
        elif isinstance(value, int):
            found.append({**evidence, key: value + 1})
    return found


@pytest.mark.parametrize("claim", ENCLOSED, ids=lambda c: c.id)
def test_counts_moved_by_one_are_not_judged_as_expected(claim: Claim) -> None:
    evidence = dict(claim.witness(claim.instance(Task(0, Budget.SMOKE))))
    for other in moved(evidence):
        assert claim.judge(other).status is not claim.expected


def test_times_moved_beyond_the_aim_violate() -> None:
    claim = MINE["hassani2025.time-b200-each"]
    evidence = claim.witness(claim.instance(Task(0)))
    slower = {**evidence, "constants": 1.2 * np.asarray(evidence["constants"])}
    assert claim.judge(slower).status is Status.VIOLATED
    fewer = {**evidence, "work": np.asarray(evidence["work"])[1:]}
    assert claim.judge(fewer).status is Status.INCONCLUSIVE


def test_every_published_row_has_its_claim() -> None:
    assert len(tables.CLAIMS) == 27 and len(times.CLAIMS) == 8
    assert len(blocks.STA_CLAIMS) == 7 and len(blocks.GNA_CLAIMS) == 2
    assert len(theorems.CLAIMS) == 9 and len(searches.CLAIMS) == 4
    refuted = {c.id for c in MINE.values() if c.expected is Status.VIOLATED}
    assert refuted == {
        "hassani2025.cosmos-1x1x1-dense0",
        "hassani2025.cosmos-1x1x1-dense12",
        "hassani2025.static-suffices",
        "hassani2025.predicate-sound-for-all-tiles",
        "hassani2025.predicate-complete",
        "hassani2025.strides-monotone",
        "hassani2025.blocked-is-stride-window",
        "hassani2025.time-b200-rank1",
        "zhang2025.tiled-natten-11",
        "zhang2025.sparsity-swin",
    }
    assert {paper.slug for paper in papers()} >= {"hassani2025", "zhang2025"}


def test_nattens_predicate_is_wrong_for_a_shipped_backward_tile() -> None:
    """16 tokens, window 8, stride 1, tiles 1/4, as in 1x8x16/4x4x8."""
    from dsf.sim.axis import Axis
    from dsf.sim.block_sparsity import natten_axis

    visited, full = axis_tiles(axis_mask(16, 8, 1), 1, 4)
    assert natten_axis(Axis(16, 8, 1), 1, 4) and visited.sum() > full.sum()


# The definition that the judges count with.


def test_the_definition_is_nattens() -> None:
    path = Path(__file__).with_name("data") / "natten_masks.json"
    checked = 0
    for case in json.loads(path.read_text())["cases"]:
        if all(axis["dilation"] == 1 for axis in case["axes"]):
            mask = np.ones((1, 1), dtype=bool)
            for axis in case["axes"]:
                fields = (axis[key] for key in ("length", "window", "stride", "causal"))
                mask = np.kron(mask, axis_mask(*fields))
            found = hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()
            assert found == case["sha256"], case["axes"]
            checked += 1
    assert checked > 100


def test_the_definition_counts_dynamic_tiles_by_hand() -> None:
    # Queries 0-1 see keys 0-3, queries 2-3 see 1-4: with tiles of 4 from there on, one each.
    mask = np.array(
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1]], dtype=bool
    )
    visited, full = axis_tiles(mask, 2, 4, dynamic=True)
    assert (visited.tolist(), full.tolist()) == ([1, 1], [1, 1])
    visited, full = axis_tiles(mask, 2, 4)
    assert (visited.tolist(), full.tolist()) == ([1, 2], [1, 1])

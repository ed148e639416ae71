"""The script that measures kernels on a GPU, where there is none: its dry run, its verdicts, its file and its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dsf.kernels
from dsf.kernels.report import kernels
from dsf.numerics import unit_roundoff
from dsf.sim.axis import Axis

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "benchmarks" / "gpu.py"


@pytest.fixture(autouse=True)
def parts_are_importable(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


def launched(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script as a user runs it, from another folder and without help from the environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def strictly(path: Path) -> dict[str, Any]:
    """A JSON file without NaN and infinity."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def dry(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("dry")
    options = ("--out", "run.json", "--device", "cpu", "--only", "gated scan")
    return folder / "run.json", launched(folder, *options)


def test_a_dry_run_fills_its_file(dry) -> None:
    path, process = dry
    assert process.returncode == 3, process.stderr  # its times decide nothing
    found = strictly(path)
    assert found["schema"] == "dsf.gpu/1" and found["complete"] and found["left"] == []
    assert found["identity"]["kind"] == "cpu" and found["identity"]["torch"] == torch.__version__
    kinds = ("check", "repeat", "far", "time")
    rows = {kind: [r for r in found["rows"] if r["kind"] == kind] for kind in kinds}
    assert all(rows.values()) and {r["case"] for r in found["rows"]} == {"gated scan"}
    assert {r["dtype"] for r in rows["check"]} == {"bfloat16", "float16", "float32", "complex64"}
    for row in rows["check"]:
        assert row["passes"] and row["poisoned"], row
        names = [result["name"] for result in row["results"]]
        assert names[:2] == ["states", "last state"] and len(names) == 5
    for row in rows["time"]:
        for part in ("forward", "both"):
            assert row[part]["eager_ms"] > 0 and row[part]["graph_ms"] is None
            assert row[part]["floor_ms"] == row[part]["bytes"] / (1e9 * row["copy_tb_s"])
        assert row["peers"]["fla"]["absent"]
    statuses = {v["aim"]: v["status"] for v in found["verdicts"]}
    for kind in kinds:
        assert statuses[f"gated scan: {kind}"] == "holds"
    assert statuses["gated scan: share of copy bandwidth"] == "not-run"
    assert process.stdout == "" and "check | gated scan" in process.stderr


def test_bad_usage_is_explained(tmp_path: Path, capsys) -> None:
    import gpu

    out = str(tmp_path / "x.json")
    calls = {
        "they are scalar decay": ["--out", out, "--device", "cpu", "--only", "nothing of the kind"],
        "outside the repository": ["--render", out],
    }
    if not torch.cuda.is_available():
        calls["--device cpu is the dry run"] = ["--out", out]
    for words, arguments in calls.items():
        assert gpu.main(arguments) == 2
        assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


BARE = """
import runpy, sys
from importlib.machinery import PathFinder
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {missing!r}:
            return PathFinder.find_spec(name, path, target)
sys.path[:] = [p for p in sys.path if p != {root!r}]
sys.meta_path[:] = [f for f in sys.meta_path if f is not PathFinder and "editable" not in repr(f)] + [Bare]
sys.argv = [{script!r}, *sys.argv[1:]]
runpy.run_path({script!r}, run_name="__main__")
"""
MISSING = (
    *("jaxtyping", "beartype", "pytest", "hypothesis", "scipy", "flint", "cvxpy", "typer"),
    *("rich", "jinja2", "matplotlib", "joblib", "markupsafe", "threadpoolctl", "transformers"),
)


def test_a_bare_machine_is_enough(tmp_path: Path) -> None:
    """No installation of the package, and of packages torch and what it brings, numpy and Triton alone."""
    code = BARE.format(root=str(ROOT), missing=MISSING, script=str(SCRIPT))
    arguments = [
        "--out",
        "run.json",
        "--device",
        "cpu",
        "--only",
        "selective scan",
        "--workers",
        "0",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [sys.executable, "-P", "-c", code, *arguments]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 3, found.stderr[-3000:]
    assert strictly(tmp_path / "run.json")["complete"]
    assert "jaxtyping" in MISSING and "FAILED" not in found.stderr


def here(path: Path, *more: str) -> int:
    """The script in this process."""
    import gpu

    return gpu.main(["--out", str(path), "--device", "cpu", "--workers", "0", *more])


def test_a_run_goes_on_where_it_was_cut_off(dry, tmp_path: Path) -> None:
    whole = strictly(dry[0])
    path = tmp_path / "run.json"
    kept = [dict(row, mark="kept") for row in whole["rows"][::2]]
    kept[0]["retry"] = True  # died: it is tried again
    path.write_text(json.dumps({**whole, "rows": kept, "complete": False}), encoding="utf-8")
    assert here(path, "--only", "gated scan", "--budget", "0") == 3
    cut = strictly(path)
    assert not cut["complete"] and len(cut["left"]) == len(whole["rows"]) - len(kept) + 1
    assert {v["aim"]: v["status"] for v in cut["verdicts"]}["gated scan: check"] == "inconclusive"
    assert here(path, "--only", "gated scan") == 3
    found = strictly(path)
    assert found["complete"] and {r["key"] for r in found["rows"]} == {
        r["key"] for r in whole["rows"]
    }
    assert [r["key"] for r in found["rows"] if r.get("mark")] == [r["key"] for r in kept[1:]]
    assert found["seconds"] >= cut["seconds"] >= whole["seconds"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("field", ["device", "torch", "code", "quick"])
def test_rows_of_two_runs_are_never_mixed(field: str, tmp_path: Path, capsys) -> None:
    from gpu_parts import machine
    from gpu_parts.journal import Journal

    path = tmp_path / "run.json"
    Journal(path, {**machine.identity("cpu", False), field: "another"}).write()
    before = path.read_bytes()
    assert here(path, "--only", "gated scan") == 2
    assert field in capsys.readouterr().err and path.read_bytes() == before


# Planted bugs: an operator that is wrong in one way, and the result that must say so.


def _scan(a, b, initial_state, *, starts=None):
    return RIGHT(a, b, initial_state, starts=starts)


RIGHT = dsf.kernels.gated_scan


class _Wrong(torch.autograd.Function):
    """Passes a gradient on, off by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, *given):
        return ctx.factor * given[0], None


def slightly_off(a, b, initial_state, *, starts=None):
    h, last = RIGHT(a, b, initial_state, starts=starts)
    return h * (1 + 2**-18), last


def last_state_of_the_step_before(a, b, initial_state, *, starts=None):
    h, last = RIGHT(a, b, initial_state, starts=starts)
    return h, last if h.shape[1] < 2 or starts is not None else h[:, -2]


def tail_not_written(a, b, initial_state, *, starts=None):
    h, last = RIGHT(a, b, initial_state, starts=starts)
    unwritten = torch.empty_like(h)
    return torch.cat([h[:, : h.shape[1] // 2], unwritten[:, h.shape[1] // 2 :]], 1), last


def gradient_off(a, b, initial_state, *, starts=None):
    return RIGHT(_Wrong.apply(a, 1.0001), b, initial_state, starts=starts)


def sequences_run_on(a, b, initial_state, *, starts=None):
    if starts is None:
        return RIGHT(a, b, initial_state)
    h, last = RIGHT(a, b, initial_state[:1])
    return h, torch.cat([last] * len(initial_state))


def another_shape(a, b, initial_state, *, starts=None):
    h, last = RIGHT(a, b, initial_state, starts=starts)
    return h[:, 1:], last


def raises(a, b, initial_state, *, starts=None):
    raise RuntimeError("an illegal memory access was encountered")


PLANTED = {
    "slightly off": (slightly_off, "states"),
    "last state of the step before": (last_state_of_the_step_before, "last state"),
    "tail not written": (tail_not_written, "states"),
    "gradient off": (gradient_off, "gradient of a"),
    "sequences run on": (sequences_run_on, "states"),
    "another shape": (another_shape, "shape"),
    "raises": (raises, "illegal memory access"),
}


def verdict_of(found: dict[str, Any], aim: str) -> dict[str, Any]:
    return next(v for v in found["verdicts"] if v["aim"] == aim)


def checked(case: Any, sizes: str, dtype: str) -> dict[str, Any]:
    """One check as a run does it."""
    from gpu_parts import jobs

    job = jobs.Job("check", case, "checks", sizes, dtype)
    return {**job.to_json(), **jobs.perform(job, jobs.Settings("cpu"), None)}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_wrong_operator_is_reported(bug: str, monkeypatch) -> None:
    from gpu_parts import verdicts

    wrong, word = PLANTED[bug]
    sizes = "packed, one empty" if bug == "sequences run on" else "odd length"
    assert checked("gated scan", sizes, "float32")["passes"]
    monkeypatch.setattr(dsf.kernels, "gated_scan", wrong)
    row = checked("gated scan", sizes, "float32")
    assert not row["passes"]
    found = verdicts.verdicts(verdicts.Rows({row["key"]: row}, (row,), dry=True))[0]
    assert found.status == "violated" and word in found.reason, found
    assert verdicts.exit_code([found], 0) == 1


def test_products_in_plain_tf32_are_reported(monkeypatch) -> None:
    """What `input_precision` left out would do: eleven bits of every factor, which no interpreter shows."""
    right = dsf.kernels.scalar_decay

    def coarse(q, k, v, g, initial_state, **options):
        def kept(x):
            return x + (((x.detach() * 8193) - (x.detach() * 8193 - x.detach())) - x.detach())

        return right(kept(q), kept(k), kept(v), g, initial_state, **options)

    assert checked("scalar decay", "odd length, shared heads", "float32")["passes"]
    monkeypatch.setattr(dsf.kernels, "scalar_decay", coarse)
    row = checked("scalar decay", "odd length, shared heads", "float32")
    failed = {result["name"] for result in row["results"] if not result["passes"]}
    assert {"outputs", "final state", "gradient of q"} <= failed


@pytest.mark.full
def test_every_case_passes_its_dry_run(tmp_path: Path) -> None:
    from gpu_parts.cases import CASES

    assert here(tmp_path / "run.json") == 3  # its times decide nothing
    found = strictly(tmp_path / "run.json")
    assert found["complete"]
    assert {row["case"] for row in found["rows"]} | set(found["absent"]) == {c.name for c in CASES}
    assert {v["status"] for v in found["verdicts"]} == {"holds", "not-run"}


def test_a_wrong_operator_ends_the_script_with_one(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(dsf.kernels, "gated_scan", slightly_off)
    assert here(tmp_path / "run.json", "--only", "gated scan") == 1
    found = strictly(tmp_path / "run.json")
    assert verdict_of(found, "gated scan: check")["status"] == "violated"
    assert verdict_of(found, "gated scan: repeat")["status"] == "holds"
    assert "FAILED: states" in capsys.readouterr().err


def test_an_operator_that_does_not_repeat_is_reported(monkeypatch) -> None:
    from gpu_parts import jobs

    calls: Iterator[int] = iter(range(100))

    def unsteady(a, b, initial_state, *, starts=None):
        h, last = RIGHT(a, b, initial_state, starts=starts)
        return h + next(calls) * 2**-20, last

    monkeypatch.setattr(dsf.kernels, "gated_scan", unsteady)
    job = jobs.Job("repeat", "gated scan", "repeated", "repeated", "float32")
    row = jobs.perform(job, jobs.Settings("cpu"), None)
    assert not row["passes"] and row["differing"] == ["states"]


def test_an_operator_that_is_not_there_is_absent(monkeypatch, tmp_path: Path) -> None:
    from gpu_parts import run
    from gpu_parts.cases import named

    gone = replace(named("gated scan"), operator="dsf.kernels:not_in_this_version")
    monkeypatch.setattr(run, "CASES", (gone,))
    assert here(tmp_path / "run.json", "--only", "gated scan") == 3
    found = strictly(tmp_path / "run.json")
    assert found["absent"] == ["gated scan"] and found["rows"] == []
    assert verdict_of(found, "gated scan: share of copy bandwidth")["status"] == "not-run"


def test_what_does_not_fit_the_device_is_undecided(monkeypatch) -> None:
    from gpu_parts import verdicts

    def hungry(a, b, initial_state, *, starts=None):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dsf.kernels, "gated_scan", hungry)
    row = checked("gated scan", "odd length", "float32")
    (found,) = verdicts.verdicts(verdicts.Rows({row["key"]: row}, (row,)))
    assert found.status == "not-run" and "0 of 1" in found.reason


# The cases and their references.


def test_every_kernel_has_a_case() -> None:
    from gpu_parts.cases import CASES

    assert {kernel.name for kernel in kernels()} <= {case.kernel for case in CASES}
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        for group in ("checks", "small", "times", "long"):
            names = [sizes.name for sizes in getattr(case, group)]
            assert len(set(names)) == len(names), f"{case.name}: {group}"
        assert any(sizes.quick for sizes in case.checks), case.name


def cases_and_sizes() -> list[tuple[str, str]]:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from gpu_parts.cases import CASES
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return [(case.name, sizes.name) for case in CASES for sizes in case.small]


@pytest.mark.parametrize(("name", "sizes"), cases_and_sizes())
def test_the_naive_way_is_the_recurrence(name: str, sizes: str) -> None:
    """Outputs, states and gradients in float32: two ways that share no formula, or one in two precisions."""
    from gpu_parts import checks
    from gpu_parts.cases import named

    case = named(name)
    chosen = next(s for s in case.small if s.name == sizes)
    inputs = case.inputs("cpu", "float32", chosen, name)
    wide = checks._exactly(inputs)
    shapes = checks.results(case, case.exact, wide, None)
    up = checks._cotangents(case, shapes, "float32", "cpu", name)
    exact = checks.results(case, case.exact, wide, up)
    naive = checks.results(case, case.naive, inputs, up)
    limit = 64 * (chosen.length + chosen.keys) * unit_roundoff(torch.float32)
    assert exact.keys() == naive.keys() and len(exact) > 1 + case.backward
    for key, truth in exact.items():
        size = truth.abs().max() if truth.numel() else 0.0
        assert (naive[key] - truth).abs().max() <= limit * max(float(size), 1.0), key
        assert size > 0 or chosen.hard, f"{key} is zero everywhere: it checks nothing"


AXES = [
    (11, 4, 1, 1, False), (11, 4, 2, 1, False), (12, 5, 3, 2, False), (13, 4, 4, 3, False),
    (11, 4, 1, 1, True), (12, 6, 4, 2, True), (7, 7, 1, 1, False), (9, 2, 2, 1, True),
]  # fmt: skip


@pytest.mark.parametrize("row", AXES)
def test_neighborhoods_by_leaders_are_those_by_intervals(row: tuple) -> None:
    from gpu_parts.attention_reference import _seen_on_axis

    axis, seen = Axis(*row), _seen_on_axis(*row)
    length, dilation = row[0], row[3]
    for query in range(length):
        size = len(range(query % dilation, length, dilation))
        start, end = axis.interval(query // dilation, size)
        keys = [query % dilation + dilation * j for j in range(start, min(end, size))]
        assert seen[query].nonzero()[:, 0].tolist() == keys

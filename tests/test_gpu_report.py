"""What the script that measures kernels on a GPU makes of its rows: verdicts, clocks, workers and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dsf.numerics import require_close

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "benchmarks" / "gpu.py"


@pytest.fixture(autouse=True)
def parts_are_importable(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


# Verdicts on made-up numbers.

SIZES = ("1,8192,96,128", "8,1024,8,64")


def planned(
    case: str, *sizes: str, group: str = "times", kind: str = "time"
) -> list[dict[str, str]]:
    from gpu_parts.jobs import Job

    return [Job(kind, case, group, each, "bfloat16").to_json() for each in sizes]


def timed(job: dict[str, str], ms: float = 1.0, **more: Any) -> dict[str, Any]:
    part = {"graph_ms": ms, "eager_ms": 9.0, "share": more.pop("share", 0.5)}
    return {**job, "tokens": 1000, "forward": part, "both": part, **more}


def peer(ms: float | None, agrees: bool = True) -> dict[str, Any]:
    part = {"graph_ms": ms, "eager_ms": None if ms is None else ms}
    return {"peers": {"fla": {"forward": part, "both": part, "agrees": agrees}}}


ABSENT = {"peers": {"fla": {"absent": "not installed"}}}
FLA, BOTH = "scalar decay: forward against fla", "scalar decay: forward and backward against fla"
FLOOR = "gated scan: share of copy bandwidth"
PUBLISHED = "scalar decay: forward against published times of fla"
# Aim, case, what each size has beside its time of 1 ms (None: no row), status, worst, and words of the reason.
MADE_UP = [
    (FLA, "scalar decay", [peer(1.0), peer(1.5)], "holds", 1.0, ""),
    (FLA, "scalar decay", [peer(0.99), peer(1.5)], "violated", 1 / 0.99, ""),
    (FLA, "scalar decay", [peer(1.5), None], "inconclusive", 1 / 1.5, "not measured"),
    (FLA, "scalar decay", [peer(0.5), None], "violated", 2.0, ""),
    (FLA, "scalar decay", [ABSENT, ABSENT], "not-run", None, "not installed"),
    (FLA, "scalar decay", [peer(1.5), ABSENT], "inconclusive", 1 / 1.5, "not installed"),
    (FLA, "scalar decay", [peer(9.0, agrees=False)] * 2, "not-run", None, "another result"),
    (FLA, "scalar decay", [{"error": "out of memory"}] * 2, "not-run", None, "out of memory"),
    (FLA, "scalar decay", [peer(float("nan"))] * 2, "violated", float("nan"), ""),
    (FLA, "another", [peer(1.0), peer(1.5)], "not-run", None, "no scalar decay"),
    (BOTH, "scalar decay", [peer(1 / 0.7), peer(2.0)], "holds", 0.7, ""),
    (BOTH, "scalar decay", [peer(1.4), peer(2.0)], "violated", 1 / 1.4, ""),
    (PUBLISHED, "scalar decay", [ABSENT, ABSENT], "violated", 9 / 0.137, ""),
    (FLOOR, "gated scan", [{"share": 0.8}, {"share": 0.9}], "holds", 0.8, ""),
    (FLOOR, "gated scan", [{"share": 0.79}, {"share": 0.9}], "violated", 0.79, ""),
]  # fmt: skip


@pytest.mark.parametrize(("aim", "case", "found", "status", "worst", "words"), MADE_UP)
def test_verdicts_on_made_up_numbers(aim, case, found, status, worst, words) -> None:
    from gpu_parts import aims, verdicts

    jobs = planned(case, *SIZES)
    pairs = zip(jobs, found, strict=True)
    rows = {job["key"]: timed(job, **more) for job, more in pairs if more is not None}
    verdict = next(
        v
        for v in aims.judged(verdicts.Rows(rows, tuple(jobs), device="NVIDIA H100"))
        if v.aim == aim
    )
    assert verdict.status == status and words in verdict.reason
    if worst is None or math.isnan(worst):
        assert str(verdict.worst) == str(worst)
    else:
        require_close(verdict.worst, worst, 8)
    assert bool(verdict.reason) == (status in ("inconclusive", "not-run"))
    code = {"holds": 0, "violated": 1, "inconclusive": 3, "not-run": 3}[status]
    assert verdicts.exit_code([verdict], 0) == code
    if code == 0:
        assert verdicts.exit_code([verdict], 1) == 3


@pytest.mark.parametrize(
    ("per_token", "status"),
    [((1.0, 1.0, 1.09), "holds"), ((1.0, 1.2, 1.0), "violated"), ((1.0, None, 1.05), "inconclusive"),
     ((1.0, None, None), "inconclusive"), ((None, None, None), "not-run")],
)  # fmt: skip
def test_flat_means_flat_over_all_lengths(per_token, status: str) -> None:
    from gpu_parts import verdicts

    jobs = planned("gated scan", "length 2", "length 4", "length 8", group="long")
    rows = {}
    for job, each in zip(jobs, per_token, strict=True):
        tokens = 1000 * int(job["sizes"].split()[1])
        if each is not None:
            rows[job["key"]] = timed(job, each * tokens) | {"tokens": tokens}
    found = verdicts.verdicts(verdicts.Rows(rows, tuple(jobs)))
    named = {v.aim: v for v in found}
    assert named["gated scan: flat, forward"].status == status
    assert named["gated scan: flat, forward and backward"].status == status


@pytest.mark.parametrize(("ours", "status"), [(1.0, "holds"), (1.05, "violated")])
def test_a_template_is_compared_with_itself(ours: float, status: str) -> None:
    """Sigmoid against softmax, and neighborhoods against dense attention and the simulator's bound."""
    from gpu_parts import aims, verdicts
    from gpu_parts.render import page

    jobs = [*planned("sigmoid attention", "one"), *planned("softmax attention", "one", "grid")]
    jobs += planned("neighborhood attention", "grid")
    times = (ours, 1.1, 3.6, ours)
    rows = {job["key"]: timed(job, ms) for job, ms in zip(jobs, times, strict=True)}
    for job in (jobs[0], jobs[-1]):
        rows[job["key"]]["against"] = "softmax attention"
    rows[jobs[-1]["key"]]["bound"] = 4.0
    found = {v.aim: v for v in aims.judged(verdicts.Rows(rows, tuple(jobs)))}
    assert found["sigmoid attention: forward against softmax"].status == status
    neighborhoods = found["neighborhood attention: forward against the simulator"]
    assert neighborhoods.status == status
    require_close(neighborhoods.worst, 0.9 / ours, 8)
    document = made_up_document()
    document["rows"] += rows.values()
    text = page(document, Path("a.json"))
    assert "times faster than softmax attention | simulator's bound |" in text
    assert f"| {3.6 / ours:.3g} | 4 |" in text


def test_what_cannot_be_timed_is_a_violation() -> None:
    from gpu_parts import verdicts

    (job,) = planned("gated scan", "one")
    rows = verdicts.Rows({job["key"]: {**job, "error": "out of memory", "passes": False}}, (job,))
    found = {v.aim: v for v in verdicts.verdicts(rows)}
    assert found["gated scan: time"].status == "violated"
    assert "out of memory" in found["gated scan: time"].reason


# Clocks, on a device that is made up: time passes with every call, and a graph replays what it captured.


class MadeUpDevice:
    """Stands for `torch.cuda`: a call takes 2 ms, and 5 ms where Python makes it."""

    def __init__(self) -> None:
        self.now, self.captured, self.calls = 0.0, None, 0
        self.CUDAGraph = lambda: self
        self.Event = lambda enable_timing: self._Event(self)
        self.Stream = lambda device: self

    class _Event:
        def __init__(self, device) -> None:
            self._device = device

        def record(self) -> None:
            self.at = self._device.now

        def elapsed_time(self, other) -> float:
            return other.at - self.at

    def call(self) -> None:
        if self.captured is not None:
            self.captured += 1
        else:
            self.calls += 1
            self.now += 5.0

    def replay(self) -> None:
        self.now += 2.0 * self.recorded

    def graph(self, graph, stream):
        return self

    def __enter__(self) -> None:
        assert self.calls, "nothing is compiled before it is captured"
        self.captured = 0

    def __exit__(self, *_) -> None:
        self.recorded, self.captured = self.captured, None

    def stream(self, stream):
        import contextlib

        return contextlib.nullcontext()

    def current_stream(self, device):
        return self

    def wait_stream(self, other) -> None:
        pass

    def synchronize(self, device=None) -> None:
        pass


@pytest.mark.parametrize("several", [1, 3])
def test_clocks_divide_by_what_they_ran(several: int, monkeypatch) -> None:
    from gpu_parts import clocks

    device = MadeUpDevice()
    monkeypatch.setattr(clocks.torch, "cuda", device)
    calls = [device.call] * several
    where = torch.device("cuda")
    require_close(clocks.eager_ms(calls, where, 100.0), 5.0, 64)
    require_close(clocks.graph_ms(calls, where, 100.0), 2.0, 64)
    assert device.recorded >= several  # every set of inputs has its turn


# Workers: a process that dies or hangs costs one row.

FRAGILE = """
import json, os, sys, time
for line in sys.stdin:
    job = json.loads(line)["job"]["sizes"]
    if job == "dies":
        sys.stderr.write("last words")
        os._exit(9)
    if job == "hangs":
        time.sleep(600)
    print(json.dumps({"passes": True, "process": os.getpid()}), flush=True)
"""


def test_a_worker_that_dies_or_hangs_costs_one_row(monkeypatch, tmp_path: Path) -> None:
    from gpu_parts import workers
    from gpu_parts.jobs import Job, Settings

    script = tmp_path / "worker.py"
    script.write_text(FRAGILE, encoding="utf-8")
    monkeypatch.setattr(workers, "ENTRY", script)
    monkeypatch.setattr(workers, "START_S", 20.0)
    monkeypatch.setattr(Job, "limit_s", property(lambda job: 2.0))
    jobs = [
        Job("check", "x", "checks", name, "float32")
        for name in ("a", "dies", "b", "c", "hangs", "d")
    ]
    found: dict[str, dict] = {}
    workers.together(
        jobs, Settings("cpu"), 1, lambda job, row: found.update({job.sizes: row}), lambda: 60.0
    )
    assert [name for name, row in found.items() if row.get("retry")] == ["dies", "hangs"]
    assert "last words" in found["dies"]["error"] and "(9)" in found["dies"]["error"]
    assert "no answer" in found["hangs"]["error"]
    assert found["b"]["process"] == found["c"]["process"] != found["a"]["process"]
    assert found["d"]["passes"]


def test_a_job_that_the_sitting_has_no_time_for_is_left(monkeypatch, tmp_path: Path) -> None:
    from gpu_parts import workers
    from gpu_parts.jobs import Job, Settings

    script = tmp_path / "worker.py"
    script.write_text(FRAGILE, encoding="utf-8")
    monkeypatch.setattr(workers, "ENTRY", script)
    monkeypatch.setattr(workers, "START_S", 0.5)
    monkeypatch.setattr(workers, "GRACE_S", 0.5)
    found: list[str] = []
    left = iter([1.0, 0.0, 0.0])
    jobs = [Job("check", "x", "checks", name, "float32") for name in ("hangs", "a")]
    workers.together(
        jobs, Settings("cpu"), 1, lambda job, row: found.append(job.sizes), lambda: next(left)
    )
    assert found == []


# The page.


def made_up_document() -> dict[str, Any]:
    from gpu_parts import aims, verdicts

    jobs = planned("scalar decay", *SIZES)
    rows = {job["key"]: timed(job, 0.125, **peer(0.25)) for job in jobs}
    job = planned("scalar decay", "odd", group="checks", kind="check")[0]
    numbers = {"error": 0.5, "naive": 0.5, "bound": 1.0, "size": 9.0}
    result = {"name": "outputs", "largest": numbers, "rms": numbers, "passes": True}
    rows[job["key"]] = {**job, "results": [result], "passes": True}
    judged = aims.judged(verdicts.Rows(rows, (*jobs, job)))
    identity = dict.fromkeys(("torch", "triton", "cuda", "python", "dsf"), "1.2")
    return {
        "schema": "dsf.gpu/1",
        "identity": identity | {"kind": "cuda", "device": "A device", "capability": [9, 0], "quick": False},
        "date": "2026-01-01", "seconds": 1.0, "only": [], "complete": True, "left": [], "absent": ["delta rule"],
        "verdicts": [v.to_json() for v in judged],
        "rows": list(rows.values()),
    }  # fmt: skip


def test_a_page_is_drawn_from_the_rows() -> None:
    from gpu_parts.render import page

    text = page(made_up_document(), Path("kernels/claims/measured/a.json"))
    assert "kernels/claims/measured/a.json" in text and "A device (compute capability 9.0)" in text
    assert "| scalar decay: forward against fla | **holds** | 0.5 | 1 | 1,8192,96,128 |" in text
    assert "| 1,8192,96,128 | 0.125 | 9 | 50% | 0.25 | 0.125 | 9 | 50% | 0.25 | 125 |" in text
    assert "| scalar decay | bfloat16 | 1 of 1 | 0.50 | outputs, odd |" in text
    assert "delta rule" in text and "Delta rule" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [({"only": ["x"]}, "some cases alone"), ({"identity": {"kind": "cpu"}}, "a dry run"),
     ({"schema": "other"}, "not a file of")],
)  # fmt: skip
def test_only_a_run_on_a_gpu_is_drawn(
    change, words: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    import gpu
    from gpu_parts import render

    monkeypatch.setattr(render, "ROOT", tmp_path)
    path, target = tmp_path / "run.json", tmp_path / "page.md"
    path.write_text(json.dumps(made_up_document()), encoding="utf-8")
    assert gpu.main(["--render", str(path), "--to", str(target)]) == 0 and target.is_file()
    target.unlink()
    path.write_text(json.dumps(made_up_document() | change), encoding="utf-8")
    assert gpu.main(["--render", str(path), "--to", str(target)]) == 2
    assert words in capsys.readouterr().err and not target.exists()


def test_the_committed_page_is_what_its_file_says() -> None:
    """Where there is a page; without a run on a GPU there is none."""
    from gpu_parts.render import TARGET, page

    if not TARGET.exists():
        assert not (ROOT / "kernels" / "claims" / "measured").exists()
        return
    text = TARGET.read_text(encoding="utf-8")
    sources = [Path(x) for x in text.partition("--render ")[2].partition("`")[0].split()]
    run, *samples = (json.loads((ROOT / x).read_text(encoding="utf-8")) for x in sources)
    assert text == page(run, *sources, samples=samples)


def test_a_run_that_was_cut_off_says_so() -> None:
    from gpu_parts.render import page

    text = page(made_up_document() | {"complete": False, "left": ["a", "b"]}, Path("a.json"))
    assert "The run was cut off: 2 of" in text

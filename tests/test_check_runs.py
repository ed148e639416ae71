"""Runs in processes of their own: workers, kills, interruptions, full disks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsf.verify import verify_file

# Arrays of 96 x 96 go to side files, arrays of 80 x 80 are inline and fill the journal.
TABLE = """
import os, signal, time
import threadpoolctl
from dsf.certificate import Claim, Level, Status, Verdict

COUNT = 8

def claim(index):
    name = f"bench.c{index}"
    size = 80 if index % 2 else 96

    def instance(task):
        return {"x": task.rng().standard_normal((size, size))}

    def witness(drawn):
        with open(os.environ["RUNS"], "a") as log:
            log.write(f"{name} {os.getpid()}\\n")
        print("noise on standard output")
        time.sleep(float(os.environ.get("NAP", "0")))
        if name == os.environ.get("FATAL"):
            os.kill(os.getpid(), signal.SIGKILL)
        threads = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return {"x": drawn["x"], "square": drawn["x"] @ drawn["x"], "threads": threads}

    def judge(evidence):
        status = Status.HOLDS if evidence["threads"] == 1 else Status.VIOLATED
        return Verdict(status, float(evidence["threads"]), None, 1.0)

    return Claim(
        id=name, title="One thread", statement="t = 1", citation="none", level=Level.MEASURED,
        expected=Status.HOLDS, bound_rule="one", instance=instance, witness=witness,
        control=lambda drawn: {"x": drawn["x"], "threads": 2}, judge=judge,
    )

def table():
    return {c.id: c for c in map(claim, range(COUNT))}
"""

DRIVER = """
import json, sys
from pathlib import Path
from dsf.check import Settings
from dsf.cli.check import Outputs, execute

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    file = given.pop("json", None)
    path = Path(file) if file and file != "-" else None
    settings = Settings(reference="bench:table", json=path, **given)
    sys.exit(execute(settings, Outputs(json=file)))
"""

IDS = [f"bench.c{i}" for i in range(8)]


class Bench:
    """Runs `dsf check` on the table above, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "runs"
        (folder / "bench.py").write_text(TABLE)
        (folder / "drive.py").write_text(DRIVER)
        self.log.touch()

    def start(self, env: dict[str, str] | None = None, **settings: Any) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        python_path = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, str(self.folder / "drive.py"), json.dumps(settings)],
            cwd=self.folder,
            env=kept
            | {"PYTHONPATH": os.pathsep.join(python_path), "RUNS": str(self.log)}
            | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, env: dict[str, str] | None = None, **settings: Any) -> tuple[int, str, str]:
        with self.start(env, **settings) as process:
            out, err = process.communicate(timeout=120)
            return process.returncode, out, err

    def runs(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()]

    def pids(self) -> set[int]:
        return {int(line.split()[1]) for line in self.log.read_text().splitlines()}

    def journalled(self, name: str) -> list[str]:
        path = self.folder / f"{name}.journal"
        whole = path.read_bytes().splitlines(keepends=True)[1:] if path.exists() else []
        return [json.loads(line)["id"] for line in whole if line.endswith(b"\n")]

    def document(self, name: str) -> dict[str, Any]:
        """The merged file without what may differ from run to run."""
        document = json.loads((self.folder / name).read_bytes())
        for claim in document["claims"]:
            assert claim.pop("seconds") >= 0
        return document

    def evidence(self, name: str) -> dict[str, bytes]:
        folder = self.folder / f"{name}.evidence"
        return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def wait(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Until the condition holds or the process has ended; an error after a minute."""
    end = time.monotonic() + 60
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < end
        time.sleep(0.01)


def drop(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal to the process and its workers, and wait."""
    with process:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def test_one_two_and_four_workers_give_the_same_and_compute_with_one_thread(bench):
    for jobs in (1, 2, 4):
        code, out, err = bench.run(jobs=jobs, json=f"{jobs}.json")
        assert code == 0, err
        assert "8 claims: 8 as expected" in out
    for jobs in (2, 4):
        assert bench.document(f"{jobs}.json") == bench.document("1.json")
        assert bench.evidence(f"{jobs}.json") == bench.evidence("1.json") != {}
    assert [claim["id"] for claim in bench.document("1.json")["claims"]] == IDS
    assert sorted(bench.runs()) == sorted(3 * IDS)
    assert not list(bench.folder.glob("*.journal"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_again_and_again_it_loses_nothing_and_repeats_nothing(bench, jobs):
    rng = random.Random(jobs)
    assert bench.run(json="calm.json")[0] == 0
    partial = 0
    for _ in range(5):
        kept = bench.journalled("o.json")
        before = len(bench.runs())
        target = len(kept) + rng.randrange(3)
        process = bench.start({"NAP": "0.1"}, jobs=jobs, json="o.json", resume=True)
        wait(
            lambda least=target, start=before: (
                len(bench.runs()) > start and len(bench.journalled("o.json")) >= least
            ),
            process,
        )
        time.sleep(rng.uniform(0, 0.1))
        drop(process, signal.SIGKILL)
        assert not set(bench.runs()[before:]) & set(kept)
        assert (bench.folder / "o.json").exists() or set(kept) <= set(bench.journalled("o.json"))
        partial += 0 < len(bench.journalled("o.json")) < len(IDS)
        if (bench.folder / "o.json").exists():
            break
    assert partial
    kept, before = bench.journalled("o.json"), len(bench.runs())
    code, _, err = bench.run(jobs=jobs, json="o.json", resume=True)
    assert code == 0, err
    assert not set(bench.runs()[before:]) & set(kept)
    assert bench.document("o.json") == bench.document("calm.json")
    assert bench.evidence("o.json") == bench.evidence("calm.json")
    assert not list(bench.folder.glob("*.journal"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed(bench):
    process = bench.start({"NAP": "0.2"}, jobs=2, json="o.json")
    wait(lambda: len(bench.pids()) == 2, process)
    os.kill(process.pid, signal.SIGKILL)

    def ended(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait(lambda: all(map(ended, bench.pids())))
    drop(process, signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_it_keeps_what_is_finished_and_says_how_to_go_on(bench, jobs):
    assert bench.run(json="calm.json")[0] == 0
    process = bench.start({"NAP": "0.2"}, jobs=jobs, json="o.json")
    wait(lambda: len(bench.journalled("o.json")) >= 2 and len(bench.pids()) == jobs + 1, process)
    code, out, err = drop(process, signal.SIGINT)
    kept = bench.journalled("o.json")
    assert code == 130
    assert f"{len(kept)} results are kept in o.json.journal" in err and "--resume" in err
    told = err.replace("noise on standard output", "").split("\n")  # two workers write at once
    assert len(list(filter(None, told))) == 1 and out == ""
    before = len(bench.runs())
    assert bench.run(jobs=jobs, json="o.json", resume=True)[0] == 0
    assert sorted(bench.runs()[before:]) == sorted(set(IDS) - set(kept))
    assert bench.document("o.json") == bench.document("calm.json")


def test_a_full_disk_ends_with_3_and_keeps_what_is_finished(bench):
    resource = pytest.importorskip("resource")
    assert bench.run(json="calm.json")[0] == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150 * 2**10, hard))
    try:
        code, _, err = bench.run(json="o.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = bench.journalled("o.json")
    assert code == 3
    assert 0 < len(kept) < len(IDS) and f"{len(kept)} results are kept" in err
    assert (bench.folder / "o.json.journal").read_bytes().endswith(b"\n")
    before = len(bench.runs())
    assert bench.run(json="o.json", resume=True)[0] == 0
    assert not set(bench.runs()[before:]) & set(kept)
    assert bench.document("o.json") == bench.document("calm.json")


def test_a_worker_that_dies_ends_the_run_with_3_and_keeps_what_is_finished(bench):
    code, _, err = bench.run({"FATAL": "bench.c7", "NAP": "0.1"}, jobs=2, json="o.json")
    kept = bench.journalled("o.json")
    assert code == 3
    assert "a worker process ended before its claim did" in err and "are kept" in err
    assert kept and "bench.c7" not in kept
    assert bench.run(jobs=2, json="o.json", resume=True)[0] == 0
    assert [claim["id"] for claim in bench.document("o.json")["claims"]] == IDS


@pytest.mark.parametrize("jobs", [1, 2])
def test_standard_output_is_the_json_alone_whatever_claims_print(bench, jobs):
    code, out, err = bench.run(jobs=jobs, json="-")
    assert code == 0
    assert [claim["id"] for claim in json.loads(out)["claims"]] == IDS
    assert "8 claims: 8 as expected" in err and "noise" in err


def test_the_merged_file_verifies(bench, monkeypatch):
    assert bench.run(json="o.json")[0] == 0
    monkeypatch.syspath_prepend(str(bench.folder))
    import bench as module  # type: ignore[import-not-found]

    found = verify_file(bench.folder / "o.json", claims=module.table())
    assert [one.conclusion for one in found] == ["consistent with recorded data"] * len(IDS)
    monkeypatch.delitem(sys.modules, "bench")

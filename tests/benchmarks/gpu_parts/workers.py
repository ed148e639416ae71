"""Workers: processes that do jobs one after the other, so that a crash or a hang costs one row and no more."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import torch

from .jobs import Job, Settings, copied, perform

ENTRY = Path(__file__).resolve().parents[1] / "gpu.py"
START_S = 120.0  # importing torch and making a context on a machine that is cold
GRACE_S = 25.0  # a job that is begun may end so much later than the others

Report = Callable[[Job, dict[str, Any]], None]
Left = Callable[[], float]
"""Seconds in which jobs may still be begun."""


class Worker:
    """One process, started when it is first asked and again after it died."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def ask(self, question: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer, or a row that says how the worker ended; such a row is tried again in a later sitting."""
        if self._process is not None and self._process.poll() is not None:
            self.end()  # it died between two questions
        fresh = self._process is None
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s + START_S * fresh, give_up)
        timer.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer = json.loads(line)
            if answer.pop("broken", False):
                self.end()  # its context is lost: the next question is for a new process
            return answer
        code = self.close()
        why = f"gave no answer in {limit_s:.0f} s" if late.is_set() else f"died ({code})"
        words = f"the worker {why}: {self._last_words() or 'without a word'}"
        return {"error": words, "passes": False, "retry": True, "late": late.is_set()}

    def report(self, job: Job, question: dict[str, Any], left_s: Left, report: Report) -> None:
        """Report a job's row, unless the sitting's time was up before the job's own: then it is left."""
        limit_s = min(job.limit_s, max(left_s(), 0.0) + GRACE_S)
        found = self.ask({"job": job.to_json(), **question}, limit_s)
        if not found.pop("late", False) or limit_s == job.limit_s:
            report(job, found)

    def _start(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, str(ENTRY), "--serve", "--device", self._settings.device]
        self._process = subprocess.Popen(
            [*command, *["--quick"] * self._settings.quick],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self._process

    def _last_words(self) -> str:
        """What the process that ended wrote to standard error."""
        errors, self._errors = self._errors, None
        if errors is None:
            return ""
        with errors as file:
            file.seek(0)
            return " ".join(file.read()[-600:].split())

    def end(self) -> None:
        """End the process where there is one."""
        self.close()
        self._last_words()

    def close(self) -> int | None:
        """End the process; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            return process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def serve(settings: Settings) -> None:
    """A worker: one question a line, one answer a line, nothing else on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1 if settings.dry else 2)  # there are several workers
    gc.freeze()  # what was imported is no garbage, and looking through it between jobs takes half a second
    for line in sys.stdin:
        question = json.loads(line)
        job = question.get("job")
        if job is None:
            answer = copied(settings)
        else:
            answer = perform(Job.from_json(job), settings, question.get("copy_tb_s"))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def together(
    jobs: Iterable[Job], settings: Settings, count: int, report: Report, left_s: Left
) -> None:
    """Jobs that may share the device, on several workers."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    lock = threading.Lock()

    def locked(job: Job, found: dict[str, Any]) -> None:
        with lock:
            report(job, found)

    def work() -> None:
        worker = Worker(settings)
        try:
            while left_s() > 0:
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                worker.report(job, {}, left_s, locked)
        finally:
            worker.end()

    threads = [threading.Thread(target=work) for _ in range(min(count, waiting.qsize()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def alone(jobs: Iterable[Job], settings: Settings, report: Report, left_s: Left) -> None:
    """Jobs that are timed, one after the other, beside the bandwidth of a copy that is measured first."""
    worker, bandwidth = Worker(settings), None
    try:
        for job in jobs:
            if left_s() <= 0:
                return
            if bandwidth is None:
                found = worker.ask({}, 60)
                if (bandwidth := found.get("tb_s")) is None:
                    return report(job, found)
            worker.report(job, {"copy_tb_s": bandwidth}, left_s, report)
    finally:
        worker.end()


def here(jobs: Iterable[Job], settings: Settings, report: Report, left_s: Left) -> None:
    """The same in this process, to look into a failure."""
    bandwidth = None
    for job in jobs:
        if left_s() <= 0:
            return
        if job.alone and bandwidth is None:
            bandwidth = copied(settings)["tb_s"]
        report(job, perform(job, settings, bandwidth))

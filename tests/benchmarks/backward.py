"""Times and weighs the way back of each form, and writes docs/backward-measurements.md.

    python tests/benchmarks/backward.py

One thread, float32, B = 1, T = 8192: forward and backward over forward alone, in turn in this process;
the peak of the memory in a process of its own for each row (Linux).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from cases import Case, cases
from report import _processor as processor
from timing import interleaved, ratio
from torch import Tensor

import dsf
from dsf import kernels
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.core import Core
from dsf.forms.lowering import lower
from dsf.forms.scan import Scan, at_once

LENGTH, ROUNDS = 8192, 5
TARGET = Path(__file__).resolve().parents[2] / "docs" / "backward-measurements.md"
SHARED = ("linear attention", "scalar decay", "diagonal decay")
FORMS = [
    *((name, "chunkwise") for name in (*SHARED, "gated delta rule", "mLSTM")),
    *((name, "scan") for name in (*SHARED, "S6")),
]
OPERATORS = ("scalar_decay", "selective_scan", "gated_scan")


@dataclass(frozen=True)
class Passes:
    """A run, its inputs, and how many numbers the states at the start of its pieces hold."""

    run: Callable[[], tuple[Tensor, ...]]
    inputs: list[Tensor]
    states: int
    above: list[Tensor] = field(default_factory=list)
    """The gradient of the outputs, made before anything is timed."""

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.above.append(torch.randn(self.forward()[0].shape, generator=generator))

    def forward(self) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.run()

    def both(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.run()[0], self.inputs, self.above, allow_unused=True)


def of_form(name: str, form: str, length: int) -> Passes:
    case = cases(length)[name]()
    system = case.system.map(lambda x: x.detach().requires_grad_())
    values = case.values.detach().requires_grad_()
    inputs = [*system.transition.leaves, *system.write.tensors, *system.read.tensors, values]
    core = lower(system, values, None).core
    return Passes(lambda: dsf.run(system, values, form=form)[:1], inputs, _states(core, form, case))


def _states(core: Core, form: str, case: Case) -> int:
    steps = (
        Chunkwise().chunk_for(core.transition)
        if form == "chunkwise"
        else Scan().steps_at_once(core)
    )
    return core.length // steps * core.memory.numel()


def of_operator(name: str, length: int) -> Passes:
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if name == "scalar_decay":
        given = [*(leaf(1, length, 4, 64) for _ in range(3)), -leaf(1, length, 4).abs()]
        states = length // 32 * 4 * 64 * 64
    elif name == "selective_scan":
        x, delta = leaf(1, length, 512), 0.1 * leaf(1, length, 512).abs()
        rates = -torch.arange(1.0, 17).repeat(512, 1)
        given = [x, delta, rates, leaf(1, length, 1, 16), leaf(1, length, 1, 16)]
        states = length // int(at_once(512 * 16)) * 512 * 16
    else:
        given, states = [leaf(1, length, 512).sigmoid(), leaf(1, length, 512)], 0
    inputs = [x.requires_grad_() for x in given]
    return Passes(lambda: getattr(kernels, name)(*inputs), inputs, states)


def build(name: str, form: str, length: int) -> Passes:
    return of_operator(name, length) if form == "operator" else of_form(name, form, length)


def peak(name: str, form: str, both: bool) -> float:
    """Inputs and the growth of the memory, over inputs, results and states; for this process alone."""
    warm = build(name, form, 64)
    warm.both() if both else warm.forward()
    passes = build(name, form, LENGTH)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    results = passes.both() if both else passes.forward()
    growth = _status("VmHWM") - before
    inputs = sum(_bytes(x) for x in passes.inputs)
    outputs = passes.forward()
    found = {id(x): _bytes(x) for x in (*results, *outputs) if isinstance(x, Tensor)}
    return (inputs + growth) / (inputs + sum(found.values()) + 4 * passes.states)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def _in_a_process(name: str, form: str, both: bool) -> str:
    if not Path("/proc/self/clear_refs").exists():
        return ""
    command = [sys.executable, __file__, name, form, str(int(both))]
    return f"{float(subprocess.check_output(command, text=True)):.1f}"


def _row(name: str, form: str) -> str:
    passes = build(name, form, LENGTH)
    times = interleaved({"forward": passes.forward, "both": passes.both}, ROUNDS)
    forward, both = (1e3 * statistics.median(times[key]) for key in ("forward", "both"))
    more = ratio(times["both"], times["forward"])
    weights = [_in_a_process(name, form, both=b) for b in (False, True)]
    found = f"| {name} | {form} | {forward:.0f} | {both:.0f} | {more:.1f} | {' | '.join(weights)} |"
    print(found, file=sys.stderr)
    return found


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        name, form, both = sys.argv[1:]
        print(peak(name, form, both == "1"))
        return
    rows = [_row(*pair) for pair in [*FORMS, *((name, "operator") for name in OPERATORS)]]
    machine = f"{platform.machine()}, {processor()}, Python {platform.python_version()}"
    text = f"""# The way back on a CPU

Written by `tests/benchmarks/backward.py`: float32, one thread, B = 1, T = {LENGTH}, 4 heads of K = V = 64
(S6: 256 channels of 16 states; `selective_scan`: 512 channels of 16 states; `gated_scan`: 512 channels),
median of {ROUNDS} rounds in turn. {machine}, torch {torch.__version__}, dsf {dsf.__version__}.

"Ratio": forward and backward over forward alone. Memory: inputs and what the process grows by at its peak, over inputs,
results and the states at the start of each piece; the results of both passes are outputs and gradients.

What the ratio can be: each product of the forward pass has two on the way back, so that it is 3 where nothing is
computed again and both passes run at one speed. Chunks of 16 steps make every second state and all scores again, which
is 3.3 by the count of multiply-adds; a scan makes all states again: 3.5 without decay, where it takes two operations a
number there and five back, and 3.7 with one, three there and eight back. Where everything is made again it is 4, as
`dsf check qin2024-lightning.operations-of-gradients` counts. A forward pass nearer to its floor raises the ratio.

| what | form | forward, ms | with backward, ms | ratio | memory, forward | memory, both |
|---|---|---:|---:|---:|---:|---:|
{chr(10).join(rows)}
"""
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""Times the forms against peers and writes docs/measurements.md: python tests/benchmarks/report.py.

One thread, float32, every ratio from calls measured in turn in this process.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from cases import Case, cases
from timing import interleaved, ratio

import dsf
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.segments import Step
from dsf.forms.selection import forms

LENGTH, ROUNDS = 8192, 5
TARGET = Path(__file__).resolve().parents[2] / "docs" / "measurements.md"


def main() -> None:
    torch.set_num_threads(1)
    drawn = {name: build() for name, build in cases(LENGTH).items()}
    rows = {name: _forms(case) for name, case in drawn.items()}
    text = "\n".join(
        [
            "# Measurements",
            "",
            f"Written by `tests/benchmarks/report.py`: float32, one thread, B = 1, T = {LENGTH}, 4 heads of "
            f"K = V = 64 (S6 and S4D: 256 channels, 16 states), median of {ROUNDS} rounds in turn. "
            f"{platform.machine()}, {_processor()}, Python {platform.python_version()}, "
            f"torch {torch.__version__}, dsf {dsf.__version__}.",
            "",
            "## Forms against the step-by-step loop",
            "",
            "Milliseconds of the loop (`recurrent`), and how many times faster each other form is in the same "
            "process. An empty cell: the form refuses the system.",
            "",
            "| system | loop, ms | scan | chunkwise | convolution | selected |",
            "|---|---|---|---|---|---|",
            *(_row(name, *row, drawn[name]) for name, row in rows.items()),
            "",
            "## Against softmax attention",
            "",
            _softmax(drawn["scalar decay"]),
            "",
            "## Time per token",
            "",
            "Microseconds per token of the chunkwise form, scalar decay: " + _per_token() + ".",
            "",
            "## Backward",
            "",
            "Forward and backward of the chunkwise form, over its forward: "
            + ", ".join(
                f"{name} {_backward(drawn[name]):.1f}"
                for name in ("scalar decay", "diagonal decay", "gated delta rule")
            )
            + ".",
            "",
            "## What it costs to keep a NaN out of the past",
            "",
            "Every chunkwise run looks once at its results (see `dsf.forms.containment`), compiled code as it writes "
            "them. In torch, time with that look over time without it: "
            + ", ".join(
                f"{name} {_containment(drawn[name]):.3f}"
                for name in (
                    "linear attention",
                    "scalar decay",
                    "diagonal decay",
                    "gated delta rule",
                )
            )
            + ". It is always on.",
            "",
        ]
    )
    TARGET.write_text(text, encoding="utf-8")


def _forms(case: Case) -> tuple[float, dict[str, float]]:
    admitted = [f for f in forms() if f.name != "matrix" and f.admits(case.system)]
    calls = {f.name: (lambda f=f: dsf.run(case.system, case.values, form=f)) for f in admitted}
    times = interleaved(calls, ROUNDS)
    loop = times.pop("recurrent")
    return 1e3 * sorted(loop)[len(loop) // 2], {
        name: ratio(loop, spent) for name, spent in times.items()
    }


def _row(name: str, loop: float, faster: dict[str, float], case: Case) -> str:
    cells = [
        f"{faster[form]:.1f}" if form in faster else ""
        for form in ("scan", "chunkwise", "convolution")
    ]
    chosen = dsf.select(case.system, case.values).name
    return f"| {name} | {loop:.0f} | {' | '.join(cells)} | {chosen} |"


def _softmax(case: Case) -> str:
    q, k, v = (
        x.transpose(1, 2).contiguous()
        for x in (case.system.read.weights, case.system.write.weights, case.values)
    )
    attention = torch.nn.functional.scaled_dot_product_attention
    times = interleaved(
        {
            "softmax": lambda: attention(q, k, v, is_causal=True),
            "chunkwise": lambda: dsf.run(case.system, case.values, form="chunkwise"),
        },
        ROUNDS,
    )
    faster = ratio(times["softmax"], times["chunkwise"])
    peer = f"`scaled_dot_product_attention` (causal) at T = {LENGTH}"
    return f"Scalar decay, chunkwise, is {faster:.1f} times faster than {peer}."


def _per_token() -> str:
    """Forward, and forward with backward, at growing lengths."""
    cells = []
    for length in (2048, 8192, 32768):
        case = cases(length)["scalar decay"]()
        forward, both = _passes(case)
        times = interleaved({"forward": forward, "both": both}, ROUNDS)
        micro = [1e6 * sorted(times[name])[ROUNDS // 2] / length for name in ("forward", "both")]
        cells.append(f"T = {length}: {micro[0]:.1f} forward, {micro[1]:.1f} with backward")
    return "; ".join(cells)


def _backward(case: Case) -> float:
    forward, both = _passes(case)
    times = interleaved({"forward": forward, "both": both}, ROUNDS)
    return ratio(times["both"], times["forward"])


def _passes(case: Case) -> tuple[Callable[[], None], Callable[[], None]]:
    system = case.system.map(lambda x: x.detach().requires_grad_())
    values = case.values.detach().requires_grad_()
    leaves = [*system.transition.leaves, *system.write.tensors, *system.read.tensors, values]

    def forward() -> None:
        with torch.no_grad():
            dsf.run(system, values, form="chunkwise")

    def both() -> None:
        torch.autograd.grad(dsf.run(system, values, form="chunkwise")[0].sum(), leaves)

    return forward, both


def _containment(case: Case) -> float:
    kept, in_torch = Step.finite, Chunkwise(Chunkwise().chunk_for(case.system.transition))

    def bare() -> None:
        Step.finite = lambda *found: True  # the chunks alone, for this measurement
        try:
            dsf.run(case.system, case.values, form=in_torch)
        finally:
            Step.finite = kept

    times = interleaved(
        {"with": lambda: dsf.run(case.system, case.values, form=in_torch), "without": bare},
        3 * ROUNDS,
    )
    return ratio(times["with"], times["without"])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


if __name__ == "__main__":
    sys.exit(main())

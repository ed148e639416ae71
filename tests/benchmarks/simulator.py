"""Times the simulator and writes docs/simulator-measurements.md: python tests/benchmarks/simulator.py.

`--large` also builds the peer's mask at 115 200 tokens with torch.compile, some minutes; without it
the rows of that size are left out.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import platform
import statistics
import sys
from pathlib import Path

import torch
from test_simulator import CALLS, LAYOUT, SMALL, TILES, WINDOW, counted_afresh
from timing import interleaved, ratio, seconds
from torch.nn.attention.flex_attention import create_block_mask

import dsf
from dsf.sim import Pattern
from dsf.sim.calibration import leave_one_out, leave_rank_out
from dsf.sim.device import DEVICES
from dsf.sim.export import block_mask

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "simulator-measurements.md"
AIMS = {
    "count": "30 µs",
    "pattern": "",
    "sweep": "15 ms",
    "seven tilings": "200 ms",
    "block mask": "20 ms",
}
NAMES = {
    "count": "counts of one configuration, nothing cached",
    "pattern": "the same with its pattern built and validated",
    "sweep": "all 10 368 strides, one pair of tiles",
    "seven tilings": "all 10 368 strides, seven pairs of tiles, nothing cached",
    "block mask": "a BlockMask at 115 200 tokens",
}


def main() -> None:
    torch.set_num_threads(1)
    lines = [
        "# Measurements of the simulator",
        "",
        f"Written by `tests/benchmarks/simulator.py`: one thread, layout {'x'.join(map(str, LAYOUT))}, "
        f"window {'x'.join(map(str, WINDOW))}, tiles {TILES}. {platform.machine()}, {_processor()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, dsf {dsf.__version__}.",
        "",
        "| what | time | aim |",
        "|---|---:|---:|",
        *(
            f"| {NAMES[name]} | {_shown(_best(call))} | {AIMS[name]} |"
            for name, call in CALLS.items()
        ),
        "",
        "## Against FlexAttention's `create_block_mask`",
        "",
        "| tokens | peer | its time | BlockMask here, times faster | counts here, times faster |",
        "|---:|---|---:|---:|---:|",
        _against(SMALL, compiled=False),
    ]
    if "--large" in sys.argv:
        lines.append(_against(Pattern(LAYOUT, WINDOW), compiled=True))
    lines += ["", *_held_out(), ""]
    TARGET.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(TARGET.read_text(encoding="utf-8"))


def _best(call) -> float:
    call()
    several = max(1, int(0.02 / max(seconds(call), 1e-6)))
    return min(seconds(lambda: [call() for _ in range(several)]) / several for _ in range(15))


def _against(pattern: Pattern, compiled: bool) -> str:
    mask = block_mask(pattern, TILES)[0]
    tokens = mask.seq_lengths[0]
    build = torch.compile(create_block_mask) if compiled else create_block_mask
    calls = {
        "peer": lambda: build(mask.mask_mod, 1, 1, tokens, tokens, "cpu", TILES.sizes),
        "ours": lambda: block_mask(pattern, TILES),
        "count": lambda: counted_afresh(pattern),
    }
    times = interleaved(calls, 1 if compiled else 3)
    return (
        f"| {tokens} | {'compiled, second call' if compiled else 'as it comes'} | "
        f"{_shown(statistics.median(times['peer']))} | {ratio(times['peer'], times['ours']):,.0f} | "
        f"{ratio(times['peer'], times['count']):,.0f} |"
    )


def _held_out() -> list[str]:
    """How well the time model predicts runs that it was not fitted to."""
    rows = [
        "## Predicted kernels",
        "",
        "NATTEN's measured kernels (commit 8c8729f, docs/sample-outputs) predicted from three constants that "
        "were fitted without them: predicted over measured time, less one.",
        "",
        "| device | layout | stride | measured, ms | from all others | from other numbers of axes |",
        "|---|---|---|---:|---:|---:|",
    ]
    for name in ("B200", "H100"):
        ranks = {h.row: h for rank in (1, 2, 3) for h in leave_rank_out(DEVICES[name], rank)}
        for held in leave_one_out(DEVICES[name]):
            row = held.row
            shown = ("x".join(map(str, x)) for x in (row.pattern.layout, row.pattern.stride))
            rows.append(
                f"| {name} | {' | '.join(shown)} | {row.ms:.4g} | {held.error:+.1%} | "
                f"{ranks[row].error:+.1%} |"
            )
    return rows


def _shown(time: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if time >= scale:
            return f"{time / scale:.3g} {unit}"
    return f"{time:.3g} s"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line)
    return next(names, platform.processor())


if __name__ == "__main__":
    main()

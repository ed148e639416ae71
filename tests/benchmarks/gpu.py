"""Validates and times every kernel of `dsf.kernels` on a GPU: python tests/benchmarks/gpu.py --out FILE.json.

The rows so far are in FILE after each of them; the same command goes on where a run was cut off. `--device cpu` is
the dry run: the same code on the operators of the CPU, at tiny sizes; its times mean nothing. `--render FILE` writes
docs/gpu-measurements.md from files of the repository. Needs torch, numpy and Triton, and this package need not be
installed.

Exit codes: 0 every aim holds, 1 one is violated, 2 bad usage, 3 one is undecided.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
if (
    importlib.util.find_spec("dsf") is None
):  # a bare machine; at the end, since the root has a folder `kernels`
    sys.path.append(str(HERE.parents[1]))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="the JSON file, written after every row")
    parser.add_argument(
        "--only", action="append", default=[], help="cases whose name has this in it; repeat it"
    )
    parser.add_argument("--quick", action="store_true", help="a sample, in under two minutes")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for the dry run")
    parser.add_argument("--workers", type=int, help="processes for checks; 0: all in this process")
    parser.add_argument("--budget", type=float, help="seconds after which no job is begun")
    parser.add_argument(
        "--render",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="write the page of a run, with samples of earlier code",
    )
    parser.add_argument("--to", type=Path, help="where --render writes; docs/gpu-measurements.md")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    if not (found.serve or found.render or found.out):
        parser.error("give --out FILE.json, or --render FILE.json")
    return found


def main(arguments: list[str] | None = None) -> int:
    given = parsed(arguments)
    from gpu_parts.journal import BadUsage

    try:
        if given.render:
            from gpu_parts.render import render

            return render(given.render, given.to)
        from gpu_parts.jobs import Settings
        from gpu_parts.run import run
        from gpu_parts.workers import serve

        settings = Settings(given.device, given.quick)
        if (reason := _cannot(settings)) is not None:
            raise BadUsage(reason)
        if given.serve:
            serve(settings)
            return 0
        budget = (105.0 if given.quick else 450.0) if given.budget is None else given.budget
        return run(given.out, settings, given.only, given.workers, budget)
    except BadUsage as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2


def _cannot(settings) -> str | None:
    """Why nothing can be measured on this device."""
    import torch

    if settings.dry or torch.cuda.is_available():
        return None
    return "there is no CUDA device; --device cpu is the dry run"


if __name__ == "__main__":
    sys.exit(main())

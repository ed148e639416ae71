"""Run the whole product of every law and write its summary, `tests/full_run.md`.

    python tests/full_run.py [--processes N]

About an hour and a half of core time. Nothing is written where a test fails.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    processes = parser.parse_args().processes
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        command = ["-m", "pytest", "-q", "-m", "full", f"-n{processes}", f"--junitxml={results}"]
        code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
        if code:
            return code
        cases = list(ET.parse(results).getroot().iter("testcase"))
    ROOT.joinpath("tests", "full_run.md").write_text(summary(cases), encoding="utf-8")
    return 0


def summary(cases: list[ET.Element]) -> str:
    """The table of a run: tests per function, skipped ones, seconds."""
    tests, skipped, seconds = Counter(), Counter(), Counter()
    for case in cases:
        name = f"{case.get('classname', '').split('.')[-1]}.{case.get('name', '').split('[')[0]}"
        tests[name] += 1
        skipped[name] += case.find("skipped") is not None
        seconds[name] += float(case.get("time", 0))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "dsf-dynamics"))
    rows = [
        f"| `{name}` | {tests[name]} | {skipped[name]} | {seconds[name]:.0f} |"
        for name in sorted(tests)
    ]
    return "\n".join(
        [
            "# The last whole run",
            "",
            f"`pytest -m full`, written by `tests/full_run.py` on {datetime.date.today()}: "
            f"Python {platform.python_version()}, {versions}, {platform.system()}, CPU. "
            f"All {sum(tests.values())} tests passed or were skipped for the reason they print.",
            "",
            "| test | cases | skipped | core seconds |",
            "|---|---:|---:|---:|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())

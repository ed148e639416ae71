"""Processes apart from the tests': without annotation checks, where Triton interprets or compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BOTH = """
import torch
{given}
run = torch.compile(total, fullgraph=True, backend="aot_eager")
pairs = zip(*(torch.autograd.grad(f(*leaves), leaves) for f in (run, total)))
print(all(torch.equal(one, other) for one, other in pairs))
"""


def apart(*arguments: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, from the root of the project."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def require_compiles(given: str) -> None:
    """The gradients of `total(*leaves)`, both made by the code that is given, compile without a break, bit for bit."""
    found = apart("-c", _BOTH.format(given=given))
    assert found.stdout.strip() == "True", found.stderr[-4000:]

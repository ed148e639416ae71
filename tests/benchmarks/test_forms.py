"""pytest tests/benchmarks -n0 --benchmark-only: every form on every case, with the loop as the peer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"dsf_benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


LENGTH = 2048
CASES = (
    "linear attention",
    "scalar decay",
    "diagonal decay",
    "gated delta rule",
    "mLSTM",
    "S6",
    "S4D",
)
FORMS = ("recurrent", "scan", "chunkwise", "convolution")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_forward(benchmark, case: str, form: str) -> None:
    import torch

    import dsf
    from dsf.forms.selection import named

    torch.set_num_threads(1)
    drawn = _load("cases").cases(LENGTH)[case]()
    if not named(form).admits(drawn.system):
        pytest.skip(f"{form} refuses {case}")
    benchmark.group = case
    benchmark(lambda: dsf.run(drawn.system, drawn.values, form=form))

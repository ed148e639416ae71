"""What is no tensor, system or state, or lies on another device, is named; tried as users are, without type checks."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = """
import numpy, torch, dsf
from dsf import OuterCoupling, Scalar, System
q = torch.ones(1, 3, 1, 2)
system = System(dsf.Identity(), OuterCoupling(q), OuterCoupling(q))
calls = {
"""
# A call, and what its message says.
CALLS = {
    "dsf.run(system, q.numpy())": "`tokens` must be a torch.Tensor; got ndarray",
    "dsf.run(system, q, q)": "`state` must be a dsf.State; got Tensor",
    "dsf.run(None, q)": "`system` must be a dsf.System; got NoneType",
    "OuterCoupling([1.0])": "`weights` must be a torch.Tensor; got list",
    "Scalar(0.5)": "`value` must be a torch.Tensor; got float",
    "Scalar.from_log(0.5)": "`log` must be a torch.Tensor; got float",
    "dsf.Dense(numpy.eye(2))": "`matrices` must be a torch.Tensor; got ndarray",
    "dsf.DPLR(dsf.Identity(), q, 1.0)": "`right` must be a torch.Tensor; got float",
    "System(q, OuterCoupling(q), OuterCoupling(q))": "`transition` must be a dsf.Structure; got Tensor",
    "System(dsf.Identity(), OuterCoupling(q), q)": "`read` must be a dsf.Coupling; got Tensor",
    "System(dsf.Identity(), OuterCoupling(q), OuterCoupling(q.to('meta')))": "one device; got cpu",
    "dsf.run(system, q.to('meta'))": "`tokens` is on meta, the system on cpu",
}


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    lines = "".join(f"    {call!r}: lambda: {call},\n" for call in CALLS)
    code = f"""{PRELUDE}{lines}}}
for call, run in calls.items():
    try:
        run()
    except dsf.InvalidInput as error:
        print(call, error, sep='\\t')
"""
    found = subprocess.check_output([sys.executable, "-c", code], text=True)
    return dict(line.split("\t") for line in found.splitlines())


@pytest.mark.parametrize("call", CALLS)
def test_it_is_named(call: str, messages: dict[str, str]) -> None:
    assert CALLS[call] in messages.get(call, "no error")

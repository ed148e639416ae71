"""Test set-up: one thread per process, reproducible examples, and annotations that are checked."""

from __future__ import annotations

import os

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Before torch is imported: the tests run in parallel, and a sum's order must not vary with threads.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

hypothesis.settings.register_profile("dsf", derandomize=True, deadline=None)
hypothesis.settings.load_profile("dsf")


# jaxtyping decorates methods one by one, where beartype does not know the class that `Self` means.
# An int is a float to type checkers (PEP 484), so it is one here.
_CHECKER = (
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, "
    "hint_overrides=beartype.FrozenDict({__import__('typing').Self: object})))"
)


def pytest_configure(config: pytest.Config) -> None:
    """Check every annotation of `dsf` at run time, except where speed is measured."""
    if not config.getoption("benchmark_only", False):
        install_import_hook("dsf", _CHECKER)

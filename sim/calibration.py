"""Constants of a kernel from a few measured runs, and how well they predict the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from statistics import mean

import numpy as np

from dsf.errors import InvalidInput

from .counts import count
from .device import DEVICES, Device
from .kernel_time import Kernel, Problem, kernel_time, permute_ms, visit_us
from .measured import HEAD_DIM, ROWS, Measured
from .schedule import last_sm, visits_in_order

_STAND_IN = {"A100": "H100", "H200": "H100"}
"""Devices without rows of their own, and the one whose constants they take."""

_ROUNDS = 20  # it takes three or four


@dataclass(frozen=True)
class HeldOut:
    """A row that the fit did not see: milliseconds measured and predicted, and their ratio less 1."""

    row: Measured
    predicted_ms: float

    @property
    def error(self) -> float:
        return self.predicted_ms / self.row.ms - 1


def fit(rows: Sequence[Measured], device: Device) -> Kernel:
    """Efficiency, prologue and masked overhead that fit the rows best, by relative least squares.

    The time of a run is that of the SM that is done last, which is linear in the constants: so many
    prologues, so many visits, so many masked visits. Which SM that is depends on the constants, so
    it is found again until nothing changes. Raises `InvalidInput` where rows do not determine the
    constants: they need block-sparse and masked runs, and different numbers of visits per CTA.
    """
    if not rows or any(row.device != device.name for row in rows):
        raise InvalidInput(f"a fit for {device.name} needs rows measured on it")
    measured = np.array([row.ms * 1e3 for row in rows])
    share = solution = np.array([0.05, 1.0, 0.4])  # prologue, a visit, masked overhead
    design = np.zeros(0)
    for _ in range(_ROUNDS):
        before = design
        design = np.array([_critical(row, device, share) for row in rows]) / measured[:, None]
        if np.array_equal(design, before):
            break
        if np.linalg.matrix_rank(design) < design.shape[1]:
            raise InvalidInput(
                "the rows do not determine prologue, visit and masked overhead: add block-sparse and "
                "masked runs with different numbers of KV tiles per query tile"
            )
        solution = _non_negative(design)
        share = solution / solution[1]
    prologue, efficiency, overhead = solution[0], 1 / solution[1], solution[2] / solution[1]
    names = ", ".join(sorted({f"{row.rank}-D" for row in rows}))
    source = f"fitted to {len(rows)} runs ({names}) on {device.name}"
    return Kernel(float(efficiency), float(prologue), float(overhead), source=source)


def predict(row: Measured, device: Device, kernel: Kernel) -> float:
    """Milliseconds that the model gives for a measured run."""
    problem = Problem.of(row.pattern, HEAD_DIM)
    return kernel_time(count(row.pattern, row.tiling), row.tiling, problem, device, kernel).ms


def leave_one_out(device: Device, rows: Sequence[Measured] = ROWS) -> tuple[HeldOut, ...]:
    """Each row of the device predicted from the others."""
    own = [row for row in rows if row.device == device.name]
    return tuple(
        HeldOut(row, predict(row, device, fit([r for r in own if r is not row], device)))
        for row in own
    )


def leave_rank_out(
    device: Device, rank: int, rows: Sequence[Measured] = ROWS
) -> tuple[HeldOut, ...]:
    """The rows of so many axes, predicted from those of fewer or more."""
    own = [row for row in rows if row.device == device.name]
    kernel = fit([row for row in own if row.rank != rank], device)
    return tuple(HeldOut(row, predict(row, device, kernel)) for row in own if row.rank == rank)


@lru_cache
def default_kernel(name: str) -> Kernel:
    """The constants for a device of the table, from all its rows, or those of its stand-in.

    >>> default_kernel("B200").source
    'fitted to 7 runs (1-D, 2-D, 3-D) on B200'
    """
    measured = _STAND_IN.get(name, name)
    if measured not in {row.device for row in ROWS}:
        raise InvalidInput(
            f"device {name!r} has no measured runs; give a `Kernel`, or fit one to runs of your own"
        )
    return fit([row for row in ROWS if row.device == measured], DEVICES[measured])


@lru_cache
def masked_overhead(rank: int) -> float:
    """μ by the number of axes: the geometric mean over devices of masked against block-sparse runs.

    Of a pair of runs, (masked ms / block-sparse ms) / (mean visits masked / block-sparse) - 1.
    """
    found = []
    for name in sorted({row.device for row in ROWS}):
        own = [row for row in ROWS if row.device == name and row.rank == min(rank, 3)]
        counted = [(row, count(row.pattern, row.tiling)) for row in own]
        plain = [(row.ms, counts.mean) for row, counts in counted if not counts.partial]
        masked = [(row.ms, counts.mean) for row, counts in counted if counts.partial]
        for ms, visits in masked:
            base = mean(b / v for b, v in plain)
            found.append(log(ms / visits / base))
    return exp(mean(found)) - 1


@lru_cache
def permutation_share(name: str) -> float:
    """The part of HBM bandwidth that NATTEN's token permutation was measured to reach on a device."""
    measured = _STAND_IN.get(name, name)
    if measured not in {row.device for row in ROWS}:
        raise InvalidInput(
            f"the bandwidth that token permutation reaches was not measured on {name!r}: give "
            "permute_share with the kernel"
        )
    device = DEVICES[measured]
    shares = [
        permute_ms(row.pattern, row.tiling, Problem.of(row.pattern, HEAD_DIM), device, 1.0)
        / row.permute_ms
        for row in ROWS
        if row.device == measured and row.permute_ms is not None
    ]
    return exp(mean(map(log, shares)))


def work(row: Measured, device: Device, kernel: Kernel) -> np.ndarray:
    """Of a run, on the SM that is done last: prologues, visits, masked visits (ideal microseconds)."""
    visit = 1 / kernel.efficiency
    share = np.array([kernel.prologue_us / visit, 1.0, kernel.masked_overhead])
    return _critical(row, device, share)


def _critical(row: Measured, device: Device, share: np.ndarray) -> np.ndarray:
    """Prologues, visits (in ideal microseconds) and masked visits of the SM that is done last."""
    counts = count(row.pattern, row.tiling)
    problem = Problem.of(row.pattern, HEAD_DIM)
    visits = visits_in_order(counts, problem.heads * problem.batch)
    each, _ = visit_us(row.tiling.sizes, problem, device)
    masked = bool(counts.partial)
    work = visits * each
    last = last_sm(share[0] + work * (1 + share[2] * masked), device.sms)
    done = work[last].sum()
    return np.array([last.size, done, done * masked])


def _non_negative(design: np.ndarray) -> np.ndarray:
    """Least squares to 1, the prologue and the overhead not below 0."""
    solution = np.linalg.lstsq(design, np.ones(len(design)), rcond=None)[0]
    for column in (0, 2):
        if solution[column] < 0:
            rest = [i for i in range(3) if i != column]
            solution[column] = 0.0
            solution[rest] = np.linalg.lstsq(design[:, rest], np.ones(len(design)), rcond=None)[0]
    return solution

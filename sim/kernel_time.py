r"""How long an attention kernel takes: tiles to clocks, clocks to microseconds, CTAs onto SMs.

Of a visited tile of T_Q queries and T_KV keys, head dimension d, e bytes an element:

    tensor cores  4 T_Q T_KV d / (operations per clock and SM)
    exponentials  T_Q T_KV / (exponentials per clock and SM)
    shared memory (T_Q + 2 T_KV) d e / (bytes per clock and SM)

The slowest of the three at the device's clock, over the kernel's efficiency, is the time of a visit;
1 + μ times that where the kernel masks. A CTA takes its prologue and its visits. CTAs fill the SMs
in launch order. The kernel is never faster than its bytes through HBM (and L2, where a figure is
given).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsf.errors import InvalidInput

from .counts import Counts
from .device import Device
from .pattern import Pattern
from .schedule import makespan, visits_in_order
from .tiling import Tiling


@dataclass(frozen=True)
class Kernel:
    """What a kernel makes of a device: fitted to measurements (`dsf.sim.calibration`) or given.

    `efficiency`: the share of the slowest unit's peak that a visit reaches. `prologue_us` of a CTA.
    `masked_overhead`: μ. `launch_us`: once per kernel. `permute_share`: the part of HBM bandwidth that
    token permutation reaches (None: as measured on a device of the table). `source`: where from.
    """

    efficiency: float
    prologue_us: float
    masked_overhead: float
    launch_us: float = 0.0
    permute_share: float | None = None
    source: str = "given"

    def __post_init__(self) -> None:
        if not 0 < self.efficiency <= 1.5:
            raise InvalidInput(f"efficiency must be in (0, 1.5]; {self.efficiency} was given")
        for key in ("prologue_us", "masked_overhead", "launch_us"):
            if not getattr(self, key) >= 0:
                raise InvalidInput(f"{key} must not be negative; {getattr(self, key)} was given")


@dataclass(frozen=True)
class Problem:
    """What the pattern is run on: head dimension, batch entries, heads and bytes per element."""

    head_dim: int = 128
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    element_bytes: int = 2

    def __post_init__(self) -> None:
        for key in ("head_dim", "batch", "heads", "kv_heads", "element_bytes"):
            if getattr(self, key) < 1:
                raise InvalidInput(f"{key} must be at least 1; {getattr(self, key)} was given")

    @classmethod
    def of(
        cls, pattern: Pattern, head_dim: int = 128, batch: int = 1, element_bytes: int = 2
    ) -> Problem:
        return cls(head_dim, batch, pattern.heads, pattern.kv_heads, element_bytes)


@dataclass(frozen=True)
class KernelTime:
    """Milliseconds of one kernel; `limit` names what it waits for, `waves` are CTAs over SMs."""

    ms: float
    floor_ms: float
    limit: str
    waves: float
    hbm_bytes: int
    l2_bytes: int


def visit_us(sizes: tuple[int, int], problem: Problem, device: Device) -> tuple[float, str]:
    """Microseconds of a visit at full efficiency, and the unit that sets it.

    >>> from dsf.sim.device import DEVICES
    >>> us, unit = visit_us((256, 128), Problem(), DEVICES["B200"])
    >>> round(us, 3), unit
    (1.101, 'tensor cores')
    """
    q, kv = sizes
    clocks = {
        "tensor cores": 4 * q * kv * problem.head_dim / device.flops_per_clock,
        "exponentials": q * kv / device.exp_per_clock,
        "shared memory": (q + 2 * kv)
        * problem.head_dim
        * problem.element_bytes
        / device.smem_bytes_per_clock,
    }
    unit = max(clocks, key=lambda name: clocks[name])
    return clocks[unit] / device.clock_ghz / 1e3, unit


def kernel_time(
    counts: Counts, tiling: Tiling, problem: Problem, device: Device, kernel: Kernel
) -> KernelTime:
    """Predict a kernel from the counts of its pattern."""
    visits = visits_in_order(counts, problem.heads * problem.batch)
    masked = 1 + kernel.masked_overhead * bool(counts.partial)
    each, limit = visit_us(tiling.sizes, problem, device)
    durations = kernel.prologue_us + visits * (each / kernel.efficiency * masked)
    return _limited(durations, limit, counts, tiling, problem, device, kernel)


def dense_time(
    counts: Counts, tiling: Tiling, problem: Problem, device: Device, kernel: Kernel
) -> KernelTime:
    """The same kernel on dense attention over the same tokens, unmasked and unpadded."""
    each, limit = visit_us(tiling.sizes, problem, device)
    duration = kernel.prologue_us + counts.dense_kv_tiles * each / kernel.efficiency
    ctas = counts.dense_q_tiles * problem.heads * problem.batch
    return _limited(np.full(ctas, duration), limit, counts, tiling, problem, device, kernel)


def permute_ms(
    pattern: Pattern, tiling: Tiling, problem: Problem, device: Device, share: float
) -> float:
    """Token permutation of q, k, v and back of the output: read and written once each, padded.

    `share` is the part of HBM bandwidth that the permutation reaches.
    """
    rows = zip(pattern.axes, tiling.q, tiling.kv, strict=True)
    padded_q = padded_kv = 1
    for axis, q, kv in rows:
        longest = axis.groups[0][0]
        padded_q *= -(-longest // q) * q * axis.dilation
        padded_kv *= -(-longest // kv) * kv * axis.dilation
    tokens = 2 * (padded_q * problem.heads + padded_kv * problem.kv_heads)
    moved = 2 * tokens * problem.batch * problem.head_dim * problem.element_bytes
    return moved / (share * device.hbm_tb_s * 1e9)


def _limited(
    durations: np.ndarray,
    limit: str,
    counts: Counts,
    tiling: Tiling,
    problem: Problem,
    device: Device,
    kernel: Kernel,
) -> KernelTime:
    span = makespan(durations, device.sms)
    row = problem.head_dim * problem.element_bytes * problem.batch
    kv_size = tiling.sizes[1]
    queries, keys = counts.queries, counts.keys
    hbm = 2 * row * (queries * problem.heads + keys * problem.kv_heads)
    l2 = 2 * row * problem.heads * (queries + counts.padded_visited * kv_size)
    times = {limit: span.time / 1e3, "HBM": hbm / device.hbm_tb_s / 1e9}
    if device.l2_tb_s is not None:
        times["L2"] = l2 / device.l2_tb_s / 1e9
    slowest = max(times, key=lambda name: times[name])
    floor = max(span.floor / 1e3, *(ms for name, ms in times.items() if name != limit))
    launch = kernel.launch_us / 1e3
    waves = durations.size / device.sms
    return KernelTime(times[slowest] + launch, floor + launch, slowest, waves, hbm, l2)

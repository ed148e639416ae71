"""Devices as rows of data: what limits a kernel, each figure with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from dsf.errors import InvalidInput

_BLACKWELL = "chipsandcheese.com, Nvidia's B200, 2025"
_HOPPER = "NVIDIA H100 white paper, as listed at glennklockwood.com/garden/processors/h100"
_AMPERE = "NVIDIA A100 white paper"
_FA4 = "FlashAttention-4 (2026), section on Blackwell: 16 per clock and SM, as on Hopper"
_RECALLED = "from memory, not looked up"


@dataclass(frozen=True)
class Device:
    """One accelerator: dense tensor-core peak (no structured sparsity), per SM and clock.

    `flops_per_clock`: of bf16 multiply-adds counted twice, per SM. `exp_per_clock` exponentials and
    `smem_bytes_per_clock` shared-memory bytes, per SM. `hbm_tb_s` and `l2_tb_s` in 10^12 bytes per
    second (`l2_tb_s` None: no figure with a source, so no L2 limit). `link_gb_s`: to other devices,
    both directions together. `sources` names where each figure is from.

    >>> round(DEVICES["B200"].tensor_tflops)
    2255
    """

    name: str
    sms: int
    clock_ghz: float
    flops_per_clock: int
    exp_per_clock: int
    smem_bytes_per_clock: int
    hbm_tb_s: float
    memory_gb: float
    link_gb_s: float
    l2_tb_s: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int | float) and not value > 0:
                raise InvalidInput(
                    f"device {self.name}: {entry.name} must be positive; {value} was given"
                )

    @property
    def tensor_tflops(self) -> float:
        """10^12 dense bf16 operations per second at the boost clock."""
        return self.sms * self.flops_per_clock * self.clock_ghz / 1e3


_HOPPER_SOURCES = {
    "sms": _HOPPER,
    "clock_ghz": _HOPPER + " (1.83 GHz at low precision)",
    "flops_per_clock": _HOPPER + ": 989.4 TFLOP/s over 132 SMs at 1.83 GHz",
    "exp_per_clock": _FA4,
    "smem_bytes_per_clock": "FlashAttention-4 (2026): 128 bytes per clock and SM",
    "link_gb_s": _HOPPER,
}

_ROWS = (
    Device(
        "A100",
        sms=108,
        clock_ghz=1.41,
        flops_per_clock=2048,
        exp_per_clock=16,
        smem_bytes_per_clock=128,
        hbm_tb_s=2.04,
        memory_gb=80,
        link_gb_s=600,
        sources={
            "sms": _AMPERE,
            "clock_ghz": _AMPERE,
            "flops_per_clock": _AMPERE + ": 312 TFLOP/s over 108 SMs at 1.41 GHz",
            "hbm_tb_s": _AMPERE + ", SXM 80 GB",
            "memory_gb": _AMPERE + ", SXM 80 GB",
            "link_gb_s": _AMPERE,
            "exp_per_clock": _RECALLED,
            "smem_bytes_per_clock": _RECALLED,
        },
    ),
    Device(
        "H100",
        sms=132,
        clock_ghz=1.83,
        flops_per_clock=4096,
        exp_per_clock=16,
        smem_bytes_per_clock=128,
        hbm_tb_s=3.35,
        memory_gb=80,
        link_gb_s=900,
        sources={**_HOPPER_SOURCES, "hbm_tb_s": _HOPPER, "memory_gb": _HOPPER},
    ),
    Device(
        "H200",
        sms=132,
        clock_ghz=1.83,
        flops_per_clock=4096,
        exp_per_clock=16,
        smem_bytes_per_clock=128,
        hbm_tb_s=4.8,
        memory_gb=141,
        link_gb_s=900,
        sources={
            **_HOPPER_SOURCES,
            "hbm_tb_s": "NVIDIA H200 data sheet",
            "memory_gb": "NVIDIA H200 data sheet",
        },
    ),
    Device(
        "B200",
        sms=148,
        clock_ghz=1.86,
        flops_per_clock=8192,
        exp_per_clock=16,
        smem_bytes_per_clock=128,
        hbm_tb_s=8.0,
        memory_gb=180,
        link_gb_s=1800,
        sources={
            "sms": _BLACKWELL,
            "clock_ghz": "2250 TFLOP/s over 148 SMs at 8192 operations per clock",
            "flops_per_clock": _RECALLED + "; twice Hopper's",
            "exp_per_clock": _FA4,
            "smem_bytes_per_clock": "FlashAttention-4 (2026): 128 bytes per clock and SM",
            "hbm_tb_s": "NVIDIA B200 data sheet: up to 8 TB/s",
            "memory_gb": "NVIDIA B200 data sheet: 180 GB to 192 GB",
            "link_gb_s": "NVIDIA B200 data sheet",
        },
    ),
)

DEVICES: dict[str, Device] = {row.name: row for row in _ROWS}


def device(name: str) -> Device:
    """The row of that name; raises `InvalidInput` naming the rows there are.

    >>> device("h200").hbm_tb_s
    4.8
    """
    for row in _ROWS:
        if row.name.lower() == name.lower():
            return row
    raise InvalidInput(f"device {name!r} is not known; there are {', '.join(DEVICES)}")

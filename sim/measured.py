"""Measured kernels: rows that the time model is fitted to and judged by.

Source: NATTEN repository, commit 8c8729f (2026-07-23), docs/sample-outputs and docs/profiler.md.
Head dimension 128, fp16, batch 1; 24 heads in two and three axes, 1 in one. The time is of the
attention kernel alone, `permute_ms` of the token permutation around it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .pattern import Pattern
from .tiling import Tiling

HEAD_DIM = 128


@dataclass(frozen=True)
class Measured:
    """One kernel run: device, pattern, tiling, milliseconds, and the file it was read from."""

    device: str
    pattern: Pattern
    tiling: Tiling
    ms: float
    file: str
    permute_ms: float | None = None

    @property
    def rank(self) -> int:
        return self.pattern.rank


def _line(stride: int) -> Pattern:
    return Pattern(32768, 2048, stride)


def _flux(stride: int) -> Pattern:
    return Pattern((256, 256), 80, stride, heads=24)


def _hunyuan(*stride: int) -> Pattern:
    return Pattern((30, 48, 80), (18, 24, 24), stride, heads=24)


_B1, _H1 = Tiling(256, 128), Tiling(128, 128)
_B2, _H2 = Tiling((16, 16), (16, 8)), Tiling((16, 8), (16, 8))
_B3, _H3 = Tiling((4, 8, 8), (2, 8, 8)), Tiling((2, 8, 8), (2, 8, 8))

ROWS: tuple[Measured, ...] = (
    Measured("B200", _line(1), _B1, 0.058111, "profiler-1d-32k-w2k-blackwell-fna-b200.txt"),
    Measured("B200", _line(256), _B1, 0.037888, "profiler-1d-32k-w2k-s256-blackwell-fna-b200.txt"),
    Measured("B200", _line(2048), _B1, 0.038240, "profiler-1d-32k-w2k-s2k-blackwell-fna-b200.txt"),
    Measured("B200", _flux(1), _B2, 8.692, "profiler-2d-flux-na-blackwell-fna-b200.txt", 2.239),
    Measured("B200", _flux(16), _B2, 4.114, "profiler-2d-flux-gna-blackwell-fna-b200.txt", 2.275),
    Measured(
        "B200",
        _hunyuan(1, 1, 1),
        _B3,
        42.243,
        "profiler-3d-hunyuan-na-blackwell-fna-b200.txt",
        4.919,
    ),
    Measured(
        "B200",
        _hunyuan(16, 8, 8),
        _B3,
        13.010,
        "profiler-3d-hunyuan-gna-blackwell-fna-b200.txt",
        5.321,
    ),
    Measured("H100", _line(1), _H1, 0.094848, "profiler-1d-32k-w2k-hopper-fna-h100.txt"),
    Measured("H100", _line(256), _H1, 0.062687, "profiler-1d-32k-w2k-s256-hopper-fna-h100.txt"),
    Measured("H100", _line(2048), _H1, 0.059264, "profiler-1d-32k-w2k-s2k-hopper-fna-h100.txt"),
    Measured("H100", _flux(1), _H2, 16.201, "profiler-2d-flux-na-hopper-fna-h100.txt", 2.402),
    Measured("H100", _flux(16), _H2, 7.914, "profiler-2d-flux-gna-hopper-fna-h100.txt", 2.687),
    Measured(
        "H100", _hunyuan(1, 1, 1), _H3, 79.043, "profiler-3d-hunyuan-na-hopper-fna-h100.txt", 5.374
    ),
    Measured(
        "H100",
        _hunyuan(16, 8, 8),
        _H3,
        23.359,
        "profiler-3d-hunyuan-gna-hopper-fna-h100.txt",
        5.750,
    ),
)

DENSE_MS: dict[tuple[str, int], float] = {
    ("B200", 1): 0.424766,
    ("B200", 2): 43.313,
    ("B200", 3): 135.265,
    ("H100", 1): 0.787392,
    ("H100", 2): 97.435,
    ("H100", 3): 283.327,
}
"""cuDNN's dense attention over the same tokens, by device and number of axes (profiler-*-cudnn-*.txt)."""

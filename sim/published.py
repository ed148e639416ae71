"""Published figures, row by row: what the claims and the tables of the documentation compare with."""

from __future__ import annotations

from dataclasses import dataclass

from .end_to_end import Run
from .pattern import Pattern
from .tiling import Tiling


@dataclass(frozen=True)
class UseCase:
    """A model: its token layout, window, tiles, attention's share of its time, its steps.

    `tiles_stated`: whether the paper states the tiles, or they are the shipped pair that fits.
    """

    name: str
    slug: str
    layout: tuple[int, ...]
    window: tuple[int, ...]
    tiling: Tiling
    share: float
    steps: int
    tiles_stated: bool


@dataclass(frozen=True)
class EndToEndRow:
    """One row of the paper's tables: the end-to-end speed-ups that it prints, to two decimals.

    `flop` and `simulated` are bounds, `measured` is the run. Dense attention was kept in
    `dense_steps` of the use case's steps.
    """

    use_case: UseCase
    stride: tuple[int, ...]
    dense_steps: int
    flop: float
    simulated: float
    measured: float

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.use_case.layout, self.use_case.window, self.stride)

    @property
    def run(self) -> Run:
        return Run(self.use_case.share, self.use_case.steps, self.dense_steps, paper_rounding=True)


FLUX = UseCase(
    "FLUX-1.dev at 4K", "flux", (256, 256), (80, 80), Tiling((16, 16), (16, 8)), 0.518, 28, False
)
COSMOS = UseCase(
    "Cosmos-7B",
    "cosmos",
    (16, 44, 80),
    (16, 32, 48),
    Tiling((8, 4, 8), (4, 4, 8)),
    0.587,
    35,
    False,
)
# 65.4 % of the transformer, which is 92.8 % of the run; the paper's table prints 60.7 %.
HUNYUAN = UseCase(
    "HunyuanVideo",
    "hunyuan",
    (30, 48, 80),
    (18, 24, 24),
    Tiling((4, 8, 8), (2, 8, 8)),
    0.654 * 0.928,
    50,
    True,
)

_STRIDES = ((1, 1, 1), (2, 1, 1), (1, 1, 8), (2, 1, 8), (1, 8, 8), (2, 8, 8), (16, 8, 8))
_SIMULATED = {
    0: (1.73, 1.78, 1.99, 2.02, 2.17, 2.20, 2.23),
    15: (1.42, 1.44, 1.53, 1.55, 1.61, 1.62, 1.63),
}
_MEASURED = {
    0: (1.73, 1.77, 1.95, 1.98, 2.09, 2.11, 2.23),
    15: (1.42, 1.44, 1.51, 1.54, 1.58, 1.59, 1.63),
}

FLUX_ROWS = (
    EndToEndRow(FLUX, (1, 1), 0, 1.88, 1.76, 1.65),
    EndToEndRow(FLUX, (16, 16), 0, 1.88, 1.88, 1.82),
    EndToEndRow(FLUX, (1, 1), 9, 1.46, 1.42, 1.37),
    EndToEndRow(FLUX, (16, 16), 9, 1.46, 1.46, 1.45),
)
COSMOS_ROWS = (
    EndToEndRow(COSMOS, (1, 1, 1), 0, 1.50, 1.35, 1.18),
    EndToEndRow(COSMOS, (1, 8, 1), 0, 1.50, 1.42, 1.20),
    EndToEndRow(COSMOS, (1, 1, 16), 0, 1.50, 1.42, 1.21),
    EndToEndRow(COSMOS, (1, 8, 16), 0, 1.50, 1.50, 1.46),
    EndToEndRow(COSMOS, (1, 1, 1), 12, 1.28, 1.21, 1.11),
    EndToEndRow(COSMOS, (1, 8, 1), 12, 1.28, 1.24, 1.12),
    EndToEndRow(COSMOS, (1, 1, 16), 12, 1.28, 1.24, 1.13),
    EndToEndRow(COSMOS, (1, 8, 16), 12, 1.28, 1.28, 1.26),
)
HUNYUAN_ROWS = tuple(
    EndToEndRow(HUNYUAN, stride, dense, flop, _SIMULATED[dense][i], _MEASURED[dense][i])
    for dense, flop in ((0, 2.23), (15, 1.63))
    for i, stride in enumerate(_STRIDES)
)
END_TO_END = FLUX_ROWS + COSMOS_ROWS + HUNYUAN_ROWS


@dataclass(frozen=True)
class BlockRow:
    """A published share of tiles: `dense` full ones, `mixed` partial ones, of all, in percent."""

    name: str
    pattern: Pattern
    tiling: Tiling
    dense_percent: float
    mixed_percent: float
    decimals: int


_CUBE = Tiling((4, 4, 4), (4, 4, 4))

# Zhang et al. 2025 (arXiv 2502.04507), table of block ratios: 48^3 tokens, tiles of 4^3.
BLOCK_ROWS = (
    BlockRow("sta-12", Pattern((48,) * 3, 12, 4), _CUBE, 1.56, 0.0, 2),
    BlockRow("sta-20", Pattern((48,) * 3, 20, 4), _CUBE, 7.23, 0.0, 2),
    BlockRow("tiled-natten-11", Pattern((48,) * 3, 11, 1), _CUBE, 0.06, 7.17, 2),
)

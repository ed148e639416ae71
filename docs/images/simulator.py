"""Draw the pictures of docs/simulator.md: python docs/images/simulator.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from dsf.sim import Pattern, Tiling, plots
from dsf.sim.published import HUNYUAN
from dsf.sim.search import sweep

HERE = Path(__file__).parent
VIDEO = Pattern(HUNYUAN.layout, HUNYUAN.window)
LINE, LINE_TILES = Pattern(96, 24), Tiling(8, 8)


def figures() -> dict:
    """Every picture by its file's name."""
    strided = Pattern(96, 24, 8)
    return {
        "simulator-stride-1": plots.block_map(LINE, LINE_TILES),
        "simulator-stride-8": plots.block_map(strided, LINE_TILES),
        "simulator-strides": plots.stride_bars(),
        "simulator-front": plots.pareto(sweep(VIDEO, HUNYUAN.tiling)),
        "simulator-heat": plots.tile_heat(VIDEO, HUNYUAN.tiling),
    }


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "dsf"
    for name, figure in figures().items():
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

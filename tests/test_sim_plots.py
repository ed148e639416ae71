"""Pictures show what was counted; the committed ones have a script that draws them."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from dsf.sim import Pattern, Tiling, count, plots
from dsf.sim.search import front, sweep

PLANE, TILES = Pattern((12, 20), (6, 9), (2, 3)), Tiling((4, 4), (2, 4))
IMAGES = Path(__file__).parents[1] / "docs" / "images"


def test_a_block_map_has_the_tiles_that_are_counted() -> None:
    figure, counts = plots.block_map(PLANE, TILES), count(PLANE, TILES)
    shade = np.asarray(figure.axes[0].images[0].get_array())
    assert (shade > 0).sum() == counts.visited and (shade == 2).sum() == counts.full


def test_a_heat_map_has_the_visits_of_every_query_tile() -> None:
    heat = np.asarray(plots.tile_heat(PLANE, TILES).axes[0].images[0].get_array())
    assert heat.sum() == count(PLANE, TILES).visited and heat.shape == (3, 5)
    assert plots.tile_heat(Pattern(24, 8), Tiling(4, 4)).axes[0].images[0].get_array().shape == (
        1,
        6,
    )


def test_bars_have_the_bounds_of_the_papers_strides() -> None:
    bars = plots.stride_bars().axes[0].patches
    assert [round(bar.get_height(), 2) for bar in bars[:7]] == [
        3.27,
        3.6,
        5.45,
        6.0,
        9.09,
        10.0,
        11.11,
    ]
    assert round(bars[13].get_height(), 2) == 10.42


def test_a_pareto_plot_marks_the_front() -> None:
    found = sweep(PLANE, TILES)
    (line,) = plots.pareto(found).axes[0].lines
    best = front([found])
    assert list(line.get_ydata()) == [one.worst_tile for one in best]
    assert list(line.get_xdata()) == [one.stride_product for one in best]


def test_a_roofline_has_its_patterns_under_the_roof() -> None:
    patterns = [Pattern(32768, 2048), Pattern(32768, 2048, 256)]
    roof, *points = plots.roofline(patterns, Tiling(256, 128)).axes[0].lines
    assert len(points) == 2
    for point in points:
        at, height = point.get_xdata()[0], point.get_ydata()[0]
        assert height <= np.interp(at, roof.get_xdata(), roof.get_ydata())


def test_the_committed_pictures_are_those_of_the_script() -> None:
    names = set(runpy.run_path(str(IMAGES / "simulator.py"))["figures"]())
    assert names == {path.stem for path in IMAGES.glob("simulator-*.svg")}
    page = (IMAGES.parent / "simulator.md").read_text(encoding="utf-8")
    assert all(f"images/{name}.svg" in page for name in names)

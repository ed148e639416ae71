"""What the interpreter's tests share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from memory_bounds import within_bounds

from dsf.kernels.contract import Tile
from dsf.kernels.scans import channel, elementwise, selective


def narrow(of_all: Callable[..., Tile]) -> Callable[..., Tile]:
    """Tiles of four channels at most: the interpreter's prefixes take a time for each number of a tile."""

    def tile_for(*given: object) -> Tile:
        tile = of_all(*given)
        channels = {
            name: min(4, int(tile.constants[name]))
            for name in ("BC", "BD", "LD")
            if name in tile.constants
        }
        return replace(tile, constants={**tile.constants, **channels})

    return tile_for


@pytest.fixture(autouse=True)
def memory_of_tensors() -> Iterator[None]:
    """No program reads or writes outside the tensors it was given."""
    with within_bounds():
        yield


@pytest.fixture(autouse=True)
def quiet_overflow(recwarn: pytest.WarningsRecorder) -> None:
    """What overflows above the diagonal of a chunk is left out, and no cause for a warning."""
    warnings.filterwarnings("ignore", "overflow encountered in exp2", RuntimeWarning)


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans run on fewer channels at once than on a GPU."""
    for module in (channel, selective, elementwise):
        monkeypatch.setattr(module, "tile_for", narrow(module.tile_for))

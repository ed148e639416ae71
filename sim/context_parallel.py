"""One axis of the layout split over several devices: what each must fetch, and who works most."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from dsf.errors import InvalidInput

from .axis import Axis
from .axis_counts import count_axis
from .kernel_time import Problem
from .pattern import Pattern
from .tiling import Tiling


@dataclass(frozen=True)
class Rank:
    """One device: the tokens [start, stop) of the axis, the keys it needs, its halo and its work."""

    start: int
    stop: int
    first_key: int
    last_key: int
    halo_bytes: int
    visits: int


@dataclass(frozen=True)
class Split:
    """All devices; `balance` is mean work over most work, `gather_bytes` what fetching all costs.

    Bytes are those that one device receives, keys and values together.
    """

    ranks: tuple[Rank, ...]
    gather_bytes: int

    @property
    def balance(self) -> float:
        visits = [rank.visits for rank in self.ranks]
        return sum(visits) / len(visits) / max(visits)

    @property
    def halo_bytes(self) -> int:
        return max(rank.halo_bytes for rank in self.ranks)


def split(pattern: Pattern, tiling: Tiling, problem: Problem, axis: int, devices: int) -> Split:
    """Split the tokens of an axis evenly, in whole query tiles, over devices in a row.

    A device with tokens [x, y) needs the keys [start(x), end(y - 1)) of that axis. Extra keys are
    on every device. Raises `InvalidInput` where the axis is dilated or has fewer tiles than devices.

    >>> found = split(Pattern(32768, 2048), Tiling(256, 128), Problem(), axis=0, devices=4)
    >>> [(rank.first_key, rank.last_key) for rank in found.ranks][:2], found.halo_bytes
    ([(0, 9215), (7168, 17407)], 1048064)
    """
    tiling.check(pattern.layout)
    if not 0 <= axis < pattern.rank:
        raise InvalidInput(f"axis {axis} was given; the layout has axes 0 to {pattern.rank - 1}")
    line, q, kv = pattern.axes[axis], tiling.q[axis], tiling.kv[axis]
    tiles = -(-line.length // q)
    if line.dilation > 1:
        raise InvalidInput(
            f"{line.name} has dilation {line.dilation}, so that neighbours are far apart: split "
            "another axis, or its dilation groups"
        )
    if not 1 <= devices <= tiles:
        raise InvalidInput(
            f"{devices} devices were given for {tiles} query tiles along {line.name}; "
            f"there can be 1 to {tiles}"
        )
    others = [i for i in range(pattern.rank) if i != axis]
    beside = prod(
        count_axis(pattern.axes[i], tiling.q[i], tiling.kv[i], tiling.dynamic).visited
        for i in others
    )
    q_beside = prod(-(-pattern.layout[i] // tiling.q[i]) for i in others)
    extra = -(-pattern.extra_keys // tiling.sizes[1])
    row = 2 * problem.batch * problem.kv_heads * problem.head_dim * problem.element_bytes
    slab = row * prod(pattern.layout[i] for i in others)
    ranks = []
    for device in range(devices):
        low, high = (tiles * n // devices for n in (device, device + 1))
        start, stop = low * q, min(high * q, line.length)
        first, last = line.interval(start, line.length)[0], line.interval(stop - 1, line.length)[1]
        halo = (last - first) - max(min(stop, last) - max(start, first), 0)
        visits = sum(
            _visits(line, at, min(at + q, stop), kv, tiling.dynamic) for at in range(start, stop, q)
        )
        work = visits * beside + (high - low) * q_beside * extra
        ranks.append(Rank(start, stop, first, last, halo * slab, work))
    return Split(tuple(ranks), slab * line.length * (devices - 1) // devices)


def _visits(line: Axis, start: int, stop: int, kv: int, dynamic: bool) -> int:
    first = line.interval(start, line.length)[0]
    last = line.interval(stop - 1, line.length)[1]
    return -(-(last - first) // kv) if dynamic else -(-last // kv) - first // kv

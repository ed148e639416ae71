r"""From the speed-up of attention to that of a whole model, by Amdahl's law.

Of a run, attention takes the share f = share · (steps - dense steps) / steps; the rest is unchanged:

    end to end = 1 / (1 - Σ f_j + Σ f_j / s_j)

over layers (or groups of layers) j whose attention becomes s_j times faster.

Source: Hassani et al. 2025 (arXiv 2504.16922), section 5; its tables round s to one decimal first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import floor

from dsf.errors import InvalidInput

from .bounds import Bounds

KEYS = ("flop", "worst_tile", "mean_tile", "padding_aware", "masked_tile")


@dataclass(frozen=True)
class Run:
    """A run of a model: attention's share of its time, its steps, and those left dense.

    `paper_rounding` rounds every speed-up to one decimal first, as the paper's tables do.
    """

    share: float
    steps: int = 1
    dense_steps: int = 0
    paper_rounding: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput(f"share must be in [0, 1]; {self.share} was given")
        if self.steps < 1 or not 0 <= self.dense_steps <= self.steps:
            raise InvalidInput(
                f"steps must be at least 1 and dense_steps between 0 and steps; {self.steps} and "
                f"{self.dense_steps} were given"
            )

    @property
    def fraction(self) -> float:
        """The part of the time that a faster attention shortens."""
        return self.share * (self.steps - self.dense_steps) / self.steps


def end_to_end(run: Run, speedup: float) -> float:
    """The speed-up of the whole run where all attention becomes `speedup` times faster.

    >>> hunyuan = Run(0.654 * 0.928, steps=50, paper_rounding=True)
    >>> round(end_to_end(hunyuan, 900 / 275), 2), round(end_to_end(hunyuan, 900 / 81), 2)
    (1.73, 2.23)
    """
    return layers_end_to_end(run, [(1.0, speedup)])


def layers_end_to_end(run: Run, layers: Sequence[tuple[float, float]]) -> float:
    """The same for layers of different patterns: (part of all attention time, speed-up) each.

    Parts that add up to less than 1 leave the rest of attention as it is.

    >>> layers_end_to_end(Run(0.5), [(0.5, 10.0), (0.25, 4.0)])
    1.4678899082568806
    """
    parts = [part for part, _ in layers]
    if min(parts, default=0) < 0 or sum(parts) > 1 + 1e-9:
        raise InvalidInput(f"the layers' parts must not add up to more than 1; {parts} were given")
    if any(not speedup > 0 for _, speedup in layers):
        raise InvalidInput("every speed-up must be positive")
    used = [(part, _round(s) if run.paper_rounding else s) for part, s in layers]
    saved = sum(part * (1 - 1 / s) for part, s in used)
    return 1 / (1 - run.fraction * saved)


def bounds_end_to_end(run: Run, found: Bounds) -> dict[str, float]:
    """The whole run's speed-up under each bound, by the bound's name."""
    speeds = asdict(found)
    return {key: end_to_end(run, speeds[key]) for key in KEYS}


def _round(speedup: float) -> float:
    return floor(speedup * 10 + 0.5) / 10

"""A system: one linear recurrence, frozen, checked when it is built, and never run here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from dsf.coupling import Coupling, DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.structure import Structure

Timing = Literal["after", "before", "end"]


@dataclass(frozen=True)
class Normaliser:
    r"""Division of the read-out by what the same read-out gives for values of one.

    With n_i = Λ_i n_{i-1} + Σ_r b_{i,r} and η_i = c_i · n_i, the output is C_i h_i / η_i, or
    C_i h_i / max(|η_i|, `floor`) where a floor is given (mLSTM: 1). The gauge is the read-out's: the
    state holds the numerator and n apart. `dsf.gauges` moves η into the state and back.
    """

    floor: float | None = None

    def __post_init__(self) -> None:
        if self.floor is not None and not self.floor > 0:
            raise InvalidInput(f"`floor` must be positive, or None for no floor; got {self.floor}")


@dataclass(frozen=True, eq=False)
class System:
    r"""h_i = Λ_i h_{i-1} + B_i u_i,  y_i = C_i h_i + D_i u_i + offset_i.

    | field         | symbol | meaning                                                              |
    |---------------|--------|----------------------------------------------------------------------|
    | `transition`  | Λ      | a structure with leading axes (B, T, H)                              |
    | `write`       | B      | a coupling with leading axes (B, T, H)                               |
    | `read`        | C      | a coupling with leading axes (B, T, H)                               |
    | `feedthrough` | D      | a structure on the value axis, or None for 0                         |
    | `offset`      | –      | added to the output, broadcast against (B, T, H, V)                  |
    | `timing`      | –      | "after": y_i reads h_i; "before": h_{i-1}; "end": every query reads h_T |
    | `normaliser`  | η      | division at the read-out, or None                                    |
    | `log_write`   | ĩ      | log of a write gate (B, T, H): B_i becomes e^{ĩ_i} B_i, with a running maximum |
    | `real_part`   | Re     | the output is the real part (a complex state driven by real values)  |
    | `boundaries`  | –      | packed sequences: their start positions and the end, (0, …, T), with B = 1 |

    Axes of size 1 in B, T and H broadcast; a system whose leaves all have T = 1 is time-invariant
    and runs at any length. With timing "end" the read-out belongs to a separate stream of queries
    and may have a length of its own.

    Raises `InvalidInput` where shapes or options do not fit together.
    """

    transition: Structure
    write: Coupling
    read: Coupling
    feedthrough: Structure | None = None
    offset: Tensor | None = None
    timing: Timing = "after"
    normaliser: Normaliser | None = None
    log_write: Tensor | None = None
    real_part: bool = False
    boundaries: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        from dsf.validation import check_system  # validation speaks about System itself

        check_system(self)

    # -- sizes ---------------------------------------------------------------------------------

    @property
    def is_vector(self) -> bool:
        """True where the state is a vector (dense couplings)."""
        return isinstance(self.write, DenseCoupling)

    @property
    def key_size(self) -> int:
        """K, or N for a vector state."""
        if isinstance(self.write, DenseCoupling):
            return self.write.weights.shape[-2]
        return self.write.key_size

    @property
    def value_size(self) -> int | None:
        """V where the system fixes it, otherwise None."""
        if isinstance(self.write, DenseCoupling):
            return self.write.weights.shape[-1]
        return self.write.value_size or self.read.value_size or self.transition.value_size

    @property
    def writes(self) -> int | None:
        """R, the number of value vectors written per step, or None for one without its own axis."""
        return self.write.several if isinstance(self.write, OuterCoupling) else None

    @property
    def lead(self) -> torch.Size:
        """(B, T, H) of the memory stream, with 1 where nothing fixes a size."""
        return torch.broadcast_shapes(
            (1, 1, 1), *(x.shape[: x.ndim - r] for x, r in self._memory_tensors())
        )

    @property
    def length(self) -> int | None:
        """T, or None for a time-invariant system, which runs at any length."""
        return None if self.lead[1] == 1 else self.lead[1]

    @property
    def is_time_invariant(self) -> bool:
        """True where Λ, B and C have no time axis to speak of (their T is 1)."""
        leads = [self.write.lead, self.read.lead]
        if self.transition.leaves:
            leads.append(self.transition.lead)
        return self.log_write is None and all(lead[1] == 1 for lead in leads)

    @property
    def dtype(self) -> torch.dtype:
        """The widest type of Λ, B and C."""
        dtype = self.write.tensors[0].dtype
        for leaf in (*self.write.tensors, *self.read.tensors, *self.transition.leaves):
            dtype = torch.promote_types(dtype, leaf.dtype)
        return dtype

    @property
    def is_complex(self) -> bool:
        return self.dtype.is_complex

    @property
    def device(self) -> torch.device:
        return self.write.tensors[0].device

    # -- pieces --------------------------------------------------------------------------------

    def __getitem__(self, window: slice) -> Self:
        """The steps `window` in time, for running piece by piece; the slice has no stride.

        With timing "end" only the memory stream is cut. Packed systems are cut by sequence, with
        `dsf.packing.unpack`.
        """
        if self.boundaries is not None:
            raise InvalidInput("a packed system cannot be sliced; use `dsf.packing.unpack` first")
        if not isinstance(window, slice) or window.step not in (None, 1):
            raise InvalidInput(f"slice a system with [start:stop]; got {window!r}")

        def cut(x: Tensor, axes: int) -> Tensor:
            axis = x.ndim - axes - 2
            return x if x.shape[axis] == 1 and self.length is None else _window(x, axis, window)

        return self._map_time(cut)

    def expand(self, length: int | None = None) -> Self:
        """The same system with every tensor expanded to the full (B, T, H); views, no copies.

        A time-invariant system needs `length`, and has that definite length from then on.
        """
        batch, own, heads = self.lead
        if length is not None and self.length not in (None, length):
            raise InvalidInput(f"`length` is {length}, but the system has T = {self.length}")
        time = own if length is None else length

        def full(x: Tensor, axes: int) -> Tensor:
            return x.expand(batch, time, heads, *x.shape[x.ndim - axes :])

        return self._map_time(full)

    def steps(self) -> Iterator[Self]:
        """The system of each single step, in order."""
        return (self[i : i + 1] for i in range(self.lead[1]))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor of the system (to move, cast, detach)."""
        return self._map_time(lambda x, _: function(x), reads=True)

    def replace(self, **changes: object) -> Self:
        """A copy with some fields changed, checked anew."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def _map_time(self, function: Callable[[Tensor, int], Tensor], reads: bool = False) -> Self:
        reads = reads or self.timing != "end"

        def of(x: Tensor | None, axes: int) -> Tensor | None:
            return None if x is None else function(x, axes)

        def own(coupling: Coupling) -> Coupling:
            return coupling.map(lambda x: function(x, x.ndim - 3))

        return replace(
            self,
            transition=self.transition.map(function),
            write=own(self.write),
            read=own(self.read) if reads else self.read,
            feedthrough=None if self.feedthrough is None else self.feedthrough.map(function),
            offset=of(self.offset, self.offset.ndim - 3)
            if reads and self.offset is not None
            else self.offset,
            log_write=of(self.log_write, 0),
        )

    def _memory_tensors(self) -> list[tuple[Tensor, int]]:
        """Every tensor of the memory stream with its number of trailing axes."""
        tensors = list(zip(self.transition.leaves, self.transition.trailing, strict=True))
        tensors += [(x, x.ndim - 3) for x in self.write.tensors]
        if self.log_write is not None:
            tensors.append((self.log_write, 0))
        if self.timing != "end":
            tensors += [(x, x.ndim - 3) for x in self.read.tensors]
            if self.feedthrough is not None:
                tensors += zip(self.feedthrough.leaves, self.feedthrough.trailing, strict=True)
            if self.offset is not None:
                tensors.append((self.offset, self.offset.ndim - 3))
        return tensors


def _window(x: Tensor, axis: int, window: slice) -> Tensor:
    if x.shape[axis] == 1:
        return x
    start, stop, _ = window.indices(x.shape[axis])
    return x.narrow(axis, start, max(0, stop - start))

"""Time cut into chunks: (B, T, H, …) and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import Structure

from .core import over_time


@dataclass(frozen=True)
class ChunkLayout:
    """(B, T, H, …) to (M, C, …) with M = N · B · H chunks, the first chunk of every sequence first.

    The end is padded with steps that change nothing.
    """

    length: int
    chunk: int

    @property
    def padding(self) -> int:
        return -self.length % self.chunk

    @property
    def chunks(self) -> int:
        """N, the number of chunks of one sequence."""
        return -(-self.length // self.chunk)

    def __call__(self, x: Tensor, neutral: Tensor | None = None) -> Tensor:
        x = over_time(x, self.length)
        if self.padding:
            shape = (x.shape[0], self.padding, *x.shape[2:])
            extra = x.new_zeros(shape) if neutral is None else neutral.expand(shape)
            x = torch.cat([x, extra], 1)
        x = x.unflatten(1, (self.chunks, self.chunk)).movedim(1, 0).movedim(3, 2)
        return x.flatten(0, 2)

    def structure(self, structure: Structure) -> Structure:
        """Every leaf in chunks, padded with the identity."""
        neutral = iter(structure.neutral())
        return structure.map(lambda leaf, _: self(leaf, next(neutral)))

    def streams(self, x: Tensor) -> list[Tensor]:
        """The R vectors of each step, (B, T, H, R, ·) or (B, T, H, ·), each as (M, C, ·)."""
        x = self(x)
        return [x] if x.ndim == 3 else list(x.unbind(2))

    def rows(self, x: Tensor) -> Tensor:
        """The same, one stream after another: (M, R C, ·)."""
        x = self(x)
        return x if x.ndim == 3 else x.transpose(1, 2).flatten(1, 2)

    def back(self, x: Tensor, lead: tuple[int, int], several: int | None) -> Tensor:
        """Rows (M, R C, V), one stream after another, to (B, T, H, [R,] V); `lead` is (B, H)."""
        streams = 1 if several is None else several
        x = x.view(self.chunks, *lead, streams, self.chunk, x.shape[-1])
        x = x.permute(1, 0, 4, 2, 3, 5).flatten(1, 2)[:, : self.length]
        return x[..., 0, :] if several is None else x

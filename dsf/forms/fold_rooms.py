"""Room for the fold of chunks under diagonal gates, cut into the halves that meet at each size."""

from __future__ import annotations

from torch import Tensor

# Blocks up to this size are taken row by row: torch is slow on a middle axis, or a batch of matrices, that small.
_BY_ROW = 2

# Products of blocks from this size on are as fast where the halves lie as in rows of their own.
_IN_PLACE = 16


class Half:
    """The halves (N, size, K) of one stream that meet halves of others.

    `place` is where they lie in the stream, `met` holds them as they were when they met.
    """

    def __init__(self, place: Tensor, met: Tensor) -> None:
        self.place, self.met, self.moves = place, met, met is not place
        self.place_rows, self.met_rows = place.unbind(1), met.unbind(1)


class Level:
    """The N pairs of neighbouring blocks of one size.

    `right` are the right blocks' reads and `left` the left blocks' writes; `lower` (M, B, size, size) is the
    part of each Gram matrix where the two meet, `block` (N, size, size) room for it in rows, and `total` (N, K)
    room for the product of both blocks.
    """

    def __init__(self, rooms: FoldRooms, size: int) -> None:
        self.size, self.by_row = size, size <= _BY_ROW
        like = rooms.onward[0]
        count = like.numel() // (2 * size * like.shape[2])

        def half(x: Tensor, which: int) -> Half:
            place = halves(x, size)[which]
            if rooms.keeps or not (self.by_row or size >= _IN_PLACE):
                return Half(place, like.new_empty(place.shape))
            return Half(place, place)

        self.right = [half(x, 1) for x in rooms.back]
        self.left = [half(x, 0) for x in rooms.onward]
        self.lower = [[lower_block(gram, size) for gram in row] for row in rooms.grams]
        self.block = rooms.block[: count * size * size].view(count, size, size)
        self.blocks = self.block.view(len(like), -1, size, size)
        self.cells = [row.split(1, 1) for row in self.block.unbind(1)] if self.by_row else []
        self.total = like.new_empty((count, like.shape[2]))
        if rooms.keeps:
            self.product = rooms.product.view(count, size, like.shape[2])
            self.of_totals = like.new_empty((2 * count, like.shape[2]))
            self.of_left, self.of_right = self.of_totals.view(count, 2, -1).unbind(1)


class FoldRooms:
    """Where a fold lies: `back` and `onward` (M, C, K), `grams` (M, C, C), and the levels.

    It is made once for all pieces of a run: small products cost less than the views that they need.
    """

    def __init__(self, back: list[Tensor], onward: list[Tensor], keeps: bool) -> None:
        self.back, self.onward, self.keeps = back, onward, keeps
        like = onward[0]
        count, chunk, _ = like.shape
        self.grams = [[like.new_empty((count, chunk, chunk)) for _ in onward] for _ in back]
        self.product = like.new_empty(like.numel() // 2)
        self.block = like.new_empty(count * chunk * chunk // 4)
        self.levels = [Level(self, 1 << n) for n in range(chunk.bit_length() - 1)]


def halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The left and right halves (N, size, K) of the blocks of 2 · size steps, as views."""
    left, right = x.view(-1, 2, size, x.shape[-1]).unbind(1)
    return left, right


def lower_block(gram: Tensor, size: int) -> Tensor:
    """The blocks (M, B, size, size) that pair a right half's reads with its left half's writes, a view."""
    count, chunk, _ = gram.shape
    shape = (count, chunk // (2 * size), size, size)
    strides = (chunk * chunk, 2 * size * (chunk + 1), chunk, 1)
    return gram.as_strided(shape, strides, gram.storage_offset() + size * chunk)

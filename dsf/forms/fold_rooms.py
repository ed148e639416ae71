"""Room for the fold of chunks under diagonal gates, cut into the halves that meet at each size."""

from __future__ import annotations

from itertools import zip_longest

from torch import Tensor

# Blocks up to this size are taken row by row: torch is slow on a middle axis, or a batch of matrices, that small.
_BY_ROW = 2

# Products of blocks from this size on are as fast where the halves lie as in rows of their own.
_IN_PLACE = 16


class Half:
    """The halves (N, size, K) of one stream that meet halves of others, or (S, N, size, K) of several streams.

    `place` is where they lie in the stream, `met` holds them as they were when they met, `product` is room
    for as much on the way back, and `rows` are the steps of `place` with those of `met`.
    """

    def __init__(self, place: Tensor, met: Tensor, product: Tensor) -> None:
        self.place, self.met, self.product = place, met, product
        self.moves = met is not place
        self.rows = list(zip(place.unbind(-2), met.unbind(-2), strict=True))

    def alone(self) -> Half:
        """The same with an axis of one in front."""
        place = self.place[None]
        return Half(place, self.met[None] if self.moves else place, self.product[None])

    def beside(self, other: Half) -> Half:
        """Both, from one piece of memory."""
        return Half(
            _beside(self.place, other.place),
            _beside(self.met, other.met),
            _beside(self.product, other.product),
        )


class Level:
    """The N pairs of neighbouring blocks of one size.

    `right` are the right blocks' reads and `left` the left blocks' writes. `carried` are the same, each with
    the sides that carry it (reads the left, writes the right): a read and a write in one where memory allows.
    `lower` (M, B, size, size) is the part of each Gram matrix where the two meet, and `block` (N, size, size)
    room for it in rows. `total` (N, K) is room for the product of both blocks, `of_totals` (2 N, K) for the
    gradients of each.
    """

    def __init__(self, rooms: FoldRooms, size: int) -> None:
        self.size, self.by_row = size, size <= _BY_ROW
        like, reads = rooms.onward[0], len(rooms.back)
        streams, keys = [*rooms.back, *rooms.onward], like.shape[2]
        count = like.numel() // (2 * size * keys)
        shape = (len(streams), count, size, keys)
        places = [halves(x, size)[i < reads] for i, x in enumerate(streams)]
        product = rooms.product.view(shape)
        met = like.new_empty(shape) if rooms.keeps else product
        if not rooms.keeps and (self.by_row or size >= _IN_PLACE):
            met = places
        ends = [Half(*own) for own in zip(places, met, product, strict=True)]
        self.right, self.left = ends[:reads], ends[reads:]
        self.carried = _carried(self.right, self.left, rooms.keeps)
        self.lower = [[lower_block(gram, size) for gram in row] for row in rooms.grams]
        self.block = rooms.block[: count * size * size].view(count, size, size)
        self.blocks = self.block.view(len(like), like.shape[1] // (2 * size), size, size)
        self.cells = [row.split(1, 1) for row in self.block.unbind(1)] if self.by_row else []
        self.total = like.new_empty((count, keys))
        if rooms.keeps:
            self.of_totals = like.new_empty((2 * count, keys))
            self.of_pair = in_pairs(self.of_totals)


class FoldRooms:
    """Where a fold lies: `back` and `onward` (M, C, K), `grams` (M, C, C), and the levels.

    It is made once for all pieces of a run: small products cost less than the views that they need. Rooms
    that keep what the way back needs have their streams in one piece of memory.
    """

    def __init__(self, back: list[Tensor], onward: list[Tensor], keeps: bool) -> None:
        self.back, self.onward, self.keeps = back, onward, keeps
        like = onward[0]
        count, chunk, keys = like.shape
        self.grams = [[like.new_empty((count, chunk, chunk)) for _ in onward] for _ in back]
        self.product = like.new_empty((len(back) + len(onward)) * count * (chunk // 2) * keys)
        self.block = like.new_empty(count * chunk * chunk // 4)
        self.levels = [Level(self, 1 << n) for n in range(chunk.bit_length() - 1)]


def in_pairs(totals: Tensor) -> Tensor:
    """Totals (2 N, K) of blocks as (2, N, K): of the left and of the right ones."""
    return totals.view(len(totals) // 2, 2, totals.shape[1]).transpose(0, 1)


def halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The left and right halves (N, size, K) of the blocks of 2 · size steps, as views."""
    count = x.shape[0] * x.shape[1] // (2 * size)
    left, right = x.view(count, 2, size, x.shape[2]).unbind(1)
    return left, right


def lower_block(gram: Tensor, size: int) -> Tensor:
    """The blocks (M, B, size, size) that pair a right half's reads with its left half's writes, a view."""
    count, chunk, _ = gram.shape
    shape = (count, chunk // (2 * size), size, size)
    strides = (chunk * chunk, 2 * size * (chunk + 1), chunk, 1)
    return gram.as_strided(shape, strides, gram.storage_offset() + size * chunk)


def _carried(right: list[Half], left: list[Half], joined: bool) -> list[tuple[Half, slice]]:
    if not joined:
        return [
            *((half.alone(), slice(0, 1)) for half in right),
            *((half.alone(), slice(1, 2)) for half in left),
        ]
    found = []
    for r, w in zip_longest(right, left):
        if r is None:
            found.append((w.alone(), slice(1, 2)))
        elif w is None:
            found.append((r.alone(), slice(0, 1)))
        else:
            found.append((r.beside(w), slice(0, 2)))
    return found


def _beside(x: Tensor, y: Tensor) -> Tensor:
    """(2, …) from two views alike of one storage, the second further on."""
    step = y.storage_offset() - x.storage_offset()
    return x.as_strided((2, *x.shape), (step, *x.stride()))

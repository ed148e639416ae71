"""Tiles of one to three axes: their tokens, the box of tiles that a tile visits, and which pairs see each other.

Every three numbers (z, y, x) belong to the axes, the last one x; those that a pattern does not have are 1 long.
A tile's tokens lie where `dsf.sim.permutation` orders them: in the address, so that nothing is copied.
"""

import triton
import triton.language as tl

from .memory import tile


@triton.jit
def split(number, y, x):
    """The three digits of a number in row-major order."""
    return number // (y * x), number // x % y, number % x


@triton.jit
def tiles_of(tokens, steps, TZ: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr):
    """Tiles of a dilation group along each axis, those of the longest group."""
    return (
        tl.cdiv(tl.cdiv(tokens[0], steps[0]), TZ),
        tl.cdiv(tl.cdiv(tokens[1], steps[1]), TY),
        tl.cdiv(tl.cdiv(tokens[2], steps[2]), TX),
    )


@triton.jit
def slots(tiles, QZ: tl.constexpr, QY: tl.constexpr, QX: tl.constexpr):
    """Slots of a dilation group along each axis."""
    return tiles[0] * QZ, tiles[1] * QY, tiles[2] * QX


@triton.jit
def place_of(tiles, steps, heads):
    """Batch entry and head of this program, the dilation group of its tile, and the tile.

    The last tiles, which see most where attention is causal, start first.
    """
    one = tiles[0] * tiles[1] * tiles[2]
    all_tiles = one * steps[0] * steps[1] * steps[2]
    number = all_tiles - 1 - tl.program_id(0) % all_tiles
    index = tl.program_id(0) // all_tiles
    group = split(number // one, steps[1], steps[2])
    return index // heads, index % heads, group, split(number % one, tiles[1], tiles[2])


@triton.jit
def split_of_turn(turn, y, x, RANK: tl.constexpr):
    """As `split`, of a number that is not negative: a division an axis, without signs."""
    lines = tl.cast(tl.cast(turn, tl.uint32) // tl.cast(x, tl.uint32), tl.int32)
    if RANK == 2:
        return 0, lines, turn - lines * x
    z = tl.cast(tl.cast(lines, tl.uint32) // tl.cast(y, tl.uint32), tl.int32)
    return z, lines - z * y, turn - lines * x


@triton.jit
def turned(turn, first, visits, RANK: tl.constexpr):
    """The tile of a box at a linear index."""
    if RANK == 1:  # no division in the loop
        return first[0], first[1], first[2] + turn
    z, y, x = split_of_turn(turn, visits[1], visits[2], RANK)
    return first[0] + z, first[1] + y, first[2] + x


@triton.jit
def beside(turn, first, start, inner):
    """The place on one axis at an index that leaves out `inner` places from `start`."""
    at = first + turn
    return tl.where(at >= start, at + inner, at)


@triton.jit
def around(turn, first, visits, start, inner, RANK: tl.constexpr):
    """The tile of a box at a linear index that leaves out the tiles of an inner box."""
    if RANK == 1:
        return first[0], first[1], beside(turn, first[2], start[2], inner[2])
    # Slabs: beside the inner box in z; in its z and beside it in y; in its z and y and beside it in x.
    in_z = (visits[0] - inner[0]) * visits[1] * visits[2]
    in_y = in_z + inner[0] * (visits[1] - inner[1]) * visits[2]
    z_free, x_free = turn < in_z, turn >= in_y
    own = turn - tl.where(z_free, 0, tl.where(x_free, in_y, in_z))
    rows = tl.where(z_free, visits[1], tl.where(x_free, inner[1], visits[1] - inner[1]))
    columns = tl.where(x_free, visits[2] - inner[2], visits[2])
    z, y, x = split_of_turn(own, tl.maximum(rows, 1), tl.maximum(columns, 1), RANK)
    past = tl.where(x_free, start[1] + y, beside(y, first[1], start[1], inner[1]))
    return (
        tl.where(z_free, beside(z, first[0], start[0], inner[0]), start[0] + z),
        tl.where(z_free, first[1] + y, past),
        tl.where(x_free, beside(x, first[2], start[2], inner[2]), first[2] + x),
    )


@triton.jit
def tokens_at(
    tile, group, tokens, steps,
    TZ: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """Coordinates of a tile's tokens in their dilation group, along each axis, and their numbers."""
    z, y, x = split(tl.arange(0, TZ * TY * TX), TY, TX)
    places = tile[0] * TZ + z, tile[1] * TY + y, tile[2] * TX + x
    return places, numbers_of(places, group, tokens, steps, RANK)


@triton.jit
def numbers_of(places, groups, tokens, steps, RANK: tl.constexpr):
    """The numbers of tokens with these inner coordinates; one behind the last for those that do not exist."""
    x = places[2] * steps[2] + groups[2]
    if RANK == 1:
        return x
    y = places[1] * steps[1] + groups[1]
    rows, inside = y * tokens[2] + x, (y < tokens[1]) & (x < tokens[2])
    if RANK == 3:
        z = places[0] * steps[0] + groups[0]
        rows, inside = z * (tokens[1] * tokens[2]) + rows, inside & (z < tokens[0])
    return tl.where(inside, rows, tokens[0] * tokens[1] * tokens[2])


@triton.jit
def inner(tokens, steps, TZ: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RANK: tl.constexpr):
    """Of the tokens of any tile: how far they lie behind its first token along each axis, and in their numbers."""
    z, y, x = split(tl.arange(0, TZ * TY * TX), TY, TX)
    z, y, x = z * steps[0], y * steps[1], x * steps[2]
    numbers = y * tokens[2] + x
    if RANK == 3:
        numbers += z * (tokens[1] * tokens[2])
    return z, y, x, numbers


@triton.jit
def origin(
    tile, groups, tokens, steps,
    TZ: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """The number of a tile's first token, and how many places there are from it on along each axis."""
    z = tile[0] * (TZ * steps[0]) + groups[0]
    y = tile[1] * (TY * steps[1]) + groups[1]
    x = tile[2] * (TX * steps[2]) + groups[2]
    number = y * tokens[2] + x
    if RANK == 3:
        number += z * (tokens[1] * tokens[2])
    return number, (tokens[0] - z, tokens[1] - y, tokens[2] - x)


@triton.jit
def exists(begin, within, RANK: tl.constexpr):
    """Which tokens of a tile there are."""
    left = begin[1]
    inside = (within[1] < left[1]) & (within[2] < left[2])
    if RANK == 3:
        inside &= within[0] < left[0]
    return inside


@triton.jit
def visited(
    pointer, start, rows, length, begin, within, heads, head, channels, size: tl.constexpr,
    RANK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Tokens × channels of a tile in a loop, zero where there are none.

    Over several axes by `origin` and `inner`, of which a turn changes a number and three sides alone.
    """
    if RANK == 1:
        return tile(pointer, start, rows, length, heads, head, channels, size, UPCAST)
    else:
        base = pointer + (start + begin[0]) * heads * size + head * size
        inside = exists(begin, within, RANK)
        where = within[3].to(tl.int64)[:, None] * heads * size + channels[None, :]
        found = tl.load(base + where, mask=inside[:, None] & (channels < size)[None, :], other=0.0)
        if UPCAST:
            found = found.to(tl.float32)
        return found


@triton.jit
def lines_of(groups, steps, counts):
    """Where the rows of each axis begin in a table of `counts` rows per group, the last axis first."""
    x = groups[2] * counts[2]
    y = steps[2] * counts[2] + groups[1] * counts[1]
    z = steps[2] * counts[2] + steps[1] * counts[1] + groups[0] * counts[0]
    return z, y, x


@triton.jit
def box(boxes, groups, steps, counts, tile):
    """First visited tile and their number along each axis, then the same of those that need no mask."""
    z, y, x = lines_of(groups, steps, counts)
    at_z, at_y, at_x = (
        boxes + (z + tile[0]) * 4,
        boxes + (y + tile[1]) * 4,
        boxes + (x + tile[2]) * 4,
    )
    first = tl.load(at_z), tl.load(at_y), tl.load(at_x)
    many = tl.load(at_z + 1) - first[0], tl.load(at_y + 1) - first[1], tl.load(at_x + 1) - first[2]
    whole = tl.load(at_z + 2), tl.load(at_y + 2), tl.load(at_x + 2)
    bare = tl.load(at_z + 3) - whole[0], tl.load(at_y + 3) - whole[1], tl.load(at_x + 3) - whole[2]
    some = volume(bare) > 0  # an axis without any leaves none
    return first, many, whole, (
        tl.where(some, bare[0], 0), tl.where(some, bare[1], 0), tl.where(some, bare[2], 0)
    )  # fmt: skip


@triton.jit
def volume(sides):
    """Tiles of a box."""
    return sides[0] * sides[1] * sides[2]


@triton.jit
def spans(low, high, groups, steps, counts, places, RANK: tl.constexpr):
    """Both ends of the keys that queries see, along each axis; `counts` are slots per group."""
    z, y, x = lines_of(groups, steps, counts)
    at_x = x + places[2]
    first_x, last_x = tl.load(low + at_x), tl.load(high + at_x)
    first_y, last_y, first_z, last_z = first_x, last_x, first_x, last_x
    if RANK >= 2:
        at_y = y + places[1]
        first_y, last_y = tl.load(low + at_y), tl.load(high + at_y)
    if RANK == 3:
        at_z = z + places[0]
        first_z, last_z = tl.load(low + at_z), tl.load(high + at_z)
    return (first_z, first_y, first_x), (last_z, last_y, last_x)


@triton.jit
def visible(low, high, places, RANK: tl.constexpr):
    """Which queries see which keys, (queries, keys)."""
    x = places[2][None, :]
    keep = (x >= low[2][:, None]) & (x < high[2][:, None])
    if RANK >= 2:
        y = places[1][None, :]
        keep &= (y >= low[1][:, None]) & (y < high[1][:, None])
    if RANK == 3:
        z = places[0][None, :]
        keep &= (z >= low[0][:, None]) & (z < high[0][:, None])
    return keep


@triton.jit
def hidden(values, instead, low, high, places, RANK: tl.constexpr):
    """`instead` where a pair is not visible."""
    return tl.where(visible(low, high, places, RANK), values, instead)

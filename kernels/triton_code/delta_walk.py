r"""The walks over chunks of the delta rule: one program per sequence, head and tile of values.

R = (I + L)⁻¹ (V - B S), U = β R, S' = D S + Kᵀ U, with B and K as they meet the state before or after the chunk.
Backwards, with Z the gradient of the state after the chunk: dR = (I + L)⁻ᵀ β (K Z + s Pᵀ dY),
Z' = D Z + s Qᵀ dY - Bᵀ dR, and dV = dR. The states are kept for what is then done for all chunks at once. The
state itself is HELD in registers, in tiles of keys, or, where it does not fit, in memory of the program's own.
"""

import triton
import triton.language as tl

from .delta_gates import faded_after, faded_before, faded_earlier, read_after
from .memory import column, matrix, place, put, put_matrix, tile
from .slots import first_slot, table


@triton.jit
def head_gates(
    g, first, rows, offsets, tokens, heads, head,
    C: tl.constexpr, N: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """For a gate per head: decays from the chunk's start to reads and erases, from writes to its end, and of it all."""
    now = column(g, first, faded_before(rows, tokens, N), tokens, heads, head)
    late = column(g, first, faded_after(rows, offsets, tokens, C, N), tokens, heads, head)
    down = tl.exp(tl.cumsum(now, 0))
    if TOGETHER:
        early = column(g, first, faded_earlier(rows, offsets, tokens, N), tokens, heads, head)
        erase = tl.exp(tl.cumsum(early, 0))
    else:
        erase = down
    up = tl.exp(tl.cumsum(late, 0, reverse=True))
    return down, erase, up, tl.exp(tl.sum(now, 0))


@triton.jit
def state_of(pointer, index, values, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr):  # fmt: skip
    """A state (K, V) as tiles of keys, some of its values each."""
    tiles = ()
    for part in tl.static_range(KT):
        keys = part * BK + tl.arange(0, BK)
        tiles = tiles + (matrix(pointer, index, keys, values, K, V),)
    return tiles


@triton.jit
def put_state(
    pointer, tiles, index, values,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
):  # fmt: skip
    """Store a state from its tiles of keys."""
    for part in tl.static_range(KT):
        put_matrix(pointer, tiles[part], index, part * BK + tl.arange(0, BK), values, K, V)


@triton.jit
def onto_state(
    tiles, x, first, rows, length, heads, head, C: tl.constexpr, BV: tl.constexpr,
    K: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """X S for rows x (C, K) of a head and the state S in tiles of keys."""
    found = tl.zeros((C, BV), tl.float32)
    for part in tl.static_range(KT):
        keys = part * BK + tl.arange(0, BK)
        X = tile(x, first, rows, length, heads, head, keys, K, UPCAST)
        found = tl.dot(X, tiles[part].to(X.dtype), found, input_precision=PRECISION)
    return found


@triton.jit
def copied_state(
    source, target, index, values,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
):  # fmt: skip
    """Begin to hold a state in memory: in `target`, where only this program writes."""
    for part in range(0, KT):
        keys = part * BK + tl.arange(0, BK)
        put_matrix(target, matrix(source, index, keys, values, K, V), index, keys, values, K, V)
    tl.debug_barrier()


@triton.jit
def onto_memory(
    state, kept, x, index, place_of_kept, values, first, rows, length, heads, head,
    C: tl.constexpr, BV: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr,
    KT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """X S for a state that is held in memory, which is kept besides."""
    found = tl.zeros((C, BV), tl.float32)
    for part in range(0, KT):
        keys = part * BK + tl.arange(0, BK)
        S = matrix(state, index, keys, values, K, V)
        put_matrix(kept, S, place_of_kept, keys, values, K, V)
        X = tile(x, first, rows, length, heads, head, keys, K, UPCAST)
        found += tl.dot(X, S.to(X.dtype), input_precision=PRECISION)
    tl.debug_barrier()  # all have read before any writes
    return found


@triton.jit
def written(
    S, gate, part, x, U, first, rows, length, heads, head,
    K: tl.constexpr, BK: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """D S + Xᵀ U for a tile of keys."""
    keys = part * BK + tl.arange(0, BK)
    X = tile(x, first, rows, length, heads, head, keys, K, UPCAST)
    return tl.dot(tl.trans(X), U, S * gate, input_precision=PRECISION)


@triton.jit
def state_gate(whole, slot, heads, head, part, K: tl.constexpr, BK: tl.constexpr):
    """The decays of a chunk per key, (keys, 1)."""
    keys = part * BK + tl.arange(0, BK)
    return tl.load(whole + (slot * heads + head) * K + keys, mask=keys < K, other=0.0)[:, None]


@triton.jit
def walk(
    k, b, v, g, beta, inverse, state, final, kept, rests, starts,
    length, heads, k_heads, b_heads, v_heads,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr, BV: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr, HELD: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """R, the state before each chunk, and the final state."""
    index = tl.program_id(0)
    values = tl.program_id(1) * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    k_head, b_head = head * k_heads // heads, head * b_heads // heads
    v_head = head * v_heads // heads
    first, tokens = place(starts, sequence, length, PACKED)
    slot = first_slot(first, sequence, length, C // N, PACKED)
    offsets = tl.arange(0, C)
    if HELD:
        S = state_of(state, index, values, K, V, BK, KT)
    else:
        copied_state(state, final, index, values, K, V, BK, KT)
    for at in range(0, tokens * N, C):
        rows = at + offsets
        own = slot * heads + head
        if HELD:
            put_state(kept, S, own, values, K, V, BK, KT)
            D = onto_state(
                S, b, first * N, rows, tokens * N, b_heads, b_head, C, BV, K, BK, KT, UPCAST, PRECISION,
            )  # fmt: skip
        else:
            D = onto_memory(
                final, kept, b, index, own, values, first * N, rows, tokens * N, b_heads, b_head,
                C, BV, K, V, BK, KT, UPCAST, PRECISION,
            )  # fmt: skip
        if not KEYED:
            down, erase, up, gate = head_gates(
                g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
            )
            D = D * erase[:, None]
        A = tile(v, first * N, rows, tokens * N, v_heads, v_head, values, V, UPCAST)
        T = table(inverse, slot, heads, head, offsets, C)
        R = tl.dot(T, (A - D).to(T.dtype), input_precision=PRECISION)
        put(rests, R, first * N, rows, tokens * N, heads, head, values, V)
        R = R * column(beta, first * N, rows, tokens * N, heads, head)[:, None]
        if not KEYED:
            R = R * up[:, None]
        U = R.to(A.dtype)
        if HELD:
            later = ()
            for part in tl.static_range(KT):
                if KEYED:
                    gate = state_gate(g, slot, heads, head, part, K, BK)
                near = written(
                    S[part], gate, part, k, U, first * N, rows, tokens * N, k_heads, k_head,
                    K, BK, UPCAST, PRECISION,
                )  # fmt: skip
                later = later + (near,)
            S = later
        else:
            for part in range(0, KT):
                if KEYED:
                    gate = state_gate(g, slot, heads, head, part, K, BK)
                keys = part * BK + tl.arange(0, BK)
                near = written(
                    matrix(final, index, keys, values, K, V), gate, part, k, U,
                    first * N, rows, tokens * N, k_heads, k_head, K, BK, UPCAST, PRECISION,
                )  # fmt: skip
                put_matrix(final, near, index, keys, values, K, V)
            tl.debug_barrier()
        slot += 1
    if HELD:
        put_state(final, S, index, values, K, V, BK, KT)


@triton.jit
def walk_back(
    q, k, b, g, beta, inverse, reads, do, dfinal, dv, kept, dstate, starts,
    length, heads, q_heads, k_heads, b_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr, BV: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr, HELD: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dV, the gradient of the state after each chunk, and that of the initial state."""
    index = tl.program_id(0)
    values = tl.program_id(1) * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    b_head = head * b_heads // heads
    first, tokens = place(starts, sequence, length, PACKED)
    offsets = tl.arange(0, C)
    chunks = (tokens * N + C - 1) // C
    start = first_slot(first, sequence, length, C // N, PACKED)
    if HELD:
        Z = state_of(dfinal, index, values, K, V, BK, KT)
    else:
        copied_state(dfinal, dstate, index, values, K, V, BK, KT)
    for turn in range(0, chunks):
        number = chunks - 1 - turn
        slot = start + number
        rows = number * C + offsets
        read = read_after(rows, tokens, N)
        own = slot * heads + head
        if HELD:
            put_state(kept, Z, own, values, K, V, BK, KT)
            X = onto_state(
                Z, k, first * N, rows, tokens * N, k_heads, k_head, C, BV, K, BK, KT, UPCAST, PRECISION,
            )  # fmt: skip
        else:
            X = onto_memory(
                dstate, kept, k, index, own, values, first * N, rows, tokens * N, k_heads, k_head,
                C, BV, K, V, BK, KT, UPCAST, PRECISION,
            )  # fmt: skip
        if not KEYED:
            down, erase, up, gate = head_gates(
                g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
            )
            X = X * up[:, None]
        G = tile(do, first, read, tokens, heads, head, values, V, UPCAST)
        P = table(reads, slot, heads, head, offsets, C)
        X += tl.dot(tl.trans(P.to(G.dtype)), G, input_precision=PRECISION) * scale
        strength = column(beta, first * N, rows, tokens * N, heads, head)
        T = table(inverse, slot, heads, head, offsets, C)
        X = (X * strength[:, None]).to(T.dtype)
        E = tl.dot(tl.trans(T), X, input_precision=PRECISION)
        put(dv, E, first * N, rows, tokens * N, heads, head, values, V)
        near = G.to(tl.float32) * scale
        if not KEYED:
            near, E = near * down[:, None], E * erase[:, None]
        near, E = near.to(G.dtype), (-E).to(G.dtype)
        if HELD:
            earlier = ()
            for part in tl.static_range(KT):
                if KEYED:
                    gate = state_gate(g, slot, heads, head, part, K, BK)
                back = written(
                    Z[part], gate, part, q, near, first, read, tokens, q_heads, q_head,
                    K, BK, UPCAST, PRECISION,
                )  # fmt: skip
                back = written(
                    back, 1.0, part, b, E, first * N, rows, tokens * N, b_heads, b_head,
                    K, BK, UPCAST, PRECISION,
                )  # fmt: skip
                earlier = earlier + (back,)
            Z = earlier
        else:
            for part in range(0, KT):
                if KEYED:
                    gate = state_gate(g, slot, heads, head, part, K, BK)
                keys = part * BK + tl.arange(0, BK)
                back = written(
                    matrix(dstate, index, keys, values, K, V), gate, part, q, near,
                    first, read, tokens, q_heads, q_head, K, BK, UPCAST, PRECISION,
                )  # fmt: skip
                back = written(
                    back, 1.0, part, b, E, first * N, rows, tokens * N, b_heads, b_head,
                    K, BK, UPCAST, PRECISION,
                )  # fmt: skip
                put_matrix(dstate, back, index, keys, values, K, V)
            tl.debug_barrier()
    if HELD:
        put_state(dstate, Z, index, values, K, V, BK, KT)

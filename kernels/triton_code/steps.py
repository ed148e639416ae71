"""A step of decoding on matrix states (K, V), in place: one program per sequence, head and tile of values.

With D = e^g a scalar or a diagonal, r micro-steps of which the first decays:
decay S ← D S + β k vᵀ; delta S ← D S, S ← S + β k (v - kᵀS)ᵀ; DPLR S ← D S + a (bᵀS) + k vᵀ. Keys in one tile stay in
registers; more are walked in tiles, twice where something is erased.
"""

import triton
import triton.language as tl

from .memory import matrix, put_matrix


@triton.jit
def slot_of(slots, sequence):
    """The row of the cache that a sequence has; negative where it rests."""
    if slots is None:
        return sequence.to(tl.int64)
    else:
        return tl.load(slots + sequence).to(tl.int64)


@triton.jit
def resting(slot):
    """What a sequence without a row gives: zero where it rests, NaN where its slot is not of the cache."""
    return tl.where(slot < 0, 0.0, float("nan"))


@triton.jit
def numbers(pointer, row, channels, size):
    """One row of numbers in float32, zero outside."""
    where = row.to(tl.int64) * size + channels
    return tl.load(pointer + where, mask=channels < size, other=0.0).to(tl.float32)


@triton.jit
def number(pointer, place):
    """One number in float32; 1 where there is no pointer."""
    if pointer is None:
        return 1.0
    else:
        return tl.load(pointer + place).to(tl.float32)


@triton.jit
def read(Q, S):
    """Sᵀ q."""
    return tl.sum(Q[:, None] * S, 0)


@triton.jit
def written(S, W, U):
    """S + w uᵀ."""
    return S + W[:, None] * U[None, :]


@triton.jit
def faded(S, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr):
    """D S before the first write of a token, S before the others."""
    if GATE == "diagonal":
        return S * tl.where(turn == 0, tl.exp(numbers(g, row, keys, K)), 1.0)[:, None]
    elif GATE == "scalar":
        return S * tl.where(turn == 0, tl.exp(number(g, row)), 1.0)
    else:
        return S


@triton.jit
def seen(S, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr, ERASE: tl.constexpr):
    """The state whose content is erased: decayed for the delta rule, as it was for DPLR."""
    if ERASE == "delta":
        return faded(S, g, row, turn, keys, K, GATE)
    else:
        return S


@triton.jit
def updated(S, W, U, g, row, turn, keys, K: tl.constexpr, GATE: tl.constexpr):
    """D S + w uᵀ: what was there fades, what enters does not."""
    return written(faded(S, g, row, turn, keys, K, GATE), W, U)


@triton.jit
def bonus_of(Q, bonus, head, W, keys, K: tl.constexpr):
    """Σ_k q u w: how much of the current value is read past the state."""
    return tl.sum(Q * numbers(bonus, head, keys, K) * W, 0)


@triton.jit
def tile_of(S, cache, head, keys, values, K: tl.constexpr, V: tl.constexpr, KT: tl.constexpr):
    """The tile of these keys: the one in registers where it is the only one."""
    if KT == 1:
        return S
    else:
        return matrix(cache, head, keys, values, K, V)


@triton.jit
def matrix_step(
    q, k, v, g, beta, left, right, bonus, divisor, state, slots, o,
    rows, stride, heads, q_heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    R: tl.constexpr, GATE: tl.constexpr, ERASE: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """One token of every sequence: its state in a cache of `rows`, `stride` numbers apart, and its output."""
    parts: tl.constexpr = tl.cdiv(V, BV)
    index, keys = tl.program_id(0) // parts, tl.arange(0, BK)
    values = tl.program_id(0) % parts * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    slot = slot_of(slots, sequence)
    Y = tl.zeros((BV,), tl.float32) + resting(slot)
    if (slot >= 0) & (slot < rows):
        cache = state + slot * stride
        q_row = sequence * q_heads + head * q_heads // heads
        k_row = (sequence * k_heads + head * k_heads // heads) * R
        v_row = (sequence * v_heads + head * v_heads // heads) * R
        S = matrix(cache, head, keys, values, K, V)
        for turn in range(R):
            U = numbers(v, v_row + turn, values, V)
            found = tl.zeros((BV,), tl.float32)
            if ERASE != "none":
                erasing = k if ERASE == "delta" else right
                for part in range(KT):
                    at = part * BK + keys
                    P = tile_of(S, cache, head, at, values, K, V, KT)
                    P = seen(P, g, index, turn, at, K, GATE, ERASE)
                    found += read(numbers(erasing, k_row + turn, at, K), P)
                if KT > 1:
                    tl.debug_barrier()  # all have read before any stores
            enters = U - found if ERASE == "delta" else U
            Y = tl.zeros((BV,), tl.float32)
            for part in range(KT):
                at = part * BK + keys
                Q = numbers(q, q_row, at, K)
                W = numbers(k, k_row + turn, at, K) * number(beta, index * R + turn)
                P = tile_of(S, cache, head, at, values, K, V, KT)
                if BEFORE:
                    Y += read(Q, P)
                    if bonus is not None:
                        Y += bonus_of(Q, bonus, head, W, at, K) * U
                P = updated(P, W, enters, g, index, turn, at, K, GATE)
                if ERASE == "dplr":
                    P = written(P, numbers(left, k_row + turn, at, K), found)
                if not BEFORE:
                    Y += read(Q, P)
                if KT == 1:
                    S = P
                else:
                    put_matrix(cache, P, head, at, values, K, V)
            if KT > 1:
                tl.debug_barrier()  # and stored before any reads again
        if KT == 1:
            put_matrix(cache, S, head, keys, values, K, V)
        Y = Y * scale / number(divisor, index)
    where = index.to(tl.int64) * V + values
    tl.store(o + where, Y.to(o.dtype.element_ty), mask=values < V)


@triton.jit
def normaliser_step(
    q, k, log_write, log_decay, normaliser, stabiliser, slots, g, beta, divisor,
    rows, stride, apart, heads, q_heads, k_heads, scale,
    K: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    """m ← max(log f + m, i) and n ← e^{log f + m' - m} n + e^{i - m} k, a state of one value that is written a one.

    Gives what the step of the memory needs: its log-decay, its write strength, and max(|nᵀq|, e^{-m}) to divide by.
    """
    index, keys, one = tl.program_id(0), tl.arange(0, BK), tl.arange(0, 1)
    sequence, head = index // heads, index % heads
    slot = slot_of(slots, sequence)
    if (slot >= 0) & (slot < rows):
        place = stabiliser + slot * apart + head
        before, fades, enters = tl.load(place), number(log_decay, index), number(log_write, index)
        m = tl.maximum(fades + before, enters)
        reference = tl.where(m == -float("inf"), 0.0, m)  # -inf - (-inf) is no number
        tl.store(g + index, fades + before - reference)
        keep, strength = tl.exp(fades + before - reference), tl.exp(enters - reference)
        cache = normaliser + slot * stride
        q_row = sequence * q_heads + head * q_heads // heads
        k_row = sequence * k_heads + head * k_heads // heads
        eta = tl.zeros((1,), tl.float32)
        for part in range(KT):
            at = part * BK + keys
            N = matrix(cache, head, at, one, K, 1) * keep
            N = written(N, numbers(k, k_row, at, K) * strength, tl.zeros((1,), tl.float32) + 1.0)
            eta += read(numbers(q, q_row, at, K), N)
            put_matrix(cache, N, head, at, one, K, 1)
        least = tl.exp(-tl.minimum(tl.maximum(m, -LIMIT), LIMIT))
        tl.store(beta + index, strength)
        tl.store(divisor + index, tl.maximum(tl.sum(tl.abs(eta), 0) * tl.abs(scale), least))
        tl.store(place, m)

"""Cases of steps of decoding: states are changed in place, and have no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from .case import Case, Draw, Inputs, Sizes

CHECKS = (
    Sizes("sequences at rest, shared heads", 5, 1, 4, share=2, quick=True, extra={"rest": 2}),
    Sizes("unaligned heads", 3, 1, 3, 40, 24),
    Sizes("several tiles", 2, 1, 2, 300, 256),
)
SMALL = (
    Sizes("sequences at rest, shared heads", 3, 1, 4, 8, 6, share=2, extra={"rest": 1}),
    Sizes("unaligned heads", 2, 1, 3, 5, 7),
)
REPEATED = Sizes("repeated", 64, 1, 16, 128, 128)
TIMES = (
    Sizes("1 sequence, 32 heads", 1, 1, 32, 128, 128),
    Sizes("64 sequences, 32 heads", 64, 1, 32, 128, 128, quick=True),
    Sizes("256 sequences, 16 heads", 256, 1, 16, 128, 128),
)
CHANNELS = (
    Sizes("64 sequences, 4096 channels", 64, 1, 1, 16, 4096, quick=True),
    Sizes("1024 sequences, 4096 channels", 1024, 1, 1, 16, 4096),
)


def _slots(draw: Draw, sizes: Sizes) -> dict[str, object]:
    """Rows in reverse, the first `rest` sequences at rest; none where all have their own."""
    resting = sizes.extra.get("rest", 0)
    if not resting:
        return {"slots": None}
    rows = torch.arange(sizes.batch - 1, -1, -1, device=draw.device)
    rows[:resting] = -1
    return {"slots": rows}


def _tokens(draw: Draw, sizes: Sizes, unit: bool = False) -> dict[str, Tensor]:
    shared = sizes.heads // sizes.share
    k = draw.normal(sizes.batch, shared, sizes.keys)
    return {
        "state": draw.normal(sizes.batch, sizes.heads, sizes.keys, sizes.values),
        "q": draw.data(draw.normal(sizes.batch, shared, sizes.keys)),
        "k": draw.data(torch.nn.functional.normalize(k, dim=-1) if unit else k),
        "v": draw.data(draw.normal(sizes.batch, sizes.heads, sizes.values)),
    }


def decay(draw: Draw, sizes: Sizes) -> Inputs:
    tensors = _tokens(draw, sizes) | {"g": -draw.uniform(sizes.batch, sizes.heads, sizes.keys)}
    return Inputs(tensors, {"scale": sizes.keys**-0.5, **_slots(draw, sizes)})


def delta(draw: Draw, sizes: Sizes) -> Inputs:
    tensors = _tokens(draw, sizes, unit=True)
    tensors |= {
        "beta": draw.uniform(sizes.batch, sizes.heads),
        "g": -draw.uniform(sizes.batch, sizes.heads),
    }
    return Inputs(tensors, {"scale": sizes.keys**-0.5, **_slots(draw, sizes)})


def dplr(draw: Draw, sizes: Sizes) -> Inputs:
    """What RWKV-7 writes: a = -α ⊙ κ, b = κ of length one."""
    tensors = _tokens(draw, sizes)
    shape = (sizes.batch, sizes.heads // sizes.share, sizes.keys)
    b = torch.nn.functional.normalize(draw.normal(*shape), dim=-1)
    tensors |= {
        "a": -draw.uniform(*shape) * b,
        "b": b,
        "g": -draw.uniform(sizes.batch, sizes.heads, sizes.keys),
    }
    return Inputs(tensors, {"scale": sizes.keys**-0.5, **_slots(draw, sizes)})


def mlstm(draw: Draw, sizes: Sizes) -> Inputs:
    tensors = _tokens(draw, sizes)
    lead = (sizes.batch, sizes.heads)
    tensors |= {
        "normaliser": draw.normal(*lead, sizes.keys),
        "stabiliser": draw.normal(*lead),
        "input_gate": draw.normal(*lead),
        "log_forget": -draw.uniform(*lead),
    }
    return Inputs(tensors, {"scale": sizes.keys**-0.5, **_slots(draw, sizes)})


def gated(draw: Draw, sizes: Sizes) -> Inputs:
    shape = (sizes.batch, sizes.heads * sizes.values)
    tensors = {
        "state": draw.normal(*shape),
        "a": draw.data(draw.uniform(*shape)),
        "b": draw.data(draw.normal(*shape)),
    }
    return Inputs(tensors, _slots(draw, sizes))


def selective(draw: Draw, sizes: Sizes) -> Inputs:
    D, N = sizes.heads * sizes.values, sizes.keys
    lead = (sizes.batch, D)
    tensors = {
        "state": draw.normal(*lead, N),
        "x": draw.data(draw.normal(*lead)),
        "delta": draw.data(0.1 * draw.uniform(*lead)),
        "A": -torch.arange(1.0, N + 1, device=draw.device).repeat(D, 1),
        "b": draw.data(draw.normal(sizes.batch, sizes.share, N)),
        "c": draw.data(draw.normal(sizes.batch, sizes.share, N)),
        "skip": draw.normal(D),
    }
    return Inputs(tensors, _slots(draw, sizes))


# What a step must equal. A kernel reads and writes float32 states, so naively that is torch in float32 too.


def _active(state: Tensor, slots: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sequences that are not at rest and their rows."""
    if slots is None:
        every = torch.arange(len(state), device=state.device)
        return every, every
    here = torch.nonzero(slots >= 0)[:, 0]
    return here, slots[here]


def _matrix_step(state, q, k, v, update, slots, scale, divide=None):
    """`update(S, k, v, here)` gives new states of the active sequences; y = s Sᵀ q of those."""
    here, rows = _active(state, slots)
    heads, wide = state.shape[1], state.dtype
    q, k, v = (x.repeat_interleave(heads // x.shape[1], 1).to(wide)[here] for x in (q, k, v))
    S = update(state[rows], k, v, here)
    read = scale * (q[..., None] * S).sum(-2)
    y = torch.zeros(slots_of(state, slots), heads, state.shape[3], dtype=wide, device=state.device)
    y[here] = read if divide is None else divide(read, q, here)
    new = state.clone()
    new[rows] = S
    return y, new


def slots_of(state: Tensor, slots: Tensor | None) -> int:
    return len(state) if slots is None else len(slots)


def decay_step(state, q, k, v, g, *, scale, slots=None):
    def update(S, k, v, here):
        return g[here].exp().to(S.dtype)[..., None] * S + k[..., None] * v[..., None, :]

    y, new = _matrix_step(state, q, k, v, update, slots, scale)
    return y.to(v.dtype), new


def delta_step(state, q, k, v, beta, g, *, scale, slots=None):
    def update(S, k, v, here):
        S = g[here].exp().to(S.dtype)[..., None, None] * S
        error = v - (k[..., None] * S).sum(-2)
        return S + k[..., None] * (beta[here].to(S.dtype)[..., None] * error)[..., None, :]

    y, new = _matrix_step(state, q, k, v, update, slots, scale)
    return y.to(v.dtype), new


def dplr_step(state, q, k, v, a, b, g, *, scale, slots=None):
    heads = state.shape[1]
    left, right = (x.repeat_interleave(heads // x.shape[1], 1).to(state.dtype) for x in (a, b))

    def update(S, k, v, here):
        read = (right[here][..., None] * S).sum(-2)
        kept = g[here].exp().to(S.dtype)[..., None] * S
        return kept + left[here][..., None] * read[..., None, :] + k[..., None] * v[..., None, :]

    y, new = _matrix_step(state, q, k, v, update, slots, scale)
    return y.to(v.dtype), new


def mlstm_step(
    state, q, k, v, normaliser, stabiliser, input_gate, log_forget, *, scale, slots=None
):
    here, rows = _active(state, slots)
    keys = k.repeat_interleave(state.shape[1] // k.shape[1], 1).to(state.dtype)[here]
    fades = log_forget[here] + stabiliser[rows]
    m = torch.maximum(fades, input_gate[here])
    keep, write = torch.exp(fades - m), torch.exp(input_gate[here] - m)
    n = keep[..., None] * normaliser[rows] + write[..., None] * keys

    def update(S, k, v, here):
        return keep[..., None, None] * S + write[..., None, None] * k[..., None] * v[..., None, :]

    def divide(read, q, here):
        least = torch.exp(-m)
        return read / torch.maximum((scale * (q * n).sum(-1)).abs(), least)[..., None]

    y, new = _matrix_step(state, q, k, v, update, slots, scale, divide)
    sums, largest = normaliser.clone(), stabiliser.clone()
    sums[rows], largest[rows] = n, m
    return y.to(v.dtype), new, sums, largest


def scan_step(state, a, b, *, slots=None):
    here, rows = _active(state, slots)
    h = torch.zeros(slots_of(state, slots), state.shape[1], dtype=state.dtype, device=state.device)
    h[here] = a[here].to(state.dtype) * state[rows] + b[here].to(state.dtype)
    new = state.clone()
    new[rows] = h[here]
    return h, new


def selective_step(state, x, delta, A, b, c, *, skip, slots=None):
    here, rows = _active(state, slots)
    wide = state.dtype
    b, c = (e.repeat_interleave(x.shape[1] // e.shape[1], 1).to(wide)[here] for e in (b, c))
    step, token = delta.to(wide)[here][..., None], x.to(wide)[here]
    h = torch.exp(step * A) * state[rows] + step * b * token[..., None]
    y = torch.zeros(slots_of(state, slots), x.shape[1], dtype=wide, device=state.device)
    y[here] = (c * h).sum(-1) + skip * token
    new = state.clone()
    new[rows] = h
    return y.to(x.dtype), new


def _case(name: str, function, draw, kernel: str, times=TIMES, also=(), **more) -> Case:
    changed = ("state", *also)
    return Case(
        name=name,
        kernel=kernel,
        operator=f"dsf.kernels:{function.__name__}",
        draw=draw,
        exact=function,
        naive=function,
        results=("output", *(f"{each} after it" for each in changed)),
        checks=CHECKS,
        small=SMALL,
        repeated=REPEATED,
        times=times,
        backward=False,
        in_place=changed,
        **more,
    )


CASES = (
    _case("decay step", decay_step, decay, "matrix-step"),
    _case("delta step", delta_step, delta, "matrix-step"),
    _case("DPLR step", dplr_step, dplr, "matrix-step"),
    _case("mLSTM step", mlstm_step, mlstm, "matrix-step", also=("normaliser", "stabiliser")),
    _case("scan step", scan_step, gated, "scan-step", CHANNELS),
    _case("selective step", selective_step, selective, "selective-step", CHANNELS),
)

"""Steps of decoding on vector states: of the gated scan and of the selective scan."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.library import Signature, define_in_place, require_no_gradient, require_runnable
from dsf.kernels.numbers import check_alike, check_real

from . import vector
from .cache import active


def scan_step(state: Tensor, a: Tensor, b: Tensor, *, slots: Tensor | None = None) -> Tensor:
    r"""h ← a h + b for every channel, in place, and the new h of every sequence; no gradients.

    - `state` (rows, D), float32 or complex64, each row contiguous: it is changed.
    - `a`, `b` (B, D): gates of any sign and what enters, in float32, float16, bfloat16 or complex64 (float64 and
      complex128 on the CPU, with such a state).
    - `slots` (B,), int32 or int64: the row of each sequence, all different; -1 leaves it at rest. None: B = rows.

    Returns h (B, D) in the type of the state, zero for sequences at rest. Slots out of range and what is raised as in
    `decay_step`.

    Source: Martin and Cundy (arXiv 1709.04057), the recurrence.

    >>> import torch
    >>> from dsf.kernels import scan_step
    >>> state, half, one = torch.zeros(1, 1), torch.full((1, 1), 0.5), torch.ones(1, 1)
    >>> [scan_step(state, half, one).item() for _ in range(3)]
    [1.0, 1.5, 1.75]
    """
    check_alike(a=a, b=b)
    require_no_gradient("scan_step", {"state": state, "a": a, "b": b}, "gated_scan")
    require_runnable(a)
    return _scan(state, a, b, slots)


def selective_step(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    skip: Tensor | None = None,
    slots: Tensor | None = None,
) -> Tensor:
    r"""h ← e^{ΔA} h + Δ b x in place per channel and state, and y = Σ_n c h + D x of every sequence; no gradients.

    - `state` (rows, D, N), float32, each row contiguous: it is changed.
    - `x`, `delta` (B, D): a token and its steps (after softplus), in float32, float16 or bfloat16 (float64 on the CPU,
      with such a state). `A` (D, N): rates. `b`, `c` (B, G, N) in the type of x, each shared by the channels of one of
      G groups. `skip` D (D,).
    - `slots` as in `scan_step`.

    Returns y (B, D) in the type of x, zero for sequences at rest. Slots out of range and what is raised as in
    `decay_step`.

    Source: Gu and Dao (arXiv 2312.00752), with Euler's rule for b as in their code.

    >>> import torch
    >>> from dsf.kernels import selective_step
    >>> state, one, half = torch.zeros(1, 1, 1), torch.ones(1, 1), torch.full((1, 1), 0.5).log()
    >>> [selective_step(state, one, one, half, one[None], one[None]).item() for _ in range(3)]
    [1.0, 1.5, 1.75]
    """
    check_alike(x=x, delta=delta, b=b, c=c)
    check_real(x, x=x, A=A, skip=skip)
    given = {"state": state, "x": x, "delta": delta, "A": A, "b": b, "c": c, "skip": skip}
    require_no_gradient("selective_step", given, "selective_scan")
    require_runnable(x)
    return _selective(state, x, delta, A, b, c, skip, slots)


def _scan_on_cuda(*inputs):
    return vector.launch_scan(vector.Gated(*inputs))


def _scan_on_cpu(*inputs):
    q = vector.Gated(*inputs)
    here, rows = active(q.slots, q.state, q.a.shape[0])
    wide, h = q.state.dtype, q.output().zero_()
    h[here] = q.a[here].to(wide) * q.state[rows] + q.b[here].to(wide)
    q.state[rows] = h[here]
    return h


def _scan_shapes(state, a, b, slots):
    return state.new_empty(a.shape)


def _selective_on_cuda(*inputs):
    return vector.launch_selective(vector.Selective(*inputs))


def _selective_on_cpu(*inputs):
    q = vector.Selective(*inputs)
    here, rows = active(q.slots, q.state, q.x.shape[0])
    wide, y = q.state.dtype, q.output().zero_()
    x, delta = q.x[here].to(wide), q.delta[here].to(wide)
    b, c = (e[here].repeat_interleave(x.shape[1] // q.groups, 1).to(wide) for e in (q.b, q.c))
    gates = torch.exp(delta[..., None] * q.A.to(wide))
    h = gates * q.state[rows] + (delta * x)[..., None] * b
    out = (h * c).sum(-1)
    if q.skip is not None:
        out = out + q.skip.to(wide) * x
    q.state[rows], y[here] = h, out.to(y.dtype)
    return y


def _selective_shapes(state, x, *others):
    return x.new_empty(x.shape)


_scan = define_in_place(
    Signature("scan_step", ("state", "a", "b"), ("Tensor? slots",), results=1, mutates=("state",)),
    cuda=_scan_on_cuda,
    cpu=_scan_on_cpu,
    shapes=_scan_shapes,
)
_selective = define_in_place(
    Signature(
        "selective_step",
        ("state", "x", "delta", "A", "b", "c"),
        ("Tensor? skip", "Tensor? slots"),
        results=1,
        mutates=("state",),
    ),
    cuda=_selective_on_cuda,
    cpu=_selective_on_cpu,
    shapes=_selective_shapes,
)

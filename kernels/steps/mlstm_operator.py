"""The step of the mLSTM: its normaliser and stabiliser first, then its memory as any decaying state."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.library import Signature, define_in_place, require_no_gradient, require_runnable
from dsf.kernels.numbers import check_alike, check_real

from . import matrix
from . import matrix_reference as reference
from .cache import checked_cache


def mlstm_step(
    state: Tensor,
    normaliser: Tensor,
    stabiliser: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    input_gate: Tensor,
    log_forget: Tensor,
    *,
    scale: float = 1.0,
    slots: Tensor | None = None,
) -> Tensor:
    r"""m' = max(f + m, i), S ← e^{f+m-m'} S + e^{i-m'} k vᵀ, n likewise with k, y = s Sᵀq / max(|s nᵀq|, e^{-m'}).

    In place and without gradients, f = log σ(f̃) or the logarithm of any forget gate.

    - `state` (rows, H, K, V), `normaliser` (rows, H, K), `stabiliser` m (rows, H), float32, each row contiguous: all
      are changed. A sequence begins with zeros and m = -inf.
    - `q` (B, Hq, K), `k` (B, Hk, K), `v` (B, Hv, V) as in `decay_step`; `input_gate` i and `log_forget` f (B, H). The
      paper divides k by √K; scale = K**-0.5 gives the same outputs.
    - `slots`, what is returned and what is raised as in `decay_step`.

    n is the state of one more value that is always written a one; it has a program of its own, which forms m' and the
    divisor for the step of S.

    Source: Beck et al. (arXiv 2405.04517), section 2.3, stabilised as in section 2.2.

    >>> import torch
    >>> from dsf.kernels import mlstm_step
    >>> state, n, m = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1), torch.full((1, 1), -torch.inf)
    >>> one, gate = torch.ones(1, 1, 1), torch.full((1, 1), 1000.0)
    >>> [mlstm_step(state, n, m, one, one, x * one, gate, 0 * gate).item() for x in (1.0, 3.0)]
    [1.0, 2.0]
    """
    check_alike(q=q, k=k, v=v)
    check_real(q, q=q, input_gate=input_gate, log_forget=log_forget)
    given = {"state": state, "normaliser": normaliser, "stabiliser": stabiliser, "q": q, "k": k}
    given |= {"v": v, "input_gate": input_gate, "log_forget": log_forget}
    require_no_gradient("mlstm_step", given, "a form of dsf.run")
    require_runnable(v)
    return _operator(state, normaliser, stabiliser, q, k, v, input_gate, log_forget, slots, scale)


def _checked(
    state: Tensor,
    normaliser: Tensor,
    stabiliser: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    input_gate: Tensor,
    log_forget: Tensor,
    slots: Tensor | None,
    scale: float,
) -> matrix.Token:
    """The token, with the raw gates in the places of g and β."""
    token = matrix.Token(
        state, q, k, v, log_forget, input_gate, None, None, None, slots, scale, "none", False
    )
    if token.gate != "scalar":
        raise InvalidInput(f"`log_forget` must be (B, H); got {tuple(log_forget.shape)}")
    checked_cache("normaliser", normaliser, (token.heads, q.shape[2]), "H, K", v)
    checked_cache("stabiliser", stabiliser, (token.heads,), "H", v)
    if not state.shape[0] == normaliser.shape[0] == stabiliser.shape[0]:
        raise InvalidInput("`state`, `normaliser` and `stabiliser` must have as many rows")
    return token


def _on_cuda(*inputs):
    token, (_, n, m, q, k, _, enters, fades, slots, scale) = _checked(*inputs), inputs
    g, beta, divisor = matrix.launch_normaliser(q, k, enters, fades, n, m, slots, scale)
    return matrix.launch(replace(token, g=g, beta=beta, divisor=divisor))


def _on_cpu(*inputs):
    token, (_, n, m, q, k, _, enters, fades, slots, scale) = _checked(*inputs), inputs
    g, beta, divisor = reference.normaliser_step(q, k, enters, fades, n, m, slots, scale)
    return reference.step(replace(token, g=g, beta=beta, divisor=divisor))


def _shapes(state, normaliser, stabiliser, q, k, v, *others):
    return v.new_empty(q.shape[0], state.shape[1], v.shape[-1])


_operator = define_in_place(
    Signature(
        "mlstm_step",
        ("state", "normaliser", "stabiliser", "q", "k", "v", "input_gate", "log_forget"),
        ("Tensor? slots", "float scale"),
        results=1,
        mutates=("state", "normaliser", "stabiliser"),
    ),
    cuda=_on_cuda,
    cpu=_on_cpu,
    shapes=_shapes,
)

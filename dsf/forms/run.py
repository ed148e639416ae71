"""Running a system on tokens, in a form given or selected."""

from __future__ import annotations

from torch import Tensor

from dsf.errors import Refused, require
from dsf.precision import keeps_precision
from dsf.state import State
from dsf.system import System

from .base import Form
from .lowering import lower
from .selection import named, select


@keeps_precision
def run(
    system: System, tokens: Tensor, state: State | None = None, *, form: Form | str | None = None
) -> tuple[Tensor, State]:
    r"""Outputs and final state of a system: h_i = Λ_i h_{i-1} + B_i u_i, y_i = C_i h_i + D_i u_i.

    `tokens` u are (B, T, H, V), or (B, T, H, R, V) where the system writes R vectors per step; the
    outputs have the same axes, length and precision. `state` starts the recurrence (empty if None)
    and the state returned continues it: one run over T steps equals a run over the first t followed
    by a run over the rest from its state. Accumulators and state are float32 or wider. Both results
    are differentiable in every input. For packed systems states have the sequences as first axis.

    `form` is a form, its name, or None to let `select` choose. Raises `Refused` with the reason
    where the form does not admit the system, `InvalidInput` where shapes do not fit.

    >>> import torch
    >>> from dsf.mixers import retnet
    >>> q = k = v = torch.ones(1, 3, 1, 2)
    >>> y, state = run(retnet(q, k, decay=torch.tensor([0.5])), v)
    >>> y[0, :, 0, 0]
    tensor([2.0000, 3.0000, 3.5000])
    """
    require("system", system, System)
    require("tokens", tokens, Tensor)
    if state is not None:
        require("state", state, State)
    chosen = select(system, tokens) if form is None else named(form)
    if not (answer := chosen.admits(system)):
        raise Refused(answer)
    if system.boundaries is not None:
        from dsf.packing import run_packed  # packing runs its pieces through this function

        return run_packed(system, tokens, state, chosen)
    lowered = lower(system, tokens, state)
    return lowered.finish(*chosen.evaluate(lowered.core))

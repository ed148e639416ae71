r"""What the operators of decays compute on the CPU: the package's chunk form, forward and backward.

The backward runs the form again with autograd, which calls the form's own adjoint: it keeps the states at the starts of
chunks, and none beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor

import dsf
from dsf.coupling import OuterCoupling
from dsf.kernels.shapes import repeated, windows
from dsf.state import State
from dsf.structure import Diagonal, Scalar
from dsf.system import System


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    starts: Tensor | None,
    bonus: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) and final states (N, H, K, V), differentiable in every tensor.

    Decays e^g are per head or, with g (B, T, H, K), per key. With a bonus (H, K) steps are read before their update.
    """
    heads = g.shape[2]
    q, k, v = repeated(q, heads), repeated(k, heads), repeated(v, heads)
    outputs, finals = [v[:, :0]], [state[:0]]
    for steps, first in windows(state, q.shape[1], starts):
        system = _system(q[:, steps], k[:, steps], g[:, steps], state.dtype, scale, bonus)
        output, final = dsf.run(system, v[:, steps], State(first), form="chunkwise")
        outputs.append(output)
        finals.append(final.memory)
    return torch.cat(outputs, 1), torch.cat(finals)


def _system(
    q: Tensor, k: Tensor, g: Tensor, dtype: torch.dtype, scale: float, bonus: Tensor | None
) -> System:
    kind = Diagonal if g.ndim == 4 else Scalar
    gates, write, read = kind.from_log(g.to(dtype)), OuterCoupling(k), scale * q.to(dtype)
    if bonus is None:
        return System(gates, write, OuterCoupling(read))
    own = (read * bonus.to(dtype) * k).sum(-1)
    return System(gates, write, OuterCoupling(read), feedthrough=Scalar(own), timing="before")

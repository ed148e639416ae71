"""Steps of decoding on matrix states: by decay, by the delta rule, and by diagonal plus low rank."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.library import Signature, define_in_place, require_no_gradient, require_runnable
from dsf.kernels.numbers import check_alike, check_real

from . import matrix
from . import matrix_reference as reference


def decay_step(
    state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    beta: Tensor | None = None,
    bonus: Tensor | None = None,
    timing: Literal["after", "before"] = "after",
    scale: float = 1.0,
    slots: Tensor | None = None,
) -> Tensor:
    r"""S ← D S + β k vᵀ in place, and y = s Sᵀ q of every sequence's next token, D = e^g; no gradients.

    - `state` (rows, H, K, V), float32, each row contiguous: it is changed.
    - `q` (B, Hq, K), `k` (B, Hk, K), `v` (B, Hv, V): one of float32, float16, bfloat16 (float64 on the CPU, with such a
      state). H is a multiple of Hq, Hk and Hv: heads in a row share.
    - `g` log-decays (B, H) or (B, H, K), none for D = 1, -inf for an exact zero. `beta` (B, H): the write's strengths.
    - `timing` "before" reads S as it was; then `bonus` u (H, K) adds diag(u) β k vᵀ to what is read (RWKV-6).
    - `slots` (B,), int32 or int64: the row of each sequence, all different; -1 leaves it at rest. None: B = rows.

    Returns y (B, H, V) in the type of v, zero for sequences at rest. A slot beyond the last row raises on the CPU; on
    CUDA it changes nothing and gives NaN. CUDA tensors run the Triton kernel, CPU tensors torch. Raises `InvalidInput`
    for what does not fit, and `Refused` on CUDA without Triton or where autograd would record.

    Source: the recurrent forms of Yang et al. (arXiv 2312.06635) and Peng et al. (arXiv 2404.05892).

    >>> import torch
    >>> from dsf.kernels import decay_step
    >>> state, one = torch.zeros(2, 1, 1, 1), torch.ones(1, 1, 1)
    >>> g, slots = torch.full((1, 1), 0.5).log(), torch.tensor([1])
    >>> [decay_step(state, one, one, one, g, slots=slots).item() for _ in range(3)]
    [1.0, 1.5, 1.75]
    >>> state.flatten()
    tensor([0.0000, 1.7500])
    """
    if timing not in ("after", "before"):
        raise InvalidInput(f"`timing` must be 'after' or 'before'; got {timing!r}")
    if bonus is not None and timing != "before":
        raise InvalidInput(
            'a `bonus` is for the token that the state does not have: timing="before"'
        )
    check_real(q, q=q, g=g, beta=beta, bonus=bonus)
    given = {"state": state, "q": q, "k": k, "v": v, "g": g, "beta": beta, "bonus": bonus}
    require_no_gradient("decay_step", given, "scalar_decay, or a form of dsf.run")
    before = timing == "before"
    return _stepped(state, q, k, v, g, beta, None, None, bonus, slots, scale, "none", before)


def delta_step(
    state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None = None,
    g: Tensor | None = None,
    *,
    scale: float = 1.0,
    slots: Tensor | None = None,
) -> Tensor:
    r"""S ← D S, then S ← S + β_r k_r (v_r - k_rᵀ S)ᵀ for r = 1 … R, in place, and y = s Sᵀ q; no gradients.

    - `k` (B, Hk, K) and `v` (B, Hv, V), or (B, Hk, R, K) and (B, Hv, R, V) for R micro-steps in a token (DeltaProduct).
    - `beta` (B, H) or (B, H, R): strengths, 1 where they are not given. `g` (B, H) or (B, H, K): D = e^g, once per
      token (Gated DeltaNet, KDA).
    - `state`, `q`, `slots`, what is returned and what is raised as in `decay_step`.

    Source: Schlag et al. (arXiv 2102.11174); Yang et al. (arXiv 2412.06464, equation 10); Siems et al. (arXiv
    2502.10297), the recurrent forms.

    >>> import torch
    >>> from dsf.kernels import delta_step
    >>> state, key = torch.zeros(1, 1, 2, 1), torch.tensor([[[1.0, 0.0]]])
    >>> [delta_step(state, key, key, torch.full((1, 1, 1), x)).item() for x in (5.0, 6.0)]
    [5.0, 6.0]
    """
    check_real(q, q=q, beta=beta, g=g)
    given = {"state": state, "q": q, "k": k, "v": v, "beta": beta, "g": g}
    require_no_gradient("delta_step", given, "a form of dsf.run")
    return _stepped(state, q, k, v, g, beta, None, None, None, slots, scale, "delta", False)


def dplr_step(
    state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor | None = None,
    *,
    scale: float = 1.0,
    slots: Tensor | None = None,
) -> Tensor:
    r"""S ← D S + a (bᵀ S) + k vᵀ in place, where b reads the undecayed state, and y = s Sᵀ q; no gradients.

    - `a`, `b` (B, Hk, K) like `k`, in any type. RWKV-7: a = -α ⊙ κ̂, b = κ̂. Any `dsf.structure.DPLR` of rank 1: its
      left and right vectors.
    - `g` (B, H) or (B, H, K): D = e^g. The others, what is returned and what is raised as in `decay_step`.

    Source: Peng et al. (arXiv 2503.14456), own wording.

    >>> import torch
    >>> from dsf.kernels import dplr_step
    >>> state, key = torch.zeros(1, 1, 2, 1), torch.tensor([[[1.0, 0.0]]])
    >>> [dplr_step(state, key, key, torch.full((1, 1, 1), x), -key, key).item() for x in (5.0, 6.0)]
    [5.0, 6.0]
    """
    check_real(q, q=q, a=a, b=b, g=g)
    given = {"state": state, "q": q, "k": k, "v": v, "a": a, "b": b, "g": g}
    require_no_gradient("dplr_step", given, "a form of dsf.run")
    return _stepped(state, q, k, v, g, None, a, b, None, slots, scale, "dplr", False)


def _stepped(state: Tensor, q: Tensor, k: Tensor, v: Tensor, *others) -> Tensor:
    check_alike(q=q, k=k, v=v)
    require_runnable(v)
    return _operator(state, q, k, v, *others)


def _on_cuda(*inputs):
    return matrix.launch(matrix.Token(*inputs))


def _on_cpu(*inputs):
    return reference.step(matrix.Token(*inputs))


def _shapes(state, q, k, v, *others):
    return v.new_empty(q.shape[0], state.shape[1], v.shape[-1])


_operator = define_in_place(
    Signature(
        "matrix_step",
        ("state", "q", "k", "v"),
        (
            *(f"Tensor? {name}" for name in ("g", "beta", "a", "b", "bonus", "slots")),
            *("float scale", "str erase", "bool before"),
        ),
        results=1,
        mutates=("state",),
    ),
    cuda=_on_cuda,
    cpu=_on_cpu,
    shapes=_shapes,
)

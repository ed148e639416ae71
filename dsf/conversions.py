r"""Architectures written as others: each function takes the quantities of one and returns a `System` of another.

The outputs are the same under the condition that is named; `CONVERSIONS` lists them, `dsf.twin.prove_equal`
proves each from the code itself, and `dsf.claims.catalogue` states them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.gauges import change_gauge
from dsf.mixers.comba import comba
from dsf.mixers.delta_product import delta_product
from dsf.mixers.discretisation import discretise
from dsf.mixers.gated_deltanet import gated_deltanet
from dsf.mixers.gla import gla
from dsf.mixers.kda import kda
from dsf.mixers.linear_attention import linear_attention
from dsf.mixers.mamba3 import mamba3
from dsf.mixers.mingru import mingru
from dsf.mixers.retnet import retnet
from dsf.mixers.rwkv7 import rwkv7
from dsf.mixers.s4d import s4d
from dsf.mixers.s5 import s5
from dsf.mixers.ssd import ssd
from dsf.mixers.titans import titans_linear
from dsf.structure import DPLR, Diagonal, Scalar, compose
from dsf.system import Normaliser, System


def linear_attention_as_retnet(q: Tensor, k: Tensor) -> System:
    """Linear attention without feature map and normaliser: a decay of 1."""
    return retnet(q, k, decay=torch.ones_like(k[0, 0, :, 0]))


def retnet_as_ssd(q: Tensor, k: Tensor, decay: Tensor) -> System:
    """Steps of 1 and A = log γ."""
    return ssd(torch.ones_like(k[..., 0]), torch.log(decay), k, q)


def ssd_as_gla(delta: Tensor, A: Tensor, b: Tensor, c: Tensor) -> System:
    """Keys Δ b, and one log-decay ΔA for all channels."""
    return gla(c, delta[..., None] * b, (delta * A)[..., None] * torch.ones_like(b))


def s6_as_ssd(delta: Tensor, A: Tensor, b: Tensor, c: Tensor) -> System:
    """One head, where Δ and A are the same for all channels and states: Δ and A of the first are taken."""
    return ssd(delta[..., :1], A[0, :1], b[:, :, None], c[:, :, None])


def s6_as_s4d(delta: Tensor, A: Tensor, b: Tensor, c: Tensor) -> System:
    """Channels as heads, where Δ, b and c are the same at all steps and in the batch: the first are taken.

    S6 writes Δ b by Euler's rule, S4D (e^{ΔA} - 1)/A b: b is divided by the quotient of the two.
    """
    step, exponent = delta[0, 0], delta[0, 0, :, None] * A
    own = b[0, 0] * exponent / torch.expm1(exponent)
    zero = torch.zeros_like(own)
    rate, weight = torch.complex(A, zero), torch.complex(own, zero)
    return s4d(step, rate, weight, torch.complex(c[0, 0] / 2 + zero, zero))


def mingru_as_zero_order_hold(gate: Tensor) -> System:
    """h' = -h + u held over steps softplus(gate): S6 with one state, A = -1 and exact zero-order hold."""
    step = softplus(gate)[..., None]
    transition, held = discretise(step, -torch.ones_like(step), "zoh")
    return System(transition, OuterCoupling(held), OuterCoupling(torch.ones_like(held[:1, :1])))


def minlstm_as_mingru(forget: Tensor, enter: Tensor) -> System:
    """i/(f + i) is one sigmoid, of log i - log f."""
    return mingru(logsigmoid(enter) - logsigmoid(forget))


def hgrn2_as_gla(q: Tensor, forget: Tensor, lower: Tensor) -> System:
    """Keys 1 - f."""
    open_ = lower + (1 - lower) * forget.sigmoid()
    return gla(q, 1 - open_, torch.log(open_))


def rwkv6_as_gla(r: Tensor, k: Tensor, w: Tensor, u: Tensor) -> System:
    """GLA read before its update, and the bonus as feedthrough."""
    system = gla(r, k, -torch.exp(w))
    return system.replace(timing="before", feedthrough=Scalar((r * u * k).sum(-1)))


def mlstm_as_ssd(q: Tensor, k: Tensor, input_gate: Tensor, forget_gate: Tensor) -> System:
    """Gates in linear space, without the running maximum: SSD on keys e^{ĩ} k/√K with a normaliser."""
    written = torch.exp(input_gate)[..., None] * k / k.shape[-1] ** 0.5
    return System(
        Scalar.from_log(logsigmoid(forget_gate)),
        OuterCoupling(written),
        OuterCoupling(q),
        normaliser=Normaliser(floor=1.0),
    )


def aaren_as_linear_attention(q: Tensor, k: Tensor) -> System:
    """The feature e^{s_j} of a key, read by 1."""
    weights = torch.exp((q * k).sum(-1, keepdim=True) / k.shape[-1] ** 0.5)
    return linear_attention(torch.ones_like(weights), weights, feature=None)


def kda_as_product(q: Tensor, k: Tensor, beta: Tensor, g: Tensor) -> System:
    """The Householder step after the decay, multiplied in the algebra of transitions."""
    transition = compose(DPLR.householder(k, beta), Diagonal.from_log(g))
    return System(transition, OuterCoupling(beta[..., None] * k), OuterCoupling(q))


def gated_deltanet_as_kda(q: Tensor, k: Tensor, g: Tensor, beta: Tensor) -> System:
    """The decay repeated for every channel."""
    return kda(q, k, beta, g[..., None] * torch.ones_like(k))


def deltanet_as_gated_deltanet(q: Tensor, k: Tensor, beta: Tensor) -> System:
    """A log-decay of 0."""
    return gated_deltanet(q, k, torch.zeros_like(beta), beta)


def gated_deltanet_as_comba(q: Tensor, k: Tensor, g: Tensor, beta: Tensor) -> System:
    """Erasing with the whole key, and no correction of the read-out."""
    inner = torch.full_like(beta[0, 0], torch.inf)
    return comba(q, k, beta, g, inner, torch.zeros_like(inner))


def gated_deltanet_as_delta_product(q: Tensor, k: Tensor, g: Tensor, beta: Tensor) -> System:
    """One Householder step per token (tokens get an axis R = 1)."""
    return delta_product(q, k[..., None, :], beta[..., None], g)


def delta_product_as_deltanet_steps(q: Tensor, k: Tensor, beta: Tensor, g: Tensor) -> list[System]:
    """Per token r = 1 … R a Gated DeltaNet of its r-th keys, the decay in the first: micro-steps in turn."""
    return [
        gated_deltanet(q, k[..., r, :], g if r == 0 else torch.zeros_like(g), beta[..., r])
        for r in range(k.shape[-2])
    ]


def deltanet_as_titans(q: Tensor, k: Tensor, beta: Tensor) -> System:
    """No momentum and no forgetting."""
    zero = torch.zeros_like(beta)
    return titans_linear(q, k, beta, zero, zero)


def titans_as_dplr(q: Tensor, k: Tensor, theta: Tensor, eta: Tensor, alpha: Tensor) -> System:
    """Where there is no momentum, η = 0: (1 - α) I - θ k kᵀ, which erases from the undecayed memory."""
    del eta
    erased = -theta[..., None] * k
    return System(
        DPLR(Scalar(1 - alpha), erased[..., None], k[..., None]),
        OuterCoupling(theta[..., None] * k),
        OuterCoupling(q),
    )


def deltanet_as_rwkv7(q: Tensor, k: Tensor, beta: Tensor) -> System:
    """For keys of unit length: no decay, rates β, and β k as replacement key."""
    shut = torch.full_like(k, -torch.inf)
    return rwkv7(q, shut, beta[..., None] * k, k, beta[..., None] * torch.ones_like(k))


def ssd_as_mamba3(delta: Tensor, A: Tensor, b: Tensor, c: Tensor) -> System:
    """Euler's rule, λ = 1, and no rotation."""
    decay = A + torch.zeros_like(delta)
    still = torch.zeros_like(b[..., ::2])
    return mamba3(c, b, delta, decay, torch.full_like(delta, torch.inf), still)


def log_linear_as_gla(q: Tensor, k: Tensor, g: Tensor, scales: Tensor) -> System:
    """Where all scales are 1 the buckets add up to the base model."""
    del scales
    return gla(q, k, g[..., None] * torch.ones_like(k))


def lru_as_s5(log_rate: Tensor, phase: Tensor, b: Tensor, c: Tensor) -> System:
    """Steps of 1 and A = log λ; b is divided by what zero-order hold multiplies it with."""
    decay = -torch.exp(log_rate)
    rate = torch.complex(decay, phase)
    gain = torch.sqrt(1 - torch.exp(2 * decay)) * rate / torch.expm1(rate)
    return s5(torch.ones_like(log_rate), rate, gain[:, None] * b, c / 2)


def s4_as_s4d(step: Tensor, A: Tensor, p: Tensor, b: Tensor, c: Tensor) -> System:
    """Where p = 0: the bilinear rule on the diagonal alone."""
    del p
    return s4d(step, A, b, c, discretisation="bilinear")


def normaliser_gauge(system: System, eta: Tensor) -> System:
    """C = c/η as Λ̃_i = (η_{i-1}/η_i) Λ_i, B̃ = B/η, C̃ = c, for η (B, T, H) and η_0 = 1; initial states stay.

    >>> from dsf.mixers import normalised_attention
    >>> q, n = torch.ones(1, 2, 1, 1), torch.tensor([1.0, 2.0]).reshape(1, 2, 1)
    >>> normaliser_gauge(normalised_attention(q, q, n), torch.exp(n)).read.weights.flatten()
    tensor([1., 1.])
    """
    scale = torch.cat([torch.ones_like(eta[:, :1]), 1 / eta], 1)
    return change_gauge(system, scale)


def diagonalised(A: Tensor, b: Tensor, c: Tensor) -> System:
    r"""The dense recurrence h_i = A h_{i-1} + b u_i, y_i = c h_i over its eigenvectors: LRU's and S5's form.

    `A` (N, N), `b` (N, V), `c` (V, N), real; tokens (B, T, 1, V). Raises `InvalidInput` where the
    eigenvectors are dependent to working precision: such a matrix has no diagonal form.

    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> system = diagonalised(turn, torch.eye(2), torch.eye(2))
    >>> sorted(system.transition.leaves[0].flatten().imag.tolist())
    [-1.0, 1.0]
    """
    poles, vectors = torch.linalg.eig(A)
    if float(torch.linalg.cond(vectors)) * torch.finfo(A.dtype).eps > 1e-3:
        raise InvalidInput("`A` has no basis of eigenvectors to working precision: it stays Dense")
    entered = torch.linalg.solve(vectors, b.to(vectors.dtype))
    return System(
        Diagonal(poles[None, None, None]),
        DenseCoupling(entered[None, None, None]),
        DenseCoupling((c.to(vectors.dtype) @ vectors)[None, None, None]),
        real_part=True,
    )


@dataclass(frozen=True)
class Conversion:
    """One row of the catalogue: `convert` takes the quantities of `source` (an architecture's name).

    `condition` says when the outputs are the same and `under` restricts the quantities to it; `leave`
    names quantities that the source runs without (an optional feedthrough).
    """

    source: str
    target: str
    convert: Callable[..., System]
    condition: str = ""
    under: Mapping[str, Any] = field(default_factory=dict)
    leave: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.convert.__name__


def _first(x: Tensor) -> Tensor:
    """All entries as the first."""
    return x.reshape(-1)[0] + 0 * x


def _first_channel(x: Tensor) -> Tensor:
    return x[..., :1] + 0 * x


def _first_step(x: Tensor) -> Tensor:
    return x[:1, :1] + 0 * x


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


CONVERSIONS: tuple[Conversion, ...] = (
    Conversion(
        "linear-attention",
        "retnet",
        linear_attention_as_retnet,
        "no feature map, no normaliser",
        options={"feature": None, "normalise": False},
    ),
    Conversion("ssd", "gla", ssd_as_gla, leave=("skip",)),
    Conversion(
        "s6",
        "ssd",
        s6_as_ssd,
        "Δ and A shared by channels and states",
        {"A": _first, "delta": _first_channel},
        ("skip",),
    ),
    Conversion(
        "s6",
        "s4d",
        s6_as_s4d,
        "Δ, b and c constant in time and batch",
        {"delta": _first_step, "b": _first_step, "c": _first_step},
        ("skip",),
    ),
    Conversion("mingru", "zero-order hold", mingru_as_zero_order_hold),
    Conversion("minlstm", "mingru", minlstm_as_mingru),
    Conversion("hgrn2", "gla", hgrn2_as_gla),
    Conversion("rwkv6", "gla, read before the update", rwkv6_as_gla),
    Conversion("aaren", "linear-attention", aaren_as_linear_attention),
    Conversion("kda", "product of its factors", kda_as_product),
    Conversion("gated-deltanet", "kda", gated_deltanet_as_kda),
    Conversion("deltanet", "gated-deltanet", deltanet_as_gated_deltanet),
    Conversion("gated-deltanet", "comba", gated_deltanet_as_comba),
    Conversion("gated-deltanet", "delta-product", gated_deltanet_as_delta_product),
    Conversion("deltanet", "titans-linear", deltanet_as_titans),
    Conversion("titans-linear", "DPLR", titans_as_dplr, "no momentum, η = 0", {"eta": 0.0}),
    Conversion("deltanet", "rwkv7", deltanet_as_rwkv7, "keys of unit length", {"k": _unit}),
    Conversion("ssd", "mamba3", ssd_as_mamba3, leave=("skip",)),
    Conversion("log-linear", "gla", log_linear_as_gla, "all scales 1", {"scales": 1.0}),
    Conversion("lru", "s5", lru_as_s5, leave=("skip",)),
    Conversion("s4", "s4d", s4_as_s4d, "p = 0", {"p": 0.0}, ("skip",)),
    Conversion("mlstm", "SSD with a normaliser", mlstm_as_ssd),
)

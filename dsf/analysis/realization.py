r"""Realizations: state equations whose state may have another size at every cut in time.

    x_{i+1} = A_i x_i + B_i u_i,        y_i = C_i x_i + D_i u_i,        x_0 = 0.

x_i is the state at cut i, between steps i - 1 and i, so it is all that the steps from i on know of
the tokens before: Φ[i:, :i] = O_i R_i with R_i from past tokens to x_i and O_i from x_i to future
outputs. Cuts are numbered 0 … T. A `System` reads after its update (or before it), which here is
C_i = C Λ_i, D_i = C B_i + D (or C, D).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput
from dsf.forms.mixing import channels_as_heads
from dsf.gauges import normaliser_into_read
from dsf.structure import Block, Dense, Scalar, Structure
from dsf.system import System


@dataclass(frozen=True, eq=False)
class Realization:
    """One head: A_i (n_{i+1}, n_i), B_i (n_{i+1}, m), C_i (p, n_i), D_i (p, m), one array per step."""

    A: tuple[np.ndarray, ...]
    B: tuple[np.ndarray, ...]
    C: tuple[np.ndarray, ...]
    D: tuple[np.ndarray, ...]

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.A)

    @property
    def orders(self) -> tuple[int, ...]:
        """n_0 … n_T, the size of the state at every cut."""
        return (*(a.shape[1] for a in self.A), self.A[-1].shape[0]) if self.A else (0,)

    def matrix(self) -> np.ndarray:
        """Φ (T p, T m), rows by carrying R_i along: work T² n²."""
        if not self.A:
            return np.zeros((0, 0))
        p, m = self.D[0].shape
        kind = np.result_type(*(x[0] for x in (self.A, self.B, self.C, self.D)))
        phi = np.zeros((self.length * p, self.length * m), dtype=kind)
        reached = np.zeros((self.orders[0], 0), dtype=kind)
        for i, (a, b, c, d) in enumerate(zip(self.A, self.B, self.C, self.D, strict=True)):
            rows = slice(i * p, (i + 1) * p)
            phi[rows, : i * m] = c @ reached
            phi[rows, i * m : (i + 1) * m] = d
            reached = np.concatenate([a @ reached, b], 1)
        return phi


@dataclass(frozen=True, eq=False)
class Heads:
    """The realizations of all heads, in the order of `lead`: (B, H), or (B, H, V) where channels differ.

    `several` and `dense` say how tokens come: R vectors per step, or tokens of a vector state.
    """

    lead: tuple[int, ...]
    members: tuple[Realization, ...]
    several: bool = False
    dense: bool = False

    def stack(self, rows: list[np.ndarray]) -> np.ndarray:
        """One array with the leading axes from one array per head, filled up with zeros."""
        if not rows:
            return np.zeros(self.lead)
        shape = np.max([row.shape for row in rows], axis=0)
        filled = [
            np.pad(row, [(0, n - have) for n, have in zip(shape, row.shape, strict=True)])
            for row in rows
        ]
        return np.stack(filled).reshape(*self.lead, *shape)


def heads_of(of: System | Tensor | np.ndarray, length: int | None = None) -> Heads | np.ndarray:
    """The realizations of a system's heads, or Φ (…, T, T) as a checked numpy array."""
    return realize(of, length) if isinstance(of, System) else causal_matrix(of)


def causal_matrix(phi: Tensor | np.ndarray) -> np.ndarray:
    """Φ (…, T, T) in float64 or complex128; raises `InvalidInput` unless it is causal and finite."""
    array = phi.detach().cpu().resolve_conj().numpy() if isinstance(phi, Tensor) else phi
    if not isinstance(array, np.ndarray) or array.ndim < 2 or array.shape[-1] != array.shape[-2]:
        given = getattr(array, "shape", type(array).__name__)
        raise InvalidInput(
            f"give a System or a mixing matrix Φ with axes (…, T, T); got {given}. For several tokens "
            "per step, or dense couplings, give the System"
        )
    array = array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
    if not np.isfinite(array).all():
        raise InvalidInput(
            "Φ has numbers that are not finite: `dsf.diagnose` finds where they start"
        )
    if np.triu(array, 1).any():
        raise InvalidInput(
            "Φ is not causal: it has entries above the diagonal. Only causal maps have a state; "
            "split a bidirectional one into its two triangles"
        )
    return array


def realize(system: System, length: int | None = None) -> Heads:
    r"""The realization of each head, in float64 or complex128, from an empty state.

    A normaliser is divided into the read-out (Φ is linear in the tokens for fixed η), a logarithmic
    write gate is written out in its stabiliser's gauge, a real part becomes a real system of twice
    the size, and an offset, which no token changes, is left out. `length` is needed for a
    time-invariant system. Raises `InvalidInput` for packed systems, timing "end", numbers that are
    not finite, and a Dense feedthrough beside outer couplings.

    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 3, 1, 1)
    >>> realize(retnet(q, q, decay=torch.tensor([0.5]))).members[0].matrix()
    array([[1.  , 0.  , 0.  ],
           [0.5 , 1.  , 0.  ],
           [0.25, 0.5 , 1.  ]])
    """
    plain, values = _plain(system, length)
    batch, steps, heads = plain.lead
    b, c = plain.write.weights, plain.read.weights
    if isinstance(plain.write, OuterCoupling) and isinstance(plain.read, OuterCoupling):
        b, c = plain.write.stacked().mT, plain.read.stacked()
    lead = (batch, steps, heads)
    b, c = (x.expand(*lead, *x.shape[3:]) for x in (b, c))
    a = plain.transition.dense(plain.key_size).to(b.device)
    a = a.expand(*lead, *a.shape[-2:])
    d = _direct(plain.feedthrough, c.shape[-2], b.shape[-1], plain.is_vector)
    A, B, C, D = (_numpy(x) for x in (a, b, c, d.expand(*lead, *d.shape[-2:])))
    if plain.timing == "after":
        C, D = C @ A, C @ B + D
    if plain.real_part:
        A, B, C, D = _real(A, B, C, D)
    if not all(np.isfinite(x).all() for x in (A, B, C, D)):
        raise InvalidInput(
            "the system has numbers that are not finite (a bad gate, or a normaliser that vanishes): "
            "`dsf.diagnose` finds bad numbers, `dsf.gauges.denominators` gives the normaliser"
        )
    members = tuple(
        Realization(*(tuple(x[i, :, h]) for x in (A, B, C, D)))
        for i in range(batch)
        for h in range(heads)
    )
    shape = (batch, heads) if values is None else (batch, heads // values, values)
    return Heads(shape, members, plain.writes is not None, plain.is_vector)


def _plain(system: System, length: int | None, divide: bool = True) -> tuple[System, int | None]:
    """The system with a definite length, no normaliser, no offset, channels that agree."""
    if system.boundaries is not None:
        raise InvalidInput("the system is packed: use `dsf.unpack` and analyse one by one")
    if system.timing == "end":
        raise InvalidInput("timing 'end' reads one state for all queries: its Φ is not causal")
    if system.length is None and length is None:
        raise InvalidInput("the system is time-invariant: give `length`")
    plain = replace(system.expand(length), offset=None)
    if plain.normaliser is not None and divide:
        plain = normaliser_into_read(plain)
    if plain.is_vector:
        return plain, None
    if isinstance(plain.feedthrough, Dense | Block):
        raise InvalidInput("a feedthrough that mixes value channels leaves no map per channel")
    values = plain.value_size
    if values is None and plain.feedthrough is not None:
        values = plain.feedthrough.key_size
    return (plain, None) if values is None else (channels_as_heads(plain, values), values)


def _direct(feedthrough: Structure | None, outputs: int, inputs: int, vector: bool) -> Tensor:
    """D_i (…, p, m): on the value axis of a vector state, a scalar per step otherwise."""
    if feedthrough is None:
        return torch.zeros(outputs, inputs, dtype=torch.float64)
    if outputs != inputs:
        raise InvalidInput(
            f"a feedthrough needs as many read-outs as writes; got {outputs} and {inputs}"
        )
    if vector:
        return feedthrough.dense(inputs)
    scalar = feedthrough.dense(1)[..., :1, :1]
    return scalar * torch.eye(inputs, dtype=scalar.dtype)


def _numpy(x: Tensor) -> np.ndarray:
    wide = x.detach().to("cpu", torch.complex128 if x.is_complex() else torch.float64)
    return wide.resolve_conj().numpy()


def _real(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> tuple[np.ndarray, ...]:
    """Re(y) for real tokens: the state is (Re x, Im x)."""
    (a, aa), (b, bb), (c, cc) = ((np.real(x), np.imag(x)) for x in (A, B, C))
    A, B, C = (
        np.block([[a, -aa], [aa, a]]),
        np.concatenate([b, bb], -2),
        np.concatenate([c, -cc], -1),
    )
    return A, B, C, np.real(D)


def system_of(heads: Heads) -> System:
    r"""A `System` with the Φ of these realizations, states filled up with zeros to the largest.

    With one token and one output per step the read-out comes before the update (`timing="before"`)
    and D is the feedthrough. Otherwise the state also holds the last tokens, n + m in all. Channels
    that differ become heads: H · V heads with V = 1. Λ is one `Block`, which every form but
    `convolution` admits for outer couplings.
    """
    members = heads.members
    batch, *rest = (1, 1, *heads.lead)[-max(2, len(heads.lead)) :]
    outer = (batch, int(np.prod(rest, dtype=int)))
    size = max((1, *(max(m.orders) for m in members)))  # forms want a state

    def stacked(rows: list[np.ndarray]) -> Tensor:
        array = np.stack(rows).reshape(*outer, *rows[0].shape)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 1, 2)))

    A = stacked([_filled(m.A, size, size) for m in members])
    B = stacked([_filled(m.B, size, m.B[0].shape[1]) for m in members])
    C = stacked([_filled(m.C, m.C[0].shape[0], size) for m in members])
    D = stacked([np.stack(m.D) for m in members])
    if not (heads.several or heads.dense):
        write, read = OuterCoupling(B[..., 0]), OuterCoupling(C[..., 0, :])
        return System(_block(A), write, read, Scalar(D[..., 0, 0]), timing="before")
    A, B, C = _with_last_tokens(A, B, C, D)
    if heads.dense:
        return System(Dense(A), DenseCoupling(B), DenseCoupling(C))
    return System(_block(A), OuterCoupling(B.mT), OuterCoupling(C))


def _block(matrix: Tensor) -> Structure:
    return Block(matrix[..., None, :, :])


def _filled(steps: tuple[np.ndarray, ...], rows: int, columns: int) -> np.ndarray:
    full = np.zeros((len(steps), rows, columns), dtype=np.result_type(*steps))
    for i, x in enumerate(steps):
        full[i, : x.shape[0], : x.shape[1]] = x
    return full


def _with_last_tokens(A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z_i = (x_i, u_i), read after the update: x_i = A_{i-1} x_{i-1} + B_{i-1} u_{i-1} from z_{i-1}."""
    inputs = B.shape[-1]
    before = torch.cat([A, B], -1).roll(1, 1)
    before[:, :1] = 0  # the state is empty at first
    rows = before.new_zeros((*before.shape[:-2], inputs, before.shape[-1]))
    eye = torch.eye(inputs, dtype=B.dtype).expand(*B.shape[:-2], inputs, inputs)
    return torch.cat([before, rows], -2), torch.cat([0 * B, eye], -2), torch.cat([C, D], -1)


@dataclass(frozen=True, eq=False)
class Transitions:
    """Λ_i of every step as matrices (…, T, K, K), heads in front, in the system's own gauge."""

    matrices: np.ndarray

    @property
    def steps(self) -> int:
        """T."""
        return self.matrices.shape[-3]


def transitions_of(system: System, length: int | None = None) -> Transitions:
    """The transition matrices of all heads; (B, H, V, T, K, K) where channels differ."""
    plain, values = _plain(system, length, divide=False)
    batch, steps, heads = plain.lead
    a = plain.transition.dense(plain.key_size)
    matrices = _numpy(a.expand(batch, steps, heads, *a.shape[-2:]).movedim(1, 2))
    if not np.isfinite(matrices).all():
        raise InvalidInput("a transition is not finite: `dsf.diagnose` finds the first bad number")
    if values is not None:
        matrices = matrices.reshape(batch, heads // values, values, *matrices.shape[2:])
    return Transitions(matrices)

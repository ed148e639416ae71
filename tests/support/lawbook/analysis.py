"""Laws of `dsf.analysis`, as functions that raise, and the systems that they are stated over.

References are made of Φ alone, with numpy's dense SVD: nothing is shared with the sweeps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dsf import mixing_matrix, run
from dsf.analysis import Reduction, gramians, hankel, realize
from dsf.coupling import OuterCoupling
from dsf.forms import forms
from dsf.forms.bounds import error_bound
from dsf.mixers import linear_attention, mlstm, s4d, s6
from dsf.numerics import BoundExceeded, orthogonal_error, require_within
from dsf.structure import Diagonal, Scalar
from dsf.system import System

from .rows import ALL_ROWS, Row

KINDS = (
    "log scalar",
    "complex diagonal",
    "elementwise",
    "dense",
    "two factors",
    "complex and rank one",
)
MINE = [row for row in ALL_ROWS if row.transition in KINDS]
ROWS = [row for i, row in enumerate(MINE) if (i + i // 2) % 2]
ROWS += [
    Row("diagonal", "outer", options={"timing": "before"}),
    Row("diagonal", "dense", options={"timing": "before"}),
]


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _linear_attention(T: int) -> System:
    q, k = normal(1, 2, 2, T, 3, 4)
    return linear_attention(q, k)


def _mlstm(T: int) -> System:
    q, k = normal(2, 2, 1, T, 2, 3)
    return mlstm(q, k, *(2 * normal(3, 2, 1, T, 2)))


def _s4d(T: int) -> System:
    a = torch.complex(-normal(4, 3, 4).abs(), normal(5, 3, 4))
    b = torch.complex(normal(6, 3, 4), normal(7, 3, 4))
    system = s4d(torch.full((3,), 0.3, dtype=torch.float64), a, b, b.conj(), skip=normal(8, 3))
    return system.expand(T)


def _s6(T: int) -> System:
    delta = normal(9, 2, T, 3).abs()
    return s6(delta, -normal(10, 3, 4).abs(), normal(11, 2, T, 4), normal(12, 2, T, 4))


def _direct(T: int) -> System:
    write, read = (OuterCoupling(normal(i, 1, T, 2, 3)) for i in (13, 14))
    gate = Diagonal(normal(15, 1, T, 2, 3).abs().clamp_max(1))
    return System(gate, write, read, feedthrough=Scalar(normal(16, 1, T, 2)))


MIXERS: dict[str, Callable[[int], System]] = {
    "linear attention": _linear_attention,
    "mlstm": _mlstm,
    "s4d": _s4d,
    "s6": _s6,
    "feedthrough": _direct,
}


def tokens_for(system: System, T: int, seed: int = 99) -> Tensor:
    batch, _, heads = system.lead
    own = (4,) if system.value_size is None else (system.value_size,)
    several = () if system.writes is None else (system.writes,)
    return normal(seed, batch, T, heads, *several, *own)


def _apply(phi: np.ndarray, tokens: Tensor, system: System) -> Tensor:
    """Φ (…, T p, T m) of realizations on tokens, as outputs of a run."""
    T = tokens.shape[1]
    if not T:
        return tokens
    if system.is_vector:
        flat = tokens.movedim(1, 2).flatten(2)[..., None]
        y = torch.from_numpy(phi) @ flat.to(torch.from_numpy(phi).dtype)
        return y[..., 0].unflatten(-1, (T, -1)).movedim(2, 1)
    rows = tokens if system.writes is not None else tokens[..., None, :]
    rows = rows.movedim(1, 2).flatten(2, 3)
    mixing = torch.from_numpy(phi)
    if mixing.ndim == 5:  # a map per channel
        y = torch.einsum("bhvij,bhjv->bhiv", mixing, rows.to(mixing.dtype))
    else:
        y = mixing @ rows.to(mixing.dtype)
    y = y.unflatten(2, (T, -1)).movedim(2, 1)
    reads = isinstance(system.read, OuterCoupling) and system.read.several is not None
    return y if reads else y[..., 0, :]


def dense_matrices(system: System, T: int) -> np.ndarray:
    """Φ of every head from its realization (…, T p, T m)."""
    heads = realize(system, T)
    return heads.stack([r.matrix() for r in heads.members])


def law_realization_is_the_map(system: System, T: int) -> float:
    """Φ u of the realizations is what a run gives, within the bounds of both."""
    tokens = tokens_for(system, T)
    expected, _ = run(system, tokens, form="recurrent")
    found = _apply(dense_matrices(system, T), tokens, system)
    bound = sum(error_bound(system, tokens, form=f).outputs for f in ("recurrent", "matrix"))
    assert isinstance(bound, Tensor)
    return require_within(found, expected, bound, "realization")


def law_hankel_values(system: System, T: int) -> None:
    """Singular values from Gramian roots are those of the blocks of Φ; so are those of Φ's own sweep."""
    phi, heads, found = dense_matrices(system, T), realize(system, T), hankel(system, T)
    flat = phi.reshape(-1, *phi.shape[-2:])
    rows = found.values.reshape(len(flat), T + 1, -1)
    roots = gramians(system, T)
    sizes = np.linalg.norm(roots.observability_root, axis=(-2, -1)) * np.linalg.norm(
        roots.reachability_root, axis=(-2, -1)
    )
    limit = orthogonal_error(2 * T, rows.shape[-1] + T, float(sizes.max(initial=0)) + 1e-300)
    p, m = heads.members[0].D[0].shape
    for head, values in zip(flat, rows, strict=True):
        for cut in range(T + 1):
            block = head[cut * p :, : cut * m]
            expected = np.linalg.svd(block, compute_uv=False) if block.size else np.zeros(0)
            _close(values[cut], expected, limit, f"Hankel singular values at cut {cut}")
    if p == m == 1:
        own = hankel(phi)
        for cut in range(T + 1):
            width = min(own.values.shape[-1], found.values.shape[-1])
            a, b = own.values[..., cut, :width], found.values[..., cut, :width]
            _close(a.ravel(), b.ravel(), limit, f"both sides at cut {cut}")


def law_gramians(system: System, T: int) -> None:
    """W_c and W_o are the sums over transition products, term by term."""
    heads, found = realize(system, T), gramians(system, T)
    past = found.reachability.reshape(len(heads.members), T + 1, *found.reachability.shape[-2:])
    future = found.observability.reshape(past.shape)
    for r, w_c, w_o in zip(heads.members, past, future, strict=True):
        n = r.orders[0]
        for cut in range(T + 1):
            reached, seen = np.zeros((n, n), w_c.dtype), np.zeros((n, n), w_c.dtype)
            product = np.eye(n)
            for j in reversed(range(cut)):
                reached = reached + product @ r.B[j] @ (product @ r.B[j]).conj().T
                product = product @ r.A[j]
            product = np.eye(n)
            for i in range(cut, T):
                seen = seen + (r.C[i] @ product).conj().T @ (r.C[i] @ product)
                product = r.A[i] @ product
            for w, exact in ((w_c[cut], reached), (w_o[cut], seen)):
                limit = orthogonal_error(T, n * n, float(np.linalg.norm(exact)))
                _close(w.ravel(), exact.ravel(), limit, f"Gramian at cut {cut}")


def law_reduction(original: System | np.ndarray, small: Reduction, T: int) -> None:
    """floor <= error <= bound, the error is that of the system given, and every form runs it."""
    if isinstance(original, System):
        phi = dense_matrices(original, T)
    else:
        phi = original
    flat = phi.reshape(-1, *phi.shape[-2:])
    found = dense_matrices(small.system, T).reshape(-1, *phi.shape[-2:])
    floor, error, bound = (x.ravel() for x in (small.floor, small.error, small.bound))
    for i, (a, b) in enumerate(zip(flat, found, strict=True)):
        size = float(np.linalg.norm(a)) + float(np.linalg.norm(b))
        slack = orthogonal_error(4 * T, T + 1, size)
        norm = float(np.linalg.svd(a - b, compute_uv=False).max(initial=0)) if a.size else 0.0
        _at_most(abs(norm - error[i]), slack, "the error is that of the system")
        _at_most(floor[i], norm + slack, "no recurrence of these sizes is below the floor")
        _at_most(norm, bound[i] + slack, "the theorem's bound")


def law_forms_run(small: Reduction, T: int) -> None:
    """Every form that a Block or Dense transition admits agrees on the reduced system."""
    tokens = tokens_for(small.system, T)
    expected, _ = run(small.system, tokens, form="recurrent")
    own = error_bound(small.system, tokens, form="recurrent").outputs
    ran = 0
    for form in forms():
        if form.admits(small.system):
            y, _ = run(small.system, tokens, form=form)
            require_within(
                y, expected, own + error_bound(small.system, tokens, form=form).outputs, form.name
            )
            ran += 1
    assert ran >= (3 if small.system.is_vector else 4)


def _close(found: np.ndarray, expected: np.ndarray, limit: float, what: str) -> None:
    """Two lists of singular values, the shorter one continued by zeros."""
    size = max(len(found), len(expected))
    a, b = (np.pad(x, (0, size - len(x))) for x in (found, expected))
    _at_most(float(np.abs(a - b).max(initial=0)), limit, what)


def _at_most(found: float, limit: float, what: str) -> None:
    if not found <= limit:
        raise BoundExceeded(f"{what}: {found:.3e} exceeds {limit:.3e}")


def attention(T: int, keys: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Softmax attention of random queries and keys, (T, T)."""
    q, k = np.random.default_rng(seed).standard_normal((2, T, keys))
    weights = np.tril(np.exp(scale * (q @ k.T) / keys**0.5))
    return weights / weights.sum(1, keepdims=True)


def mixing_is_realized(system: System, T: int) -> None:
    """`mixing_matrix` and `realize` speak of the same Φ."""
    phi = mixing_matrix(system, T).numpy()
    found = dense_matrices(system, T)
    limit = orthogonal_error(2 * T, found.shape[-1], float(np.linalg.norm(found)))
    _at_most(float(np.abs(phi.reshape(found.shape) - found).max(initial=0)), limit, "Φ")

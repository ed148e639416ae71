"""Each paper's formula, written naively in numpy and float64, token by token where it is a recurrence.

A function takes the quantities of an architecture by name, as arrays, and the values `v`; it shares no
arithmetic with `dsf`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import scipy.linalg


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def memory(k, v):
    """A zero state (B, H, K, V) and room for the outputs."""
    return np.zeros((k.shape[0], k.shape[2], k.shape[-1], v.shape[-1])), np.empty_like(v)


def outer(k, v):
    return k[..., :, None] * v[..., None, :]


def read(S, q):
    return np.einsum("bhkv,bhk->bhv", S, q)


def softmax_like(weights, v):
    weights = weights * np.tri(weights.shape[-1])
    return np.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdims=True), v)


def linear_attention(q, k, v):
    phi = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))  # noqa: E731
    return softmax_like(np.einsum("bihk,bjhk->bhij", phi(q), phi(k)), v)


def decayed(q, k, v, gamma):
    """Σ_j γ^{i-j} (q_i·k_j) v_j for one γ per head."""
    steps = np.arange(q.shape[1])
    decay = np.where(
        steps[:, None] >= steps, gamma[:, None, None] ** np.abs(steps[:, None] - steps), 0.0
    )
    return np.einsum("bhij,bjhv->bihv", np.einsum("bihk,bjhk->bhij", q, k) * decay, v)


def retnet(q, k, v):
    return decayed(q, k, v, 1 - 2.0 ** (-5 - np.arange(q.shape[2])))


def lightning(q, k, v):
    heads = q.shape[2]
    return decayed(q, k, v, np.exp(-8 * np.arange(1, heads + 1) / heads))


def s6(delta, A, b, c, skip, v):
    x, h, y = v[:, :, 0], np.zeros((*delta.shape[::2], A.shape[1])), np.empty_like(v)
    for i in range(delta.shape[1]):
        d = delta[:, i, :, None]
        h = np.exp(d * A) * h + d * b[:, i, None, :] * x[:, i, :, None]
        y[:, i, 0] = np.einsum("bdn,bn->bd", h, c[:, i]) + skip * x[:, i]
    return y


def ssd(delta, A, b, c, skip, v):
    S, y = memory(b, v)
    for i in range(v.shape[1]):
        d = delta[:, i, :, None]
        S = np.exp(d * A[:, None])[..., None] * S + outer(d * b[:, i], v[:, i])
        y[:, i] = read(S, c[:, i]) + skip[:, None] * v[:, i]
    return y


def s4d(step, A, b, c, skip, v):
    """Zero-order hold by the matrix exponential of the augmented system [[A, B], [0, 0]]."""
    y = np.empty_like(v)
    for h in range(A.shape[0]):
        augmented = np.block([[np.diag(A[h]), b[h][:, None]], [np.zeros((1, len(b[h]) + 1))]])
        held = scipy.linalg.expm(step[h] * augmented)
        y[:, :, h] = filtered(held[:-1, :-1], held[:-1, -1:], 2 * c[h][None], v[:, :, h])
    return y + skip[:, None] * v


def s4(step, A, p, b, c, skip, v):
    """The bilinear rule with dense matrices."""
    y = np.empty_like(v)
    for h in range(A.shape[0]):
        matrix = step[h] / 2 * (np.diag(A[h]) - np.outer(p[h], p[h].conj()))
        eye = np.eye(len(p[h]))
        moved = np.linalg.solve(eye - matrix, eye + matrix)
        written = np.linalg.solve(eye - matrix, step[h] * b[h])[:, None]
        y[:, :, h] = filtered(moved, written, 2 * c[h][None], v[:, :, h])
    return y + skip[:, None] * v


def filtered(Lambda, B, C, u):
    """Re C h_i with h_i = Λ h_{i-1} + B u_i on u (B, T, V)."""
    state, y = np.zeros((u.shape[0], Lambda.shape[0]), dtype=complex), []
    for i in range(u.shape[1]):
        state = state @ Lambda.T + u[:, i] @ B.T
        y.append((state @ C.T).real)
    return np.stack(y, 1)


def lru(log_rate, phase, b, c, skip, v):
    pole = np.exp(-np.exp(log_rate) + 1j * phase)
    gain = np.sqrt(1 - np.abs(pole) ** 2)
    return filtered(np.diag(pole), gain[:, None] * b, c, v[:, :, 0])[:, :, None] + skip * v


def s5(step, A, b, c, skip, v):
    pole = np.exp(step * A)
    held = ((pole - 1) / A)[:, None] * b
    return filtered(np.diag(pole), held, 2 * c, v[:, :, 0])[:, :, None] + skip * v


def gla(q, k, g, v):
    S, y = memory(k, v)
    for i in range(v.shape[1]):
        S = np.exp(g[:, i])[..., None] * S + outer(k[:, i], v[:, i])
        y[:, i] = read(S, q[:, i])
    return y


def hgrn2(q, forget, lower, v):
    f = lower + (1 - lower) * sigmoid(forget)
    return gla(q, 1 - f, np.log(f), v)


def rwkv4(k, w, u, v):
    y = np.empty_like(v)
    for i in range(k.shape[1]):
        past = np.exp(k[:, :i] - (i - 1 - np.arange(i))[:, None] * w)[..., None]
        now = np.exp(u + k[:, i])[..., None]
        y[:, i] = ((past * v[:, :i]).sum(1) + now * v[:, i]) / (past.sum(1) + now)
    return y


def rwkv6(r, k, w, u, v):
    S, y = memory(k, v)
    for i in range(v.shape[1]):
        new = outer(k[:, i], v[:, i])
        y[:, i] = read(S + u[..., None] * new, r[:, i])
        S = np.exp(-np.exp(w[:, i]))[..., None] * S + new
    return y


def gated(decay, gain, v, out=None):
    h, y = np.zeros_like(v[:, 0]), np.empty_like(v)
    for i in range(v.shape[1]):
        h = decay[:, i, :, None] * h + gain[:, i, :, None] * v[:, i]
        y[:, i] = h if out is None else out[:, i, :, None] * h
    return y


def mingru(gate, v):
    z = sigmoid(gate)
    return gated(1 - z, z, v)


def minlstm(forget, enter, v):
    f, i = sigmoid(forget), sigmoid(enter)
    return gated(f / (f + i), i / (f + i), v)


def rg_lru(recurrence, enter, rate, v):
    a = sigmoid(rate) ** (8 * sigmoid(recurrence))
    return gated(a, np.sqrt(1 - a**2) * sigmoid(enter), v)


def qlstm(forget, enter, out, v):
    return gated(sigmoid(forget), sigmoid(enter), v, sigmoid(out))


def delta(q, k, beta, v, *, g=None, erasing=None):
    """Decay by e^g (per head or per channel), then write what the erasing key misses."""
    S, y = memory(k, v)
    erasing = k if erasing is None else erasing
    for i in range(v.shape[1]):
        if g is not None:
            S = (
                np.exp(g[:, i])[..., None] * S
                if g.ndim == 4
                else np.exp(g[:, i])[..., None, None] * S
            )
        S = S + outer(beta[:, i, :, None] * k[:, i], v[:, i] - read(S, erasing[:, i]))
        y[:, i] = read(S, q[:, i])
    return y


def gated_deltanet(q, k, g, beta, v):
    return delta(q, k, beta, v, g=g)


def deltanet(q, k, beta, v):
    return delta(q, k, beta, v)


def kda(q, k, beta, g, v):
    return delta(q, k, beta, v, g=g)


def comba(q, k, beta, g, inner, correction, v):
    p = sigmoid(inner)[:, None] * k
    return delta(q - correction[:, None] * p, k, beta, v, g=g, erasing=p)


def delta_product(q, k, beta, g, v):
    y = np.empty_like(v[:, :, :, 0])
    S = np.zeros((q.shape[0], q.shape[2], q.shape[3], v.shape[4]))
    for i in range(q.shape[1]):
        S = np.exp(g[:, i])[..., None, None] * S
        for r in range(k.shape[3]):
            missing = v[:, i, :, r] - read(S, k[:, i, :, r])
            S = S + outer(beta[:, i, :, r, None] * k[:, i, :, r], missing)
        y[:, i] = read(S, q[:, i])
    return y


def rwkv7(r, w, k, kappa, a, v):
    S, y = memory(k, v)
    kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
    for i in range(v.shape[1]):
        erased = outer(a[:, i] * kappa[:, i], read(S, kappa[:, i]))
        decay = np.exp(-np.exp(-0.5) * sigmoid(w[:, i]))
        S = decay[..., None] * S - erased + outer(k[:, i], v[:, i])
        y[:, i] = read(S, r[:, i])
    return y


def mamba3(q, k, delta, A, trap, angle, skip, v, squash=False):
    """As the code does it: q and k turned by the sum of the angles, the last k and v carried along."""
    S, y = memory(k, v)
    angle = np.pi * np.tanh(angle) if squash else angle
    total, last = np.cumsum(delta[..., None] * angle, 1), outer(0 * k[:, 0], v[:, 0])
    turn = np.exp(1j * total)
    q, k = ((x[..., ::2] + 1j * x[..., 1::2]) * turn for x in (q, k))
    q, k = (np.stack([x.real, x.imag], -1).reshape(*x.shape[:-1], -1) for x in (q, k))
    for i in range(v.shape[1]):
        d, share, new = delta[:, i], sigmoid(trap[:, i]), outer(k[:, i], v[:, i])
        alpha = np.exp(d * A[:, i])
        parts = (alpha, S), ((1 - share) * d * alpha, last), (share * d, new)
        S, last = sum(x[..., None, None] * m for x, m in parts), new
        y[:, i] = read(S, q[:, i]) + skip[:, None] * v[:, i]
    return y


def aaren(q, k, v):
    scores = np.exp((q * k).sum(-1) / np.sqrt(k.shape[-1]))
    rows = np.repeat(np.moveaxis(scores, 1, 2)[:, :, None], k.shape[1], 2)
    return softmax_like(rows, v)


def taylor_attention(q, k, v):
    s = np.einsum("bihk,bjhk->bhij", q, k) / np.sqrt(k.shape[-1])
    return softmax_like(1 + s + s**2 / 2, v)


def random_features(q, k, omega, v):
    def phi(x):
        x = x / k.shape[-1] ** 0.25
        return np.exp(x @ omega.T - (x**2).sum(-1, keepdims=True) / 2)

    return softmax_like(np.einsum("bihm,bjhm->bhij", phi(q), phi(k)), v)


def normalised_attention(q, k, n, v):
    weights = np.einsum("bihk,bjhk->bhij", q, k) * np.tri(q.shape[1])
    return np.einsum("bhij,bjhv->bihv", weights, v) / np.exp(n)[..., None]


def titans_linear(q, k, theta, eta, alpha, v):
    (M, y), S = memory(k, v), 0
    for i in range(v.shape[1]):
        gradient = outer(k[:, i], read(M, k[:, i]) - v[:, i])
        S = eta[:, i, :, None, None] * S - theta[:, i, :, None, None] * gradient
        M = (1 - alpha[:, i, :, None, None]) * M + S
        y[:, i] = read(M, q[:, i])
    return y


def mesa_net(q, k, beta, g, ridge, v):
    (G, y), H = memory(k, v), 0
    for i in range(v.shape[1]):
        keep, key = np.exp(g[:, i])[..., None, None], beta[:, i, :, None] * k[:, i]
        H, G = keep * H + outer(key, k[:, i]), keep * G + outer(key, v[:, i])
        fitted = H + ridge[..., None] * np.eye(k.shape[-1])
        y[:, i] = read(G, np.linalg.solve(fitted, q[:, i][..., None])[..., 0])
    return y


def log_linear(q, k, g, scales, v):
    """The quadratic form: level 0 is the diagonal, level l the last whole block of 2^{l-1} tokens."""
    y, total = np.zeros_like(v), np.cumsum(g, 1)
    for i, j in itertools.combinations_with_replacement(range(v.shape[1]), 2):
        blocks = (n for n in range(v.shape[1].bit_length()) if (j >> n) & 1)
        level = 0 if i == j else 1 + next(n for n in blocks if i >> n == (j >> n) - 1)
        weight = (q[:, j] * k[:, i]).sum(-1) * np.exp(total[:, j] - total[:, i])
        y[:, j] += (scales[:, j, :, level] * weight)[..., None] * v[:, i]
    return y


def mlstm(q, k, input_gate, forget_gate, v):
    """Without any stabiliser: fine for gates of moderate size."""
    (C, y), n = memory(k, v), np.zeros(q[:, 0].shape)
    f, i_gate, k = sigmoid(forget_gate), np.exp(input_gate), k / np.sqrt(k.shape[-1])
    for t in range(q.shape[1]):
        C = f[:, t, :, None, None] * C + i_gate[:, t, :, None, None] * outer(k[:, t], v[:, t])
        n = f[:, t, :, None] * n + i_gate[:, t, :, None] * k[:, t]
        y[:, t] = read(C, q[:, t]) / np.maximum(np.abs((n * q[:, t]).sum(-1)), 1)[..., None]
    return y


NAIVE: dict[str, Callable[..., np.ndarray]] = {
    "linear-attention": linear_attention,
    "retnet": retnet,
    "s6": s6,
    "s4d": s4d,
    "gated-deltanet": gated_deltanet,
    "mlstm": mlstm,
    "lightning": lightning,
    "ssd": ssd,
    "gla": gla,
    "hgrn2": hgrn2,
    "rwkv4": rwkv4,
    "rwkv6": rwkv6,
    "mingru": mingru,
    "minlstm": minlstm,
    "rg-lru": rg_lru,
    "qlstm": qlstm,
    "lru": lru,
    "s5": s5,
    "s4": s4,
    "deltanet": deltanet,
    "kda": kda,
    "delta-product": delta_product,
    "comba": comba,
    "rwkv7": rwkv7,
    "mamba3": mamba3,
    "aaren": aaren,
    "taylor-attention": taylor_attention,
    "random-features": random_features,
    "normalised-attention": normalised_attention,
    "titans-linear": titans_linear,
    "mesa-net": mesa_net,
    "log-linear": log_linear,
}

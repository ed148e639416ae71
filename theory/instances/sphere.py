"""Random tokens, queries and heads on the unit sphere, and the special cases of the theorems."""

from __future__ import annotations

import numpy as np

from dsf.errors import InvalidInput

from .data import TokenData


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Vectors uniform on the unit sphere along the last axis."""
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _sizes(n: int, tokens: int, d: int) -> None:
    if min(n, d) < 1 or tokens < 2:
        raise InvalidInput(
            f"(n, T, d) is ({n}, {tokens}, {d}); n and d must be at least 1 and T at least 2"
        )


def _labels(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], n)


def _with_head(
    tokens: np.ndarray, queries: np.ndarray, labels: np.ndarray, head: np.ndarray
) -> TokenData:
    scores = labels[:, None] * (tokens @ head)
    return TokenData(tokens, queries, scores, labels=labels, head=head)


def sphere(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """Tokens, queries and head independent and uniform on the unit sphere, labels fair signs.

    >>> sphere(6, 8, 10, seed=0).shape
    (6, 8, 10)
    """
    _sizes(n, tokens, d)
    rng = np.random.default_rng(seed)
    x, z, v = _unit(rng, n, tokens, d), _unit(rng, n, d), _unit(rng, d)
    return _with_head(x, z, _labels(rng, n), v)


def self_attention(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """As `sphere`, and the query is the first token of each sample: z_i = x_i1."""
    data = sphere(n, tokens, d, seed)
    return TokenData(
        data.tokens, data.tokens[:, 0], data.scores, labels=data.labels, head=data.head
    )


def prompt(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """As `sphere`, and all queries are the same unit vector e_1: W e_1 is a tunable prompt p."""
    data = sphere(n, tokens, d, seed)
    same = np.tile(np.eye(d)[0], (n, 1))
    return TokenData(data.tokens, same, data.scores, labels=data.labels, head=data.head)


def equal_scores(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """Unit tokens with one score for the optimal token of each sample and one for all others.

    The head is a unit vector v; tokens are x = c v + √(1-c²) u with u ⟂ v random and Y c = 1/2 for
    the optimal token, -1/2 for the others, so the scores are exact and come from a linear head.
    """
    _sizes(n, tokens, d)
    if d < 2:
        raise InvalidInput(f"d is {d}; tokens of prescribed score need d of at least 2")
    rng = np.random.default_rng(seed)
    v, labels = _unit(rng, d), _labels(rng, n)
    u = rng.standard_normal((n, tokens, d))
    u -= (u @ v)[..., None] * v
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    scores = np.full((n, tokens), -0.5)
    scores[np.arange(n), rng.integers(0, tokens, n)] = 0.5
    x = (labels[:, None] * scores)[..., None] * v + np.sqrt(0.75) * u
    return TokenData(x, _unit(rng, n, d), scores, labels=labels, head=v)


# A dimension from which every token of almost every draw is a support vector.
ALL_SUPPORT = {(2, 4): 128, (4, 6): 256}


def high_dimensional(n: int, tokens: int, seed: int, d: int | None = None) -> TokenData:
    """`sphere` in so high a dimension that all tokens are support vectors in nearly every draw.

    Without `d`, a dimension that measurements give: 128 for (n, T) = (2, 4), 256 for (4, 6);
    otherwise 8 n² T². Whether a draw has the property is for the solver to say.
    """
    return sphere(n, tokens, d or ALL_SUPPORT.get((n, tokens), 8 * (n * tokens) ** 2), seed)


def random_selection(data: TokenData, seed: int) -> np.ndarray:
    """Integers (n,): one token of each sample, drawn uniformly."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.asarray(data.lengths))


def planted_local(n: int, tokens: int, d: int, seed: int) -> tuple[TokenData, np.ndarray]:
    """Data of distinct scores with a selection that is locally, not globally, optimal.

    In the first sample the optimal token lies opposite to the second best, so that it is far from
    being a support token of the selection that takes the second best there, and the optimal token in
    every other sample. Whether a draw has the property is for the solver to say.
    Raises `InvalidInput` where T is below 3.
    """
    if tokens < 3:
        raise InvalidInput(f"T is {tokens}; a local optimum needs 3 tokens")
    base = equal_scores(n, tokens, d, seed)
    rng = np.random.default_rng([seed, 3])
    best = base.optimal
    second = (best + rng.integers(1, tokens, n)) % tokens
    scores = rng.uniform(-0.8, -0.4, (n, tokens))
    at = np.arange(n)
    scores[at, second] = rng.uniform(-0.1, 0.1, n)
    scores[at, best] = rng.uniform(0.5, 0.7, n)
    assert base.head is not None and base.labels is not None
    across = base.tokens - (base.tokens @ base.head)[..., None] * base.head
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    across[0, best[0]] = -across[0, second[0]]
    along = (base.labels[:, None] * scores)[..., None] * base.head
    x = along + np.sqrt(1 - scores**2)[..., None] * across
    local = best.copy()
    local[0] = second[0]
    return TokenData(x, base.queries, scores, labels=base.labels, head=base.head), local

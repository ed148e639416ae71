"""Instances of the programs that theorems about attention name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsf.errors import InvalidInput

from .instance import Array, Instance


def self_attention(tokens: Sequence[Array] | Array, selection: Array) -> Instance:
    """The query of each sample is its first token: z_i = x_i1.

    >>> self_attention([np.eye(2)], np.array([1])).queries
    array([[1., 0.]])
    """
    return Instance(tokens, np.stack([np.asarray(x)[0] for x in tokens]), selection)


def causal(tokens: Sequence[Array] | Array, selection: Array) -> Instance:
    """Samples (i, t) for t ≥ 1: tokens x_{i, ≤ t} and query x_it of sequences i.

    `tokens` is one sequence (T, d), or several: (n, T, d), or n arrays (T_i, d). `selection` has one integer per
    sample, the positions t = 1, 2, … of the first sequence first. Position 0 sees one token and is left out.

    >>> causal(np.eye(3), np.array([0, 2])).row_tokens
    [(0, 1), (1, 0), (1, 1)]
    """
    first = np.asarray(tokens[0])
    sequences = [np.asarray(tokens)] if first.ndim == 1 else [np.asarray(x) for x in tokens]
    parts = [x[: t + 1] for x in sequences for t in range(1, len(x))]
    if not parts:
        raise InvalidInput("causal instances need a sequence of two tokens or more")
    return Instance(parts, np.stack([x[-1] for x in parts]), selection)


def kept_sets(
    tokens: Sequence[Array] | Array, queries: Array, kept: Sequence[Sequence[int]]
) -> Instance:
    """The max-margin part of a nonlinear head: tokens of O_i share the selection, all others stay 1 below.

    >>> kept_sets([np.eye(3)], np.ones((1, 3)), [[0, 2]]).equal
    ((2,),)
    """
    sets = [tuple(int(t) for t in own) for own in kept]
    if not all(sets):
        raise InvalidInput("every sample must keep a token: `kept` has an empty set")
    return Instance(tokens, queries, np.array([own[0] for own in sets]), [own[1:] for own in sets])


def finite_part(
    tokens: Sequence[Array] | Array, queries: Array, weights: Sequence[Any] | Array
) -> Instance:
    r"""The finite part of a nonlinear head: (x_it - x_iτ)ᵀ W z_i = log(s_it / s_iτ) where both weights are positive.

    `weights` (n, T), or n arrays (T_i,), are the limiting softmax weights s, zero outside O_i: tokens of weight zero
    are left out. There are equalities only.

    >>> finite_part([np.eye(3)], np.ones((1, 3)), [[0.25, 0.0, 0.75]]).values
    ((-1.0986122886681098,),)
    """
    rows, values = [], []
    for x, s in zip(tokens, weights, strict=True):
        s = np.asarray(s, dtype=np.float64)
        if s.shape != (len(x),) or not (s >= 0).all() or not s.any():
            raise InvalidInput("`weights` must be ≥ 0, one per token, not all 0 in a sample")
        inside = np.flatnonzero(s > 0)
        rows.append(np.asarray(x)[inside])
        values.append(tuple(float(np.log(s[inside[0]] / s[t])) for t in inside[1:]))
    shared = [tuple(range(1, len(x))) for x in rows]
    return Instance(rows, queries, np.zeros(len(rows), dtype=np.int64), shared, values)


def token_graph(embeddings: Array, strict: Array, equal: Array | None = None) -> Instance:
    """The SVM of next-token graphs: (e_i - e_j)ᵀ W e_k ≥ 1 for rows (i, j, k) of `strict`, = 0 for those of `equal`.

    `embeddings` (K, d); `strict` and `equal` are integers (·, 3). Strict rows of one i and k make one sample.
    Source: Li, Huang, Ildiz, Rawat, Oymak (arXiv 2403.08081), program (Graph-SVM).

    >>> token_graph(np.eye(3), np.array([[0, 1, 2], [0, 2, 2]])).row_tokens
    [(0, 1), (0, 2)]
    """
    e = np.asarray(embeddings, dtype=np.float64)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, j, k in np.asarray(strict, dtype=np.int64).reshape(-1, 3).tolist():
        groups.setdefault((i, k), []).append(j)
    tokens = [e[[i, *below]] for (i, _), below in groups.items()]
    queries = [e[k] for _, k in groups]
    shared: list[tuple[int, ...]] = [()] * len(groups)
    for i, j, k in np.asarray(() if equal is None else equal, dtype=int).reshape(-1, 3).tolist():
        tokens.append(e[[i, j]])
        queries.append(e[k])
        shared.append((1,))
    if not tokens:
        raise InvalidInput("a graph needs an edge: `strict` and `equal` are empty")
    return Instance(tokens, np.stack(queries), np.zeros(len(tokens), dtype=np.int64), shared)

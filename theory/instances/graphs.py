"""Next-token data whose token-priority graphs have chosen strongly connected components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dsf.errors import InvalidInput

from .data import TokenData


@dataclass(frozen=True)
class NextTokenGraph:
    """Sequences over K embedded tokens with the next token of each, and the graphs they form.

    - `data`: samples with tokens e_{k(i,t)}, query e_{k(i,T)} and scores 1 where a token is the next
      one, 0 elsewhere: log-loss over these scores is the loss of the copying head.
    - `ids`: integers (n, T), the token of each place; `next_ids`: integers (n,), one of those.
    - `embeddings`: float64 (K, d).
    """

    data: TokenData
    ids: np.ndarray
    next_ids: np.ndarray
    embeddings: np.ndarray

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Integer triples (i, j, k): e_i beats e_j under query e_k; and pairs that are equal.

        An edge from the next token to each token of the sequence belongs to the graph of the last
        token. Inequality rows are edges between components, equality rows pairs in one component.
        """
        strict, equal = set(), set()
        for last in np.unique(self.ids[:, -1]):
            mine = np.flatnonzero(self.ids[:, -1] == last)
            edges = {
                (int(self.next_ids[i]), int(j))
                for i in mine
                for j in self.ids[i]
                if j != self.next_ids[i]
            }
            component = components(edges, len(self.embeddings))
            for i, j in sorted(edges):
                if component[i] == component[j]:
                    equal.add((min(i, j), max(i, j), int(last)))
                else:
                    strict.add((i, j, int(last)))
        return _table(strict), _table(equal)


def components(edges: set[tuple[int, int]], size: int) -> np.ndarray:
    """Integers (size,): the strongly connected component of each node of a directed graph."""
    if not edges:
        return np.arange(size)
    start, end = np.array(sorted(edges)).T
    graph = coo_array((np.ones(len(start)), (start, end)), shape=(size, size))
    return connected_components(graph, connection="strong")[1]


def _table(rows: set[tuple[int, int, int]]) -> np.ndarray:
    return np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)


def next_token_graph(
    n: int, tokens: int, vocabulary: int, d: int, seed: int, cyclic: bool = True
) -> NextTokenGraph:
    """Random sequences over `vocabulary` unit embeddings, the next token among those present.

    Tokens have a hidden priority; the next token is the one of highest priority, and where
    `cyclic`, tokens of the same pair of priorities take turns, so that components of two arise.
    Raises `InvalidInput` where the vocabulary has fewer than 2 tokens.

    >>> found = next_token_graph(6, 4, 6, 8, seed=0)
    >>> strict, equal = found.rows()
    >>> strict.shape[1], equal.shape[1]
    (3, 3)
    """
    if vocabulary < 2 or n < 1 or tokens < 2:
        raise InvalidInput(
            f"(n, T, K) is ({n}, {tokens}, {vocabulary}); T and K must be at least 2, n at least 1"
        )
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((vocabulary, d))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ids = rng.integers(0, vocabulary, (n, tokens))
    ids[:, -1] %= 2  # few queries, so that their graphs have many edges
    priority = rng.permutation(vocabulary) // (2 if cyclic else 1)
    best = priority[ids] == priority[ids].max(1, keepdims=True)
    chosen = [int(rng.choice(np.flatnonzero(row))) for row in best]
    following = ids[np.arange(n), chosen]
    scores = (ids == following[:, None]).astype(np.float64)
    data = TokenData(embeddings[ids], embeddings[ids[:, -1]], scores)
    return NextTokenGraph(data, ids, following, embeddings)

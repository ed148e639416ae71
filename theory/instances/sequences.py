"""Sequence-to-sequence data: every position of a sequence is a sample with a query of its own."""

from __future__ import annotations

import numpy as np

from .data import TokenData
from .sphere import sphere


def sequence_to_sequence(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """n sequences give n·T samples: sample (i, t) has query x_it and all tokens of sequence i.

    Each position has a label of its own; the head is shared.
    """
    return _positions(n, tokens, d, seed, causal=False)


def causal(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """n sequences give n·(T-1) samples: sample (i, t) has query x_it and the tokens x_i1 ... x_it.

    The first position sees one token, so nothing is selected there and it is left out.

    >>> causal(2, 4, 6, seed=0).lengths.tolist()
    [2, 3, 4, 2, 3, 4]
    """
    return _positions(n, tokens, d, seed, causal=True)


def _positions(n: int, tokens: int, d: int, seed: int, causal: bool) -> TokenData:
    base = sphere(n, tokens, d, seed)
    assert base.head is not None
    rng = np.random.default_rng([seed, 1])
    first = 1 if causal else 0
    at = np.tile(np.arange(first, tokens), n)
    of = np.repeat(np.arange(n), tokens - first)
    labels = rng.choice([-1.0, 1.0], len(at))
    x = base.tokens[of]
    lengths = at + 1 if causal else np.full(len(at), tokens)
    scores = labels[:, None] * (x @ base.head)
    return TokenData(x, base.tokens[of, at], scores, lengths, labels, base.head)

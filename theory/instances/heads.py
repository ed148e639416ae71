"""Data for heads that are not linear, whose attention may keep several tokens."""

from __future__ import annotations

import numpy as np

from dsf.errors import InvalidInput

from .data import TokenData
from .sphere import sphere


def orthonormal(n: int, tokens: int, d: int, seed: int) -> TokenData:
    """Orthonormal tokens within each sample, unit queries: the data of the quadratic head.

    Scores γ_it = vᵀx_it with a random unit v; all labels are +1. For the head vᵀo - μ‖o‖² the
    objective is γᵀs - μ‖s‖² over the simplex, whose maximiser is sparsemax(γ / 2μ).
    Raises `InvalidInput` where d is below T.
    """
    if d < tokens:
        raise InvalidInput(f"{tokens} orthonormal tokens need d of at least {tokens}; it is {d}")
    base = sphere(n, tokens, d, seed)
    x = np.stack([np.linalg.qr(one.T)[0].T for one in base.tokens])
    assert base.head is not None
    return TokenData(x, base.queries, x @ base.head, labels=np.ones(n), head=base.head)


def relu_network(
    n: int, tokens: int, d: int, seed: int, hidden: int | None = None
) -> tuple[TokenData, np.ndarray]:
    """`sphere` with a random network on top: returns the data and V (hidden, d), Frobenius norm 1.

    The head is h(o) = Σ_k max(0, V_k · o); `hidden` is d where not given. At least one label is
    negative, since a sum of ReLUs has a sign of its own. The scores of the data are of its linear
    head and not used by the network.
    """
    data = sphere(n, tokens, d, seed)
    rng = np.random.default_rng([seed, 2])
    labels = rng.choice([-1.0, 1.0], n)
    labels[rng.integers(n)] = -1.0
    weights = rng.standard_normal((hidden or d, d))
    weights /= np.linalg.norm(weights)
    return TokenData(data.tokens, data.queries, data.scores, labels=labels), weights

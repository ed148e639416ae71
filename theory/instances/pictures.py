"""Data in the plane, small enough to draw."""

from __future__ import annotations

import numpy as np

from dsf.errors import InvalidInput

from .data import TokenData


def picture(tokens: int, seed: int = 0) -> TokenData:
    """Two samples in the plane with one query: the trajectory W z of two numbers can be drawn.

    With 3 tokens the others of each sample form a cloud to the left; with 5 there are two more, which
    make a locally optimal selection beside the optimal one. The head is e_1; the query is e_1 for both
    samples. Raises `InvalidInput` for another number of tokens.
    """
    if tokens not in (3, 5):
        raise InvalidInput(f"`tokens` is {tokens}; pictures have 3 or 5")
    rng = np.random.default_rng(seed)
    x = np.empty((2, tokens, 2))
    for i, side in enumerate((1.0, -1.0)):
        x[i, 0] = (1.0, 0.5 * side)
        x[i, 1:3] = np.array([-1.0, 0.0]) + 0.3 * rng.standard_normal((2, 2))
        if tokens == 5:
            # The fourth beats the fifth, which shields it from the optimal token: a local optimum.
            x[i, 3] = (0.6, -1.4 * side)
            x[i, 4] = (0.55, -0.8 * side)
    head = np.array([1.0, 0.0])
    return TokenData(x, np.tile(head, (2, 1)), x @ head, labels=np.ones(2), head=head)

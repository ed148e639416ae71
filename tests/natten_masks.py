"""Write NATTEN's own masks of random patterns to `tests/data/natten_masks.json`.

Needs torch and NATTEN, which its pure-Python installation provides:

    pip install setuptools wheel && pip install --no-build-isolation --no-deps natten==0.21.7
    python tests/natten_masks.py

The masks come from the builder behind its FlexAttention backend, without tile shapes (with them it
reads KV offsets with the size of the query tile, and dilation groups from the batch index).
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

CASES, SEED = 400, 0
LONGEST = {1: 60, 2: 14, 3: 7}
TARGET = Path(__file__).parent / "data" / "natten_masks.json"


def draw(random: random.Random) -> list[dict]:
    """One axis a dictionary; rank 1 to 3."""
    rank = random.randint(1, 3)
    axes = []
    for _ in range(rank):
        length = random.randint(2, LONGEST[rank])
        window = random.randint(2, length)
        axes.append(
            {
                "length": length,
                "window": window,
                "stride": random.randint(1, window),
                "dilation": random.randint(1, length // window),
                "causal": random.random() < 0.3,
            }
        )
    return axes


def main() -> None:
    import natten
    import torch
    from natten.backends.flex import get_na_flex_mask

    generator, cases = random.Random(SEED), []
    for _ in range(CASES):
        axes = draw(generator)
        columns = {key: tuple(axis[key] for axis in axes) for key in axes[0]}
        built = get_na_flex_mask(
            "cpu",
            len(axes),
            columns["length"],
            kernel_size=columns["window"],
            stride=columns["stride"],
            dilation=columns["dilation"],
            is_causal=columns["causal"],
        )
        tokens = int(torch.tensor(columns["length"]).prod())
        index = torch.arange(tokens)
        zero = torch.zeros((), dtype=torch.int64)
        mask = built.mask_mod(zero, zero, index[:, None], index[None, :])
        bits = mask.expand(tokens, tokens).to(torch.uint8).contiguous().numpy().tobytes()
        cases.append({"axes": axes, "pairs": sum(bits), "sha256": hashlib.sha256(bits).hexdigest()})
    written = {
        "natten": natten.__version__,
        "torch": torch.__version__,
        "seed": SEED,
        "cases": cases,
    }
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(written, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

"""Draw the pictures of docs/memory.md: python docs/images/memory.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch

from dsf.analysis import (
    gramians,
    hankel,
    lyapunov_spectrum,
    memory,
    plots,
    smallest_recurrence,
    spectrum,
    state_sweep,
)
from dsf.forms import mixing_matrix
from dsf.mixers import gated_deltanet, linear_attention
from dsf.system import System

HERE = Path(__file__).parent
LENGTH = 128


def systems() -> dict[str, System]:
    """A gated delta rule with random gates, and linear attention, with the keys of the softmax head."""
    head = state_sweep.random_head(LENGTH)
    q, k = (torch.from_numpy(x)[None, :, None] for x in (head.q, head.k))
    generator = torch.Generator().manual_seed(0)
    gates = torch.rand(2, 1, LENGTH, 1, generator=generator, dtype=torch.float64)
    unit = torch.nn.functional.normalize(k, dim=-1)
    return {
        "gated delta rule": gated_deltanet(q, unit, -0.2 * gates[0], gates[1]),
        "linear attention": linear_attention(q, k),
    }


def maps() -> dict[str, np.ndarray]:
    """Φ of every head of the page."""
    found = {name: mixing_matrix(system)[0, 0].numpy() for name, system in systems().items()}
    found["softmax attention"] = state_sweep.random_head(LENGTH).weights
    found["patterned softmax"] = state_sweep.patterned_head(LENGTH).weights
    return found


def figures() -> dict:
    """Every picture by its file's name."""
    phis, recurrent = maps(), systems()
    blocks = {name: hankel(phi) for name, phi in phis.items()}
    patterned = phis["patterned softmax"]
    small = smallest_recurrence(patterned, 0.01)
    assert small, small
    delta = recurrent["gated delta rule"]
    return {
        "memory-hankel": plots.hankel_values(blocks["softmax attention"]),
        "memory-states": plots.states_needed(blocks),
        "memory-reach": plots.reach({name: memory(phi) for name, phi in phis.items()}),
        "memory-reduction": plots.comparison(patterned, small),
        "memory-orders": plots.orders(small),
        "memory-gramians": plots.gramian_profile(gramians(delta)),
        "memory-exponents": plots.exponents(lyapunov_spectrum(delta)),
        "memory-spectrum": plots.spectrum_plane(
            spectrum(recurrent["linear attention"], gauge="state")
        ),
        "memory-sweep": state_sweep.state_against_error(),
    }


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "dsf"
    for name, figure in figures().items():
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

r"""Decay per key in chunks: h_i = Diag(e^{g_i}) h_{i-1} + k_i v_iᵀ, forward and backward on a GPU.

Outputs are y_i = s h_iᵀ q_i or, with a bonus u, y_i = s (h_{i-1} + Diag(u) k_i v_iᵀ)ᵀ q_i. A walk keeps the
state before every chunk and one back the gradient of that after it; all else is done for all chunks at once. The
programs are in `triton_code/diagonal_*.py`; here are their launches. GLA, HGRN2 and RWKV-6 are of this form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Tile
from dsf.kernels.limits import target_of
from dsf.kernels.shapes import per_head, shared
from dsf.registry import resolve

from .chunks import Chunked, parts
from .diagonal_programs import ALL, CHUNK, PROGRAMS, tile_for

Known = dict[str, Tensor | None]

KERNEL = Kernel(
    name="diagonal-decay",
    title="Chunks of decay per key, by halves, all at once; states in a walk",
    admits="Λ is Diagonal, real and not negative; read after the update, or before it with a bonus",
    form="chunkwise",
    programs=ALL,
    tile=tile_for,
    source="Yang et al. 2023 (arXiv 2312.06635), chunks in chunks; Peng et al. 2024 (arXiv 2404.05892)",
)


@dataclass(frozen=True, eq=False)
class Quantities(Chunked):
    """The quantities of a run, with g (B, T, H, K) and, for reads before the update, a bonus (H, K).

    What is kept of chunks lies in `slots`: those of a packed sequence from ⌊start / steps⌋ + its number, and `owners`
    says which sequence has each.
    """

    bonus: Tensor | None = None

    choose = staticmethod(tile_for)
    per_key: ClassVar[bool] = True

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        state: Tensor | None,
        scale: float,
        starts: Tensor | None,
        bonus: Tensor | None = None,
    ) -> Self:
        """Checked, contiguous, gates, state and bonus in float32; raises `InvalidInput`."""
        found = super().of(q, k, v, g, state, scale, starts)
        if bonus is None:
            return found
        check_bonus(bonus, g)
        return replace(found, bonus=bonus.float().contiguous())

    def tile(self, name: str) -> Tile:
        """The tile of a program on this device; the H100's where there is none (interpreted)."""
        dtype, architecture = target_of(self.v)
        sizes = (self.q.shape[-1], architecture, self.v.shape[-1])
        return type(self).choose(PROGRAMS[name], dtype, *sizes)

    @property
    def slots(self) -> int:
        return self.packing.slots(CHUNK)

    def kept(self, *sizes: int, upcast: bool) -> Tensor:
        """Room for something of every chunk and head, in the type of the data."""
        dtype = torch.float32 if upcast else self.v.dtype
        return self.v.new_empty(self.slots, self.heads, *sizes, dtype=dtype)


def check_bonus(bonus: Tensor, g: Tensor) -> None:
    """Raise `InvalidInput` unless the bonus has a number for each head and key of g."""
    if bonus.shape != g.shape[2:]:
        raise InvalidInput(
            f"`bonus` must be {tuple(g.shape[2:])}: (H, K); got {tuple(bonus.shape)}"
        )


def run(x: Quantities, name: str, upcast: bool, given: Mapping[str, Tensor | None]) -> None:
    """Run a program for each head, each sequence (a walk) or slot, and each tile of keys, of values or of both."""
    tile = x.tile(name)
    of_keys, of_values = int(tile.constants["KT"]), parts(x.v, tile)
    grid = x.heads * {
        "pairs": x.slots,
        "of_pairs": x.slots,
        "outputs": x.slots * of_values,
        "of_values": x.slots * of_values,
        "of_keys": x.slots * of_keys,
    }.get(name, x.packing.sequences * of_keys * of_values)
    if not grid:
        return
    function = resolve(PROGRAMS[name].function)
    known = {
        **{
            each: getattr(x, each)
            for each in ("q", "k", "v", "g", "state", "bonus", "scale", "heads")
        },
        **{f"{each}_heads": getattr(x, each).shape[2] for each in "qkv"},
        **{"starts": x.packing.starts, "length": x.packing.length, "UPCAST": upcast},
        **{"BEFORE": x.bonus is not None, "PACKED": x.packing.starts is not None},
        **tile.constants,
        **given,
    }
    asked = {each: known[each] for each in function.arg_names}
    function[(grid,)](**asked, num_warps=tile.warps, num_stages=tile.stages)


def prepared(x: Quantities, upcast: bool) -> Known:
    """What `pairs` makes of every chunk, and the states before them with the final ones."""
    keys, dtype = x.q.shape[-1], torch.float32 if upcast else x.v.dtype
    near_q, near_k = (x.g.new_empty(x.g.shape, dtype=dtype) for _ in range(2))
    found: Known = {
        **{"reads": x.kept(CHUNK, CHUNK, upcast=upcast), "near_q": near_q, "near_k": near_k},
        **{"whole": x.g.new_empty(x.slots, x.heads, keys), "owners": x.packing.owners(CHUNK)},
        **{"before": x.kept(*x.state.shape[2:], upcast=upcast), "final": torch.empty_like(x.state)},
    }
    run(x, "pairs", upcast, found)
    run(x, "states", upcast, found)
    return found


def forward(x: Quantities, *, upcast: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32."""
    found = prepared(x, upcast)
    o, final = x.v.new_empty(*x.v.shape[:2], x.heads, x.v.shape[-1]), found["final"]
    run(x, "outputs", upcast, found | {"o": o})
    assert final is not None
    return o, final


def backward(
    x: Quantities, do: Tensor, dfinal: Tensor, *, upcast: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v, g, the initial state and the bonus, for those of the outputs and final states.

    Those of heads that share q, k or v are summed in float32.
    """
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    found, after = prepared(x, upcast), x.kept(*x.state.shape[2:], upcast=upcast)
    dq, dk, dv = (per_head(y, x.heads) for y in (x.q, x.k, x.v))
    dg, dstate, dbonus = torch.empty_like(x.g), torch.empty_like(x.state), None
    if x.bonus is not None:  # zero in slots between packed sequences
        dbonus = x.g.new_zeros(x.slots, *x.bonus.shape)
    found |= {"do": do, "dfinal": dfinal, "after": after, "dstate": dstate}
    found |= {"dq": dq, "dk": dk, "dv": dv, "dg": dg, "dbonus": dbonus}
    found |= {"meetings": x.kept(CHUNK, CHUNK, upcast=upcast)}
    found |= {"self_meetings": x.g.new_empty(x.g.shape[:3])}
    for name in ("state_gradients", "of_values", "of_pairs", "of_keys"):
        run(x, name, upcast, found)
    if dbonus is not None:
        dbonus = dbonus.sum(0, dtype=torch.float64).float()
    return shared(dq, x.q), shared(dk, x.k), shared(dv, x.v), dg, dstate, dbonus

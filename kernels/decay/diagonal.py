r"""Decay per key in chunks: h_i = Diag(e^{g_i}) h_{i-1} + k_i v_iᵀ, forward and backward on a GPU.

Outputs are y_i = s h_iᵀ q_i or, with a bonus u, y_i = s (h_{i-1} + Diag(u) k_i v_iᵀ)ᵀ q_i. The programs are in
`triton_code/diagonal_decay.py`; here are their contract and their launches. GLA, HGRN2 and RWKV-6 are of this form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.shapes import repeated, shared

from . import chunks
from .chunks import HEADS, Chunked, tile_of
from .gates import of_gates

CODE = "dsf.kernels.triton_code.diagonal_decay"
_DATA = {"q": "data", "k": "data", "v": "data", "g": "fp32", "state": "fp32", "starts": "i64"}
_FLAGS = {"PACKED": 1, "UPCAST": 0, "BEFORE": 0}

PROGRAMS = (
    Program(
        f"{CODE}:forward",
        _DATA | {"bonus": "none", "o": "data", "final": "fp32"},
        ("length", *HEADS),
        ("scale",),
        _FLAGS,
    ),
    Program(
        f"{CODE}:backward_of_reads",
        {name: kind for name, kind in _DATA.items() if name != "q"} | {"do": "data", "dq": "fp32"},
        ("length", "heads", "k_heads", "v_heads"),
        ("scale",),
        _FLAGS,
    ),
    Program(
        f"{CODE}:backward_of_writes",
        {name: kind for name, kind in _DATA.items() if name != "state"}
        | {"do": "data", "dfinal": "fp32", "dk": "fp32", "dv": "fp32", "dstate": "fp32"},
        ("length", *HEADS),
        ("scale",),
        _FLAGS,
    ),
)


def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    wide = dtype == "float32"
    chosen = (16, 32, 8)
    tile = tile_of(keys, values or keys, 64, chosen, wide)
    levels = int(tile.constants["C"]).bit_length() - 1
    return replace(tile, constants={**tile.constants, "LEVELS": levels})


KERNEL = Kernel(
    name="diagonal-decay",
    title="Chunks of decay per key, by halves, the state in registers",
    admits="Λ is Diagonal, real and not negative; read after the update, or before it with a bonus",
    form="chunkwise",
    programs=PROGRAMS,
    tile=tile_for,
    source="Yang et al. 2023 (arXiv 2312.06635), section 4; Peng et al. 2024 (arXiv 2404.05892)",
)


@dataclass(frozen=True, eq=False)
class Quantities(Chunked):
    """The quantities of a run, with g (B, T, H, K) and, for reads before the update, a bonus (H, K)."""

    bonus: Tensor | None = None

    programs: ClassVar[tuple[Program, Program, Program]] = PROGRAMS
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

    def further(self, program: Program) -> dict[str, object]:
        given: dict[str, object] = {"BEFORE": self.bonus is not None}
        return given | {"bonus": self.bonus} if "bonus" in program.pointers else given


def check_bonus(bonus: Tensor, g: Tensor) -> None:
    """Raise `InvalidInput` unless the bonus has a number for each head and key of g, on its device."""
    if bonus.shape != g.shape[2:]:
        raise InvalidInput(
            f"`bonus` must be {tuple(g.shape[2:])}: (H, K); got {tuple(bonus.shape)}"
        )
    if bonus.device != g.device:
        raise InvalidInput(f"`bonus` is on {bonus.device}, `g` on {g.device}; use one device")


def forward(x: Quantities, *, upcast: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32."""
    return chunks.forward(x, upcast=upcast)


def backward(
    x: Quantities, do: Tensor, dfinal: Tensor, final: Tensor, *, upcast: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v, g, the initial state and the bonus, for those of the outputs and final states.

    Those of heads that share q, k or v are summed in float32.
    """
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    dq, dk, dv, dstate = chunks.gradients(x, do, dfinal, upcast=upcast)
    inner = (dfinal.double() * final.double()).sum(-1)
    before = x.bonus is not None
    # The bonus has no path through a gate: it is added after the gradient of the gates.
    dg = of_gates(x.q, x.k, dq, dk, x.g, inner, x.packing, before=before)
    dbonus = None if x.bonus is None else add_bonus(x, x.bonus, do, dq, dk, dv)
    return shared(dq, x.q), shared(dk, x.k), shared(dv, x.v), dg, dstate, dbonus


def add_bonus(
    x: Quantities, bonus: Tensor, do: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> Tensor:
    """Add to dq, dk and dv what y_i += s (q_i · Diag(u) k_i) v_i gives them, and return the gradient of u."""
    q, k, v = (repeated(each, x.heads).float() for each in (x.q, x.k, x.v))
    do, both = do.float(), q * k
    own = x.scale * (do * v).sum(-1, keepdim=True)
    dq += own * bonus * k
    dk += own * bonus * q
    dv += x.scale * (bonus * both).sum(-1, keepdim=True) * do
    return (own * both).sum((0, 1), dtype=torch.float64).to(bonus.dtype)

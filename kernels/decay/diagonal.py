r"""Decay per key in chunks: h_i = Diag(e^{g_i}) h_{i-1} + k_i v_iᵀ, forward and backward on a GPU.

Outputs are y_i = s h_iᵀ q_i or, with a bonus u, y_i = s (h_{i-1} + Diag(u) k_i v_iᵀ)ᵀ q_i. The programs are in
`triton_code/diagonal_decay.py`; here are their contract and their launches. GLA, HGRN2 and RWKV-6 are of this form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.shapes import repeated, shared

from .chunks import Chunked, gradients, program_of, tile_of
from .chunks import forward as forward
from .key_gates import PROGRAM as GATES
from .key_gates import of_key_gates
from .key_gates import tile_for as tile_for_gates

CODE = "dsf.kernels.triton_code.diagonal_decay"


def _programs(before: int) -> dict[str, Program]:
    """Forward and backward, where steps are read after their update or before it."""
    flags, results = {"BEFORE": before}, "q k v g state o final"
    forward = (f"{results} bonus", "") if before else (results, "bonus")
    of_writes = "q k v g do dfinal dk dv dstate"
    made = (
        program_of(CODE, "forward", forward[0], "q k v", left_out=forward[1], flags=flags),
        program_of(CODE, "backward_of_reads", "k v g state do dq", "k v", flags=flags),
        program_of(CODE, "backward_of_writes", of_writes, "q k v", flags=flags),
    )
    return {program.name: program for program in made}


PROGRAMS, READ_BEFORE = _programs(0), _programs(1)
_NAMES = tuple(PROGRAMS)

# (steps, keys, values, warps) of each program, by architecture: the largest found without a spill on heads of any size
# (`dsf kernels report` shows what they use). Exact products where three of TF32 spill.
_HALF = {
    80: ((16, 64, 32, 4), (16, 64, 32, 4), (16, 32, 32, 8)),
    90: ((16, 64, 64, 4), (16, 64, 64, 4), (16, 64, 32, 8)),
    100: ((16, 64, 64, 4), (16, 64, 64, 4), (16, 64, 32, 8)),
}
_WIDE = {
    80: ((16, 32, 32, 8), (16, 32, 32, 8), (16, 64, 32, 8)),
    90: ((16, 64, 32, 8), (16, 64, 32, 8), (16, 64, 32, 8)),
    100: ((16, 32, 16, 8), (16, 64, 32, 8), (16, 16, 32, 8)),
}
_EXACT = {"backward_of_writes"}


def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    if program.name == GATES.name:
        return tile_for_gates(keys)
    wide, place = dtype == "float32", _NAMES.index(program.name)
    steps, of_keys, of_values, warps = (_WIDE if wide else _HALF)[architecture][place]
    exact = wide and program.name in _EXACT
    tile = tile_of(keys, values or keys, of_keys, (steps, of_values, warps), wide, exact)
    return replace(tile, constants={**tile.constants, "LEVELS": steps.bit_length() - 1})


KERNEL = Kernel(
    name="diagonal-decay",
    title="Chunks of decay per key, by halves, the state in registers",
    admits="Λ is Diagonal, real and not negative; read after the update, or before it with a bonus",
    form="chunkwise",
    programs=(*PROGRAMS.values(), *READ_BEFORE.values(), GATES),
    tile=tile_for,
    source="Yang et al. 2023 (arXiv 2312.06635), chunks in chunks; Peng et al. 2024 (arXiv 2404.05892)",
)


@dataclass(frozen=True, eq=False)
class Quantities(Chunked):
    """The quantities of a run, with g (B, T, H, K) and, for reads before the update, a bonus (H, K)."""

    bonus: Tensor | None = None

    programs: ClassVar[Mapping[str, Program]] = PROGRAMS
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

    @property
    def further(self) -> dict[str, object]:
        return {"BEFORE": self.bonus is not None, "bonus": self.bonus}


def check_bonus(bonus: Tensor, g: Tensor) -> None:
    """Raise `InvalidInput` unless the bonus has a number for each head and key of g, on its device."""
    if bonus.shape != g.shape[2:]:
        raise InvalidInput(
            f"`bonus` must be {tuple(g.shape[2:])}: (H, K); got {tuple(bonus.shape)}"
        )
    if bonus.device != g.device:
        raise InvalidInput(f"`bonus` is on {bonus.device}, `g` on {g.device}; use one device")


def backward(
    x: Quantities, do: Tensor, dfinal: Tensor, final: Tensor, *, upcast: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v, g, the initial state and the bonus, for those of the outputs and final states.

    Those of heads that share q, k or v are summed in float32.
    """
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    dq, dk, dv, dstate = gradients(x, do, dfinal, upcast=upcast)
    inner = (dfinal.double() * final.double()).sum(-1)
    # The bonus has no path through a gate: it is added after the gradient of the gates.
    told = {"before": x.bonus is not None, "upcast": upcast}
    dg = of_key_gates(x.q, x.k, dq, dk, x.g, inner, x.packing, **told)
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

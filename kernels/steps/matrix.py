r"""A step of decoding on matrix states, in place: its contract and its launch.

The program is in `triton_code/steps.py`. Linear attention, RetNet, SSD, GLA, HGRN2, RWKV-6 (decay); DeltaNet, Gated
DeltaNet, KDA, DeltaProduct (delta); RWKV-7, Comba (DPLR); the mLSTM's memory and its normaliser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.forms.lowering import largest_exponent
from dsf.kernels.contract import Kernel, Program, Tile, power_of_two
from dsf.kernels.limits import target_of
from dsf.registry import resolve

from .cache import checked_cache, checked_slots, contiguous

CODE = "dsf.kernels.triton_code.steps"

_NONE = dict.fromkeys(("g", "beta", "left", "right", "bonus", "divisor"), "none")
_GIVEN = {"q": "data", "k": "data", "v": "data", "state": "fp32", "slots": "i64", "o": "data"}
_HEADS = ("heads", "q_heads", "k_heads")


def _program(label: str, gate: str, erase: str, **pointers: str) -> Program:
    kinds = _GIVEN | _NONE | pointers
    flags: dict[str, int | str] = {"R": 2 if label == "DeltaProduct" else 1, "GATE": gate}
    flags |= {"ERASE": erase, "BEFORE": int("bonus" in pointers)}
    integers = ("rows", "stride", *_HEADS, "v_heads")
    return Program(f"{CODE}:matrix_step", kinds, integers, ("scale",), flags, label)


# Each kind of gate, erasing and reading once, with all that a program of its kind can be given.
PROGRAMS = (
    _program("SSD", "scalar", "none", g="fp32", beta="fp32"),
    _program("mLSTM", "scalar", "none", g="fp32", beta="fp32", divisor="fp32"),
    _program("RWKV-6", "diagonal", "none", g="fp32", bonus="fp32"),
    _program("DeltaProduct", "scalar", "delta", g="fp32", beta="fp32"),
    _program("KDA", "diagonal", "delta", g="fp32", beta="fp32"),
    _program("RWKV-7", "diagonal", "dplr", g="fp32", left="data", right="data"),
    Program(
        f"{CODE}:normaliser_step",
        {"q": "data", "k": "data", "slots": "i64"}
        | dict.fromkeys(("log_write", "log_decay", "normaliser", "stabiliser"), "fp32")
        | dict.fromkeys(("g", "beta", "divisor"), "fp32"),
        ("rows", "stride", "apart", *_HEADS),
        ("scale",),
    ),
)
_MATRIX, _NORMALISER = PROGRAMS[0], PROGRAMS[-1]

LIMIT = largest_exponent(torch.float32)
_LONGEST = 256  # keys of one tile
_TILE = 4096  # numbers of one tile
_ENOUGH = 256  # programs that fill a device, about two per multiprocessor
_NARROWEST = 8  # values of one tile: a sector of memory
# Numbers that a thread holds of a whole tile of 129 to 255 keys that do not divide by 16, where 32 spill.
_MORE_EACH = {
    (90, "RWKV-6", "float16"): 64,
    (90, "RWKV-6", "bfloat16"): 64,
    (90, "DeltaProduct", "float16"): 64,
}


def tile_for(
    program: Program,
    dtype: str,
    keys: int,
    architecture: int,
    values: int | None = None,
    states: int | None = None,
) -> Tile:
    """All keys up to 256 and some values; fewer values where there are few `states` (sequences · heads)."""
    of_keys = min(power_of_two(keys), _LONGEST)
    constants: dict[str, int | float | str] = {
        "K": keys,
        "BK": of_keys,
        "KT": -(-keys // of_keys) or 1,
    }
    if program.function == _NORMALISER.function:
        return Tile(constants | {"LIMIT": LIMIT}, 1, products=False)
    values = keys if values is None else values
    of_values = min(power_of_two(values), max(_NARROWEST, _TILE // of_keys))
    if states is not None:
        while of_values > _NARROWEST and states * -(-values // of_values) < _ENOUGH:
            of_values //= 2
    # Where tiles are walked, pointers of the next one take registers too.
    each = 32 if keys <= of_keys else 16
    if keys % 16 and keys < of_keys == _LONGEST and of_keys * of_values == _TILE:
        each = _MORE_EACH.get((architecture, program.label, dtype), each)
    warps = max(1, of_keys * of_values // (32 * each))
    return Tile(constants | {"V": values, "BV": of_values}, warps, products=False)


KERNEL = Kernel(
    name="matrix-step",
    title="One step of decoding on matrix states, in place",
    admits="Λ is Identity, Scalar, Diagonal or DPLR of rank 1 a micro-step, real; outer couplings",
    form="recurrent",
    programs=PROGRAMS,
    tile=tile_for,
    sizes=(64, 128, 256, 512),
    source="Yang et al. (arXiv 2312.06635, 2406.06484, 2412.06464), recurrent forms; Beck et al. (2405.04517)",
)


@dataclass(frozen=True, eq=False)
class Token:
    """One token of B sequences and the cache of their states (rows, H, K, V), checked.

    q (B, Hq, K), k (B, Hk, K) or (B, Hk, R, K), v (B, Hv, V) or (B, Hv, R, V); g (B, H) or (B, H, K); beta (B, H) or
    (B, H, R); left, right like k; bonus (H, K); divisor (B, H). `erase` is "none", "delta" or "dplr"; `before` reads
    the state as it was.
    """

    state: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None
    beta: Tensor | None
    left: Tensor | None
    right: Tensor | None
    bonus: Tensor | None
    slots: Tensor | None
    scale: float
    erase: str
    before: bool
    divisor: Tensor | None = None

    def __post_init__(self) -> None:
        q, k, v = self.q, self.k, self.v
        if self.state.ndim != 4:
            raise InvalidInput(f"`state` must be (rows, H, K, V); got {tuple(self.state.shape)}")
        checked_heads(q, k, v, self.heads, several=self.erase == "delta")
        B, K = q.shape[0], q.shape[2]
        checked_cache("state", self.state, (self.heads, K, v.shape[-1]), "H, K, V", v)
        checked_slots(self.slots, self.state, B)
        of_gates = ((B, self.heads), (B, self.heads, K))
        of_strengths = ((B, self.heads),) if k.ndim == 3 else ((B, self.heads, k.shape[2]),)
        for name, x, shapes in (
            ("g", self.g, of_gates),
            ("beta", self.beta, of_strengths),
            ("a", self.left, (tuple(k.shape),)),
            ("b", self.right, (tuple(k.shape),)),
            ("bonus", self.bonus, ((self.heads, K),)),
        ):
            if x is not None and (tuple(x.shape) not in shapes or x.device != v.device):
                allowed = " or ".join(map(str, shapes))
                raise InvalidInput(
                    f"`{name}` must be {allowed} on {v.device}; got {tuple(x.shape)} on {x.device}"
                )

    @property
    def heads(self) -> int:
        return self.state.shape[1]

    @property
    def turns(self) -> int:
        """R, the micro-steps of the token."""
        return self.k.shape[2] if self.k.ndim == 4 else 1

    @property
    def gate(self) -> str:
        return "none" if self.g is None else "scalar" if self.g.ndim == 2 else "diagonal"

    def output(self) -> Tensor:
        """Room for the outputs (B, H, V)."""
        return self.v.new_empty(self.q.shape[0], self.heads, self.v.shape[-1])


def checked_heads(q: Tensor, k: Tensor, v: Tensor, heads: int, *, several: bool = False) -> None:
    """Raise `InvalidInput` unless q, k and v are of one token, and heads of the state can share theirs."""
    if q.ndim != 3:
        raise InvalidInput(f"`q` must be (B, heads, K), one token; got {tuple(q.shape)}")
    turns = k.shape[2:-1] if several and k.ndim == 4 else ()
    for name, x in (("k", k), ("v", v)):
        if x.ndim != 3 + len(turns) or x.shape[0] != q.shape[0] or x.shape[2:-1] != turns:
            axes = "(B, heads, [R,] channels)" if several else "(B, heads, channels)"
            raise InvalidInput(f"`{name}` must be {axes}, one token; got {tuple(x.shape)}")
    if turns and not turns[0]:
        raise InvalidInput("`k` has no micro-step: R must be 1 or more")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not x.shape[1] or heads % x.shape[1]:
            raise InvalidInput(
                f"the {heads} heads of the state cannot share the {x.shape[1]} of `{name}`"
            )
    if k.shape[-1] != q.shape[2]:
        raise InvalidInput(f"`k` has {k.shape[-1]} channels, `q` has {q.shape[2]}; they must agree")


def _program_of(x: Token) -> Program:
    """The program of the table that is most like a token's."""
    kind = x.gate, x.erase
    return next((p for p in PROGRAMS[:-1] if (p.flags["GATE"], p.flags["ERASE"]) == kind), _MATRIX)


def launch(x: Token) -> Tensor:
    """Outputs (B, H, V) in the type of v; the states of the slots are changed."""
    (B, _, keys), values, o = x.q.shape, x.v.shape[-1], x.output()
    dtype, architecture = target_of(x.v)
    tile = tile_for(_program_of(x), dtype, keys, architecture, values, B * x.heads)
    # One axis, since the others of a grid end at 65535.
    programs = -(-values // int(tile.constants["BV"])) * B * x.heads
    if not programs:
        return o
    resolve(_MATRIX.function)[(programs,)](
        *map(contiguous, (x.q, x.k, x.v, x.g, x.beta, x.left, x.right, x.bonus, x.divisor)),
        x.state, contiguous(x.slots), o,
        x.state.shape[0], x.state.stride(0), x.heads, x.q.shape[1], x.k.shape[1], x.v.shape[1], x.scale,
        R=x.turns, GATE=x.gate, ERASE=x.erase, BEFORE=x.before,
        num_warps=tile.warps, num_stages=tile.stages, **tile.constants,
    )  # fmt: skip
    return o


def launch_normaliser(
    q: Tensor,
    k: Tensor,
    log_write: Tensor,
    log_decay: Tensor,
    normaliser: Tensor,
    stabiliser: Tensor,
    slots: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-decays, write strengths and divisors (B, H) of the mLSTM's memory; n and m of the slots are changed."""
    (B, _, keys), heads = q.shape, normaliser.shape[1]
    g, beta, divisor = (normaliser.new_empty(B, heads) for _ in range(3))
    tile = tile_for(_NORMALISER, "float32", keys, 90)
    if B * heads:
        resolve(_NORMALISER.function)[(B * heads,)](
            *map(contiguous, (q, k, log_write, log_decay)), normaliser, stabiliser,
            contiguous(slots), g, beta, divisor,
            normaliser.shape[0], normaliser.stride(0), stabiliser.stride(0), heads, q.shape[1], k.shape[1], scale,
            num_warps=tile.warps, num_stages=tile.stages, **tile.constants,
        )  # fmt: skip
    return g, beta, divisor

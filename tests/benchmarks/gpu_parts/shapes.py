"""The sizes at which kernels are measured: six shapes that others publish, and lengths up to a million tokens."""

from __future__ import annotations

from .case import Sizes

# Compiling is what takes time: what has other programs is checked in one or two types.
_ONE, _TWO = ("bfloat16",), ("bfloat16", "float32")

# flash-linear-attention, benchmarks/ops/registry.py, SHAPE_CONFIGS: (B, T, H, D). Quick runs take three.
SIX = (
    Sizes("1,8192,96,128", 1, 8192, 96, 128, 128, quick=True),
    Sizes("2,16384,16,128", 2, 16384, 16, 128, 128),
    Sizes("4,2048,16,128", 4, 2048, 16, 128, 128, quick=True),
    Sizes("4,4096,64,128", 4, 4096, 64, 128, 128),
    Sizes("8,2048,32,256", 8, 2048, 32, 256, 256),
    Sizes("8,1024,8,64", 8, 1024, 8, 64, 64, quick=True),
)
TOKENS = 1 << 20
_LENGTHS = (2048, 8192, 32768, 131072, 524288, TOKENS)


def long(heads: int, keys: int, values: int) -> tuple[Sizes, ...]:
    """A million tokens, in sequences of growing length."""
    return tuple(
        Sizes(f"length {T}", TOKENS // T, T, heads, keys, values, quick=T in _LENGTHS[:3])
        for T in _LENGTHS
    )


MATRIX_CHECKS = (
    Sizes("odd length, shared heads", 2, 333, 4, share=2, quick=True),
    Sizes("packed, one empty", 1, 517, 2, starts=(0, 0, 100, 357, 517), quick=True),
    Sizes("zeros and huge decays", 1, 301, 4, share=2, hard=True),
    Sizes("unaligned heads", 1, 129, 3, 40, 24, dtypes=_ONE),
    Sizes("several tiles", 1, 200, 2, 256, 256, dtypes=_TWO),
    Sizes("one step", 3, 1, 2, dtypes=_ONE),
)
MATRIX_SMALL = (
    Sizes("odd length, shared heads", 2, 21, 4, 8, 6, share=2),
    Sizes("packed, one empty", 1, 19, 2, 8, 6, starts=(0, 0, 7, 19)),
    Sizes("zeros and huge decays", 1, 20, 2, 8, 6, hard=True),
    Sizes("one step", 2, 1, 2, 8, 6),
)
MATRIX_REPEATED = Sizes("repeated", 2, 1024, 16, 128, 128, dtypes=_TWO)
MATRIX_FAR = (Sizes("beyond 2^31 elements", 1, 131136, 128, 128, 128, share=128, dtypes=_ONE),)

CHANNEL_CHECKS = (
    Sizes("odd length", 2, 333, 1, 16, 67, quick=True),
    Sizes("packed, one empty", 1, 517, 1, 16, 48, starts=(0, 0, 100, 357, 517), quick=True),
    Sizes("many channels", 1, 200, 3, 16, 512, share=3),
    Sizes("one step", 3, 1, 1, 16, 32),
)
CHANNEL_SMALL = (
    Sizes("odd length", 2, 21, 1, 4, 5),
    Sizes("packed, one empty", 1, 19, 2, 4, 3, share=2, starts=(0, 0, 7, 19)),
    Sizes("one step", 2, 1, 1, 4, 5),
)
CHANNEL_REPEATED = Sizes("repeated", 2, 1024, 1, 16, 1024, dtypes=_TWO)
CHANNEL_FAR = (Sizes("beyond 2^31 elements", 1, 131136, 1, 1, 16384, dtypes=_ONE),)

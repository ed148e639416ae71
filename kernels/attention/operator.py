"""The operators of attention: Triton on CUDA, tiles of queries on the CPU, gradients for both."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.library import Pair, Signature, define, require_runnable
from dsf.kernels.numbers import check_alike, check_real
from dsf.kernels.shapes import Packing, accumulator
from dsf.sim import Pattern, Tiling

from . import flash, reference
from .geometry import Geometry, of_band, of_pattern
from .tiles import check_tiling
from .weighing import Weighing, check_heads


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weight: str = "softmax",
    normalised: bool = False,
    bias: float | None = None,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    starts: Tensor | None = None,
    key_starts: Tensor | None = None,
) -> Tensor:
    r"""y_i = Σ_j w(s q_i·k_j + b) v_j over the keys that query i sees; differentiable in q, k and v.

    - `q` (B, Tq, H, K), `k` (B, Tk, Hk, K), `v` (B, Tk, Hk, V): float32, float16 or bfloat16 (float64 on the CPU).
      H is a multiple of Hk: heads in a row share. Queries are the last Tq of the Tk positions, as in decoding.
    - `weight`: "softmax" is e^x divided by its sum over the row; "sigmoid" σ(x), "softplus" log(1 + e^x), with the
      `bias` b (the paper's is -log T), and divided by the sum of the row where `normalised`.
    - `causal`: later keys are not seen. `window`: only keys with |i - j| < window. `scale` s is 1/√K.
    - `starts` (N + 1,) packs sequences into one row of tokens (B = 1): none sees another. Where they have more keys
      than queries, as in decoding, `key_starts` (N + 1,) says where their keys begin.

    A query that sees no key gives exactly 0, and weights below float32's range count as 0. Softplus with log-length
    scaling (LSSA) is "softplus", `normalised`, with the scale of row i multiplied into q_i. Returns y (B, Tq, H, V) in
    the type of q. CUDA tensors run the Triton kernel, CPU tensors tiles of queries; a second derivative raises. Raises
    `InvalidInput` for shapes that do not fit and `Refused` on CUDA without Triton or with heads over 256 channels.

    Source: Dao (arXiv 2307.08691), algorithms 1 and 2; FlashSigmoid of Ramapuram et al. (arXiv 2409.04431); Gao et
    al. (arXiv 2501.13428). The mixers are `dsf.mixers.softmax_attention` and `dsf.mixers.scores`.

    >>> import torch
    >>> from dsf.kernels import flash_attention
    >>> q, v = torch.zeros(1, 3, 1, 1), torch.tensor([0.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    >>> flash_attention(q, q, v).flatten().round(decimals=4)
    tensor([0., 1., 2.])
    >>> flash_attention(q, q, v, weight="sigmoid").flatten()
    tensor([0., 1., 3.])
    """
    check_alike(q=q, k=k, v=v)
    check_real(q, q=q)
    check_heads(q, k, v)
    if window is not None and window < 1:
        raise InvalidInput(f"`window` must be at least 1, the query's own key; got {window}")
    packed = _places(q, k, starts, key_starts)
    require_runnable(q)
    flash.require_fits(q, v)
    how = Weighing.of(q, weight, normalised, scale, bias).options
    return _attention(q, k, v, *how, causal, window, *packed)[0]


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    tiling: Tiling | None = None,
    weight: str = "softmax",
    normalised: bool = False,
    bias: float | None = None,
    scale: float | None = None,
) -> Tensor:
    r"""y_i = Σ_j w(s q_i·k_j + b) v_j over the box of keys that a `Pattern` shows query i; differentiable in q, k, v.

    - `q` (B, \*layout, H, K), `k` (B, \*layout, Hk, K), `v` (B, \*layout, Hk, V) with the layout of `pattern`.
    - `tiling`: the shapes of the forward pass's tiles on a GPU, powers of two; a table has good ones.
    - the rest is as for `flash_attention`. The heads of the pattern are not read, and it must have no extra keys.

    Tiles visit the boxes that `dsf.sim` counts. Raises `InvalidInput` for shapes that do not fit and, on CUDA,
    `Refused` for more than three axes.

    Source: Hassani et al. 2025 (arXiv 2504.16922).

    >>> import torch
    >>> from dsf.kernels import neighborhood_attention
    >>> from dsf.sim import Pattern
    >>> q, v = torch.zeros(1, 4, 1, 1), torch.arange(4.0).reshape(1, 4, 1, 1)
    >>> neighborhood_attention(q, q, v, Pattern(4, window=3)).flatten().round(decimals=4)
    tensor([1., 1., 2., 2.])
    """
    rank = pattern.rank
    if pattern.extra_keys:
        raise InvalidInput("extra keys have no place in the layout: leave them out of the pattern")
    check_alike(q=q, k=k, v=v)
    check_real(q, q=q)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != rank + 3 or tuple(x.shape[1 : rank + 1]) != pattern.layout:
            raise InvalidInput(
                f"`{name}` must be (B, {', '.join(map(str, pattern.layout))}, heads, channels); got {tuple(x.shape)}"
            )
    flat = [x.flatten(1, rank) for x in (q, k, v)]
    check_heads(*flat)
    check_tiling(tiling, pattern)
    require_runnable(q)
    flash.require_fits(q, v, rank)
    how = Weighing.of(q, weight, normalised, scale, bias).options
    shape = (pattern.layout, pattern.window, pattern.stride, pattern.dilation, pattern.causal)
    tiles = (None, None) if tiling is None else (tiling.q, tiling.kv)
    return _neighborhood(*flat, *how, *shape, *tiles)[0].unflatten(1, pattern.layout)


def _places(
    q: Tensor, k: Tensor, starts: Tensor | None, key_starts: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Where packed sequences of queries and of keys begin, checked."""
    if starts is None:
        if key_starts is not None:
            raise InvalidInput("`key_starts` goes with `starts`, which was not given")
        return None, None
    own = Packing.of(q, starts)
    try:
        theirs = Packing.of(k, starts if key_starts is None else key_starts)
    except InvalidInput as error:
        if key_starts is None:
            raise InvalidInput(
                f"{q.shape[1]} queries and {k.shape[1]} keys are packed: give `key_starts` too"
            ) from None
        raise InvalidInput(f"`key_starts`: {error}") from None
    if theirs.sequences != own.sequences:
        raise InvalidInput(
            f"`starts` packs {own.sequences} sequences, `key_starts` {theirs.sequences}"
        )
    return own.starts, theirs.starts


_band = lru_cache(maxsize=16)(of_band)


def _geometry_of_band(q, k, causal, window, starts, key_starts):
    if starts is None:
        queries, keys = (0, q.shape[1]), (0, k.shape[1])
    else:
        queries, keys = tuple(starts.tolist()), tuple(key_starts.tolist())
    return _band(queries, keys, causal, window), (None, None, None)


@lru_cache(maxsize=16)
def _pattern(layout, window, stride, dilation, causal) -> Geometry:
    return of_pattern(Pattern(layout, window, stride, dilation, causal))


def _geometry_of_pattern(q, k, layout, window, stride, dilation, causal, q_tile, kv_tile):
    tiles = None if q_tile is None else (tuple(q_tile), tuple(kv_tile))
    return _pattern(*map(tuple, (layout, window, stride, dilation, causal))), (tiles, None, None)


def _operator(
    name: str, options: tuple[str, ...], geometry_of: Callable[..., Any]
) -> Callable[..., Any]:
    """An operator whose options say which keys queries see."""

    def on_cuda(inputs):
        q, k, v, weight, normalised, scale, bias, *seen = inputs
        geometry, tiles = geometry_of(q, k, *seen)
        return flash.Attention.of(
            q, k, v, geometry, Weighing(weight, normalised, scale, bias), tiles
        )

    def on_cpu(inputs):
        q, k, v, weight, normalised, scale, bias, *seen = inputs
        return q, k, v, geometry_of(q, k, *seen)[0], Weighing(weight, normalised, scale, bias)

    def shapes(q, k, v, weight, normalised, scale, bias, *seen):
        row = Weighing(weight, normalised, scale, bias).row(q, accumulator(q))
        return q.new_empty(*q.shape[:3], v.shape[-1]), row

    return define(
        Signature(
            name,
            ("q", "k", "v"),
            ("str weight", "bool normalised", "float scale", "float bias", *options),
            results=1,
            hidden=1,
            kept=(0, 1),
        ),
        cuda=Pair(
            lambda *inputs: flash.forward(on_cuda(inputs)),
            lambda do, o, row, *inputs: flash.backward(on_cuda(inputs), do, o, row),
        ),
        cpu=Pair(
            lambda *inputs: reference.forward(*on_cpu(inputs)),
            lambda do, o, row, *inputs: reference.backward(do, o, row, *on_cpu(inputs)),
        ),
        shapes=shapes,
    )


_attention = _operator(
    "flash_attention",
    ("bool causal", "int? window", "Tensor? starts", "Tensor? key_starts"),
    _geometry_of_band,
)
_neighborhood = _operator(
    "neighborhood_attention",
    (
        *("int[] layout", "int[] window", "int[] stride", "int[] dilation", "bool[] causal"),
        *("int[]? q_tile", "int[]? kv_tile"),
    ),
    _geometry_of_pattern,
)

"""The laws of the mixer protocol, as functions that raise; rows of very different mixers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass

import numpy as np
import torch
from torch import Tensor

from dsf.errors import Refusal
from dsf.forms.bounds import error_bound
from dsf.forms.mixing import mixing_matrix
from dsf.mixers import (
    EVERYTHING,
    Band,
    Mixer,
    Recurrence,
    SigmoidAttention,
    SoftmaxAttention,
    agent_attention,
    flow_attention,
    inline_attention,
)
from dsf.mixers import DepthwiseConvolution as Convolution
from dsf.numerics import require_within, weighted_sum_error

from . import counted

B, T, H, K, V = 2, 12, 2, 3, 4
Quantities = dict[str, Tensor]


@dataclass(frozen=True)
class Row:
    """A mixer from its quantities, the same written naively for one head, and what it costs there."""

    name: str
    build: Callable[..., Mixer]
    draw: Callable[[torch.Generator], Quantities]
    naive: Callable[..., np.ndarray] | None = None
    tokens: tuple[int, ...] = (V,)
    length: int = T
    roundings: float = 64.0 * (T + K)
    timed: tuple[str, ...] = field(default=())

    def sample(self, seed: int = 0) -> tuple[Quantities, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        quantities = self.draw(generator)
        v = torch.randn(B, self.length, H, *self.tokens, generator=generator, dtype=torch.float64)
        return quantities, v


def queries_and_keys(generator: torch.Generator) -> Quantities:
    q, k = torch.randn(2, B, T, H, K, generator=generator, dtype=torch.float64)
    return {"q": q, "k": k}


def taps(generator: torch.Generator) -> Quantities:
    return {"taps": torch.randn(H, 4, V, generator=generator, dtype=torch.float64)}


def _pairs(mixer: type, band: Band, weigh: Callable[[list], list], **options: float) -> dict:
    def naive(q, k, v):
        return counted.window(q, k, v, band.before, band.after, weigh)

    return {
        "build": lambda q, k: mixer(q, k, band=band, **options),
        "draw": queries_and_keys,
        "naive": naive,
        "timed": ("q", "k"),
    }


def _sigmoids(row: list) -> list:
    return [counted.sigmoid(x + (-0.5)) for x in row]


def _summary(build: Callable[..., Mixer], naive: Callable[..., np.ndarray]) -> dict:
    return {"build": build, "draw": queries_and_keys, "naive": naive, "timed": ("q", "k")}


ROWS = [
    Row("softmax", **_pairs(SoftmaxAttention, Band(None, 0), counted.softmax)),
    Row("softmax over all", **_pairs(SoftmaxAttention, EVERYTHING, counted.softmax)),
    Row("softmax in a window", **_pairs(SoftmaxAttention, Band(3, 0), counted.softmax)),
    Row("softmax around", **_pairs(SoftmaxAttention, Band(2, 1), counted.softmax)),
    Row("sigmoid", **_pairs(SigmoidAttention, Band(None, 0), _sigmoids, bias=-0.5)),
    Row("sigmoid over all", **_pairs(SigmoidAttention, EVERYTHING, _sigmoids, bias=-0.5)),
    Row(
        "agent",
        **_summary(
            lambda q, k: agent_attention(q, k, 4), lambda q, k, v: counted.agent(q, k, v, 4)
        ),
    ),
    Row("inline", **_summary(inline_attention, counted.inline)),
    Row(
        "inline causal",
        **_summary(lambda q, k: inline_attention(q, k, causal=True), counted.inline_causal),
    ),
    Row(
        "flow",
        **_summary(lambda q, k: flow_attention(q, k), lambda q, k, v: counted.flow(q, k, v, 1e-6)),
    ),
    Row("convolution", lambda taps: Convolution(taps, T), taps, counted.convolved),
]


def apply(phi: Tensor, values: Tensor) -> Tensor:
    """Φ v for every shape that Φ has."""
    if values.ndim == 5:
        return torch.einsum("bhijw,bjhwv->bihv", phi, values)
    if phi.ndim == 6:
        return torch.einsum("bhirjw,bjhw->bihr", phi, values)
    return torch.einsum("bhvij,bjhv->bihv" if phi.ndim == 5 else "bhij,bjhv->bihv", phi, values)


def slack(row: Row, mixer: Mixer, phi: Tensor, values: Tensor) -> Tensor:
    """How far two computations of the mixer may be apart: of its gates, and of a recurrence's paths."""
    if not isinstance(mixer, Recurrence):
        return weighted_sum_error(phi, values, row.roundings)
    system = mixer.of
    paths = 2 * error_bound(system, values, form="recurrent").outputs
    paths = paths + 2 * error_bound(system, values, form="matrix").outputs
    return paths + (weighted_sum_error(phi, values, row.roundings) if row.naive else 0.0)


def matrix_is_direct(row: Row) -> None:
    """Φ v, the call and the naive formula."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    phi = mixer.matrix()
    assert isinstance(phi, Tensor), phi
    bound = slack(row, mixer, phi, v)
    require_within(apply(phi, v), mixer(v), bound, f"{row.name}: matrix and call")
    if row.naive is not None:
        for b in range(B):
            for h in range(H):
                own = {n: _of_head(x, b, h) for n, x in quantities.items()}
                direct = torch.from_numpy(row.naive(**own, v=v[b, :, h].numpy()).astype(float))
                limit = bound.expand_as(v)[b, :, h]
                require_within(mixer(v)[b, :, h], direct, limit, f"{row.name}: call and formula")


def _of_head(x: Tensor, b: int, h: int) -> np.ndarray:
    if x.ndim == 3:  # taps (H, W, V)
        return x[h].numpy()
    return x[b, :, h].numpy()


def system_is_matrix(row: Row) -> None:
    """Φ of the system, or a refusal with a reason."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    system = mixer.system()
    if isinstance(system, Refusal):
        assert system.reason, row.name
        return
    phi = mixer.matrix()
    assert isinstance(phi, Tensor)
    own = mixing_matrix(system, row.length if system.length is None else None)
    bound = slack(row, mixer, phi, v)
    require_within(apply(own, v), apply(phi, v), bound, f"{row.name}: system and matrix")


def rank_is_bounded(row: Row) -> None:
    """Φ[i:, :i] and Φ[:i, i:] have at most `state_size` singular values above their errors (Weyl)."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    phi = mixer.matrix()
    assert isinstance(phi, Tensor)
    flat = blocks_of(phi, row.length)
    error = (
        float(slack(row, mixer, phi, torch.ones_like(v)).max()) * flat.shape[-1] * flat.shape[-3]
    )
    n = mixer.state_size(row.length)
    for i in range(1, row.length):
        for block in (flat[..., i:, :, :i, :], flat[..., :i, :, i:, :]):
            block = block.flatten(-2).flatten(-3, -2)
            below = torch.linalg.svdvals(block)[..., n:]
            zero = torch.zeros_like(below)
            require_within(below, zero, torch.tensor(error), f"{row.name}: rank at cut {i}")


def blocks_of(phi: Tensor, length: int) -> Tensor:
    """Φ as (…, T, r, T, w), whatever read-outs r and writes w there are per step."""
    if phi.ndim == 6:
        return phi
    if phi.shape[-2:] == (length, length):
        return phi[..., :, None, :, None]
    return phi[..., None, :, :]  # (B, H, T, T, w)


def is_causal_as_it_says(row: Row) -> None:
    """A value at t moves an output before t if and only if the mixer is not causal."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    t = row.length // 2
    other = v.clone()
    other[:, t:] += 1.0
    before, after = mixer(v)[:, :t], mixer(other)[:, :t]
    if not mixer.causal:
        assert not torch.equal(before, after), f"{row.name}: says that it is not causal, and is"
        return
    phi = mixer.matrix()
    largest = torch.maximum(v.abs(), other.abs())
    reference = phi if isinstance(phi, Tensor) else torch.ones(B, H, 1, 1, dtype=v.dtype)
    bound = slack(row, mixer, reference, largest).expand_as(mixer(v))[:, :t]
    require_within(after, before, bound, f"{row.name}: a later value")


def gates_look_ahead_as_it_says(row: Row) -> None:
    """Later quantities move Φ[:t, :t] if and only if the mixer says that its gates look ahead."""
    if not row.timed:
        return
    quantities, _ = row.sample()
    later, _ = row.sample(seed=1)
    t = row.length // 2
    mixed = {
        n: torch.cat([x[:, :t], later[n][:, t:]], 1) if n in row.timed else x
        for n, x in quantities.items()
    }
    mixer, other = row.build(**quantities), row.build(**mixed)
    blocks = []
    for one in (mixer, other):
        phi = one.matrix()
        assert isinstance(phi, Tensor)
        blocks.append(blocks_of(phi, row.length)[..., :t, :, :t, :])
    if torch.equal(*blocks) is mixer.gate_looks_ahead:
        raise AssertionError(f"{row.name}: gates look ahead, or do not, against what it says")


def sequences_are_apart(row: Row) -> None:
    """Changing one sequence of the batch changes no bit of the others, gates included."""
    quantities, v = row.sample()
    changed, w = row.sample(seed=2)
    mixed = {
        n: torch.cat([x[:1], changed[n][1:]]) if n in row.timed else x
        for n, x in quantities.items()
    }
    first = row.build(**quantities)(v)[0]
    second = row.build(**mixed)(torch.cat([v[:1], w[1:]]))[0]
    if not torch.equal(first, second):
        raise AssertionError(f"{row.name}: another sequence of the batch changed an output")


def rows_sum_as_it_says(row: Row) -> None:
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    phi = mixer.matrix()
    assert isinstance(phi, Tensor)
    found = blocks_of(phi, row.length).sum((-1, -2))
    one = torch.ones_like(v)
    error = slack(row, mixer, phi, one).max()
    said = mixer.row_sum
    if said is not None:
        require_within(found, torch.full_like(found, said), error, f"{row.name}: rows")
    else:
        assert float(found.max() - found.min()) > float(error), (
            f"{row.name}: rows sum to one number"
        )


def is_linear_as_it_says(row: Row) -> None:
    """f(a u + b v) = a f(u) + b f(v) with a, b powers of 2, if and only if it says so."""
    quantities, v = row.sample()
    _, w = row.sample(seed=3)
    mixer = row.build(**quantities)
    together, apart = mixer(2.0 * v - 0.5 * w), 2.0 * mixer(v) - 0.5 * mixer(w)
    phi = mixer.matrix()
    if not mixer.linear_in_values:
        assert isinstance(phi, Refusal) and phi.reason
        assert isinstance(mixer.adjoint(), Refusal)
        assert not torch.equal(together, apart), f"{row.name}: says that it is not linear, and is"
        return
    assert isinstance(phi, Tensor)
    bound = 4 * slack(row, mixer, phi, v.abs() + w.abs())
    require_within(together, apart, bound, f"{row.name}: linearity")


def adjoint_is_transpose(row: Row) -> None:
    """⟨Φ u, w⟩ = ⟨u, Φᵀ w⟩ per sequence, and the adjoint's own matrix and call."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    back = mixer.adjoint()
    if isinstance(back, Refusal):
        assert back.reason, row.name
        return
    w = torch.randn(v.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    phi = mixer.matrix()
    assert isinstance(phi, Tensor)
    left, right = (mixer(v) * w).sum((1, 2, 3)), (v * back(w)).sum((1, 2, 3))
    bound = 2 * (slack(row, mixer, phi, v).expand_as(v) * w.abs()).sum((1, 2, 3))
    bound = bound + (
        weighted_sum_error(_channels(phi), w, row.roundings).expand_as(v) * v.abs()
    ).sum((1, 2, 3))
    require_within(left, right, bound, f"{row.name}: adjoint")
    transposed = back.matrix()
    if phi.ndim < 6 and isinstance(transposed, Tensor):
        limit = weighted_sum_error(_channels(phi), w, row.roundings) + slack(
            row, mixer, phi, w
        ).amax(1, True)
        require_within(apply(transposed, w), back(w), limit, f"{row.name}: adjoint's matrix")
    if mixer.causal:
        assert back.band == mixer.band.reversed()


def _channels(phi: Tensor) -> Tensor:
    """Φ with the largest weight that any channel has."""
    return phi.flatten(2)[:, :, None]


def counters_are_counts(row: Row) -> None:
    """Multiply-adds by counting numbers, bytes by walking over tensors, tiles by looking at Φ."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    values = v.shape[-1]
    tally = counted.Tally()
    if row.naive is not None:
        own = {n: counted.numbers(_of_head(x, 0, 0), tally) for n, x in quantities.items()}
        row.naive(**own, v=counted.numbers(v[0, :, 0].numpy(), tally))
        products = tally.products
    else:
        assert isinstance(mixer, Recurrence)
        products = counted.products_of_a_run(mixer.of, row.length, values)
    said = mixer.multiply_adds(row.length, values)
    assert said == products, f"{row.name}: {said} multiply-adds said, {products} counted"
    phi = mixer.matrix()
    assert isinstance(phi, Tensor)
    tiles_are_those_of(blocks_of(phi, row.length), mixer, row.length, row.name)


def tiles_are_those_of(phi: Tensor, mixer: Mixer, length: int, name: str) -> None:
    seen = (phi != 0).any(-1).any(-2).flatten(0, -3).any(0)
    for rows, columns in ((1, 1), (4, 3), (5, 2), (length, length)):
        tiles = [
            seen[i : i + rows, j : j + columns]
            for i in range(0, length, rows)
            for j in range(0, length, columns)
        ]
        visited = sum(bool(t.any()) for t in tiles)
        full = sum(bool(t.all()) for t in tiles)
        counts = mixer.block_counts(length, (rows, columns))
        found = (counts.total, counts.visited, counts.full, counts.partial)
        assert found == (len(tiles), visited, full, visited - full), (
            f"{name}: tiles {rows}x{columns}"
        )


def bytes_are_those_held(row: Row) -> None:
    """Bytes by walking over the tensors of the mixer and of what continues it."""
    quantities, v = row.sample()
    mixer = row.build(**quantities)
    values, width = v.shape[-1], 8
    held = walked(mixer.of) if isinstance(mixer, Recurrence) else list(quantities.values())
    through = v[0, :, 0].numel() + row.length * values
    read = sum(_own_numbers(x) for x in held) if row.name != "convolution" else 4 * V
    said = mixer.moved_bytes(row.length, values, width)
    assert said == width * (read + through), f"{row.name}: {said} bytes said to be moved"
    if not isinstance(mixer, Recurrence | SoftmaxAttention) or mixer.band.before is not None:
        return
    if not mixer.causal and isinstance(mixer, SoftmaxAttention):
        return
    _, state = mixer.continued(v, None)
    kept = sum(_own_numbers(x) for x in walked(state)) if isinstance(mixer, SoftmaxAttention) else 0
    if not kept:
        kept = sum(x[0, 0].numel() * (2 if x.is_complex() else 1) for x in walked(state))
    said = mixer.state_bytes(row.length, values, width)
    assert said == width * kept, f"{row.name}: {said} bytes said to be kept, {width * kept} found"


def walked(value: object) -> list[Tensor]:
    """Every tensor that a tree of dataclasses holds: what is formed when asked for is not held."""
    if isinstance(value, Tensor):
        return [value]
    if not is_dataclass(value):
        return []
    return [x for held in vars(value).values() for x in walked(held)]


def _own_numbers(x: Tensor) -> int:
    """Real numbers of one sequence and head of (B, T, H, …)."""
    return x[0, :, 0].numel() * (2 if x.is_complex() else 1)


LAWS = {
    "bytes": bytes_are_those_held,
    "matrix": matrix_is_direct,
    "system": system_is_matrix,
    "rank": rank_is_bounded,
    "causality": is_causal_as_it_says,
    "gates": gates_look_ahead_as_it_says,
    "batch": sequences_are_apart,
    "rows": rows_sum_as_it_says,
    "linearity": is_linear_as_it_says,
    "adjoint": adjoint_is_transpose,
    "counters": counters_are_counts,
}

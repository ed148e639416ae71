"""Times dsf on a CPU against what one would use instead, and writes docs/cpu-measurements.md.

    pip install -c constraints.txt transformers mambapy einops
    python tests/benchmarks/peers.py [path of fla/ops/simple_gla/naive.py]

One thread, float32, every ratio from calls measured in turn in this process; a peer's output is
compared with ours before it is timed. A peer that is not installed has no row. Of
flash-linear-attention give one file: where the package is installed, transformers calls its kernels.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import importlib.metadata
import math
import platform
import runpy
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from cases import cases
from report import _processor as processor
from timing import interleaved, ratio
from torch import Tensor

import dsf
from dsf.coupling import OuterCoupling
from dsf.mixers import gated_deltanet, kda, rwkv4, s6, ssd
from dsf.structure import Scalar
from dsf.system import System

LENGTH, ROUNDS = 8192, 3
TARGET = Path(__file__).resolve().parents[2] / "docs" / "cpu-measurements.md"
GENERATOR = torch.Generator().manual_seed(0)

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One comparison: ours, theirs, and what is to be reached."""

    title: str
    peer: str
    ours: Call
    theirs: Call
    aim: float | None = None


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=GENERATOR)


def output(system: System, tokens: Tensor, form: str | None = None) -> Tensor:
    return dsf.run(system, tokens, form=form)[0]


def delta_rules() -> list[Row]:
    from transformers.models.kimi_linear import modeling_kimi_linear as kimi
    from transformers.models.qwen3_next import modeling_qwen3_next as qwen

    lead = (1, LENGTH, 4)
    q, v = normal(*lead, 64), normal(*lead, 64)
    k = torch.nn.functional.normalize(normal(*lead, 64), dim=-1)
    g, per_key, beta = -uniform(*lead), -uniform(*lead, 64), uniform(*lead)
    scaled = q / math.sqrt(64)

    def theirs(function: Callable[..., tuple[Tensor, object]], gate: Tensor) -> Call:
        return lambda: function(q, k, v, gate, beta, initial_state=None, output_final_state=False)[
            0
        ]

    def ours() -> Tensor:
        return output(gated_deltanet(scaled, k, g, beta), v)

    def kimi_ours() -> Tensor:
        return output(kda(scaled, k, beta, per_key), v)

    name = "transformers"
    return [
        Row("Gated DeltaNet", f"{name}, chunked", ours, theirs(qwen.torch_chunk_gated_delta_rule, g), 1.2),
        Row("Gated DeltaNet", f"{name}, token by token", ours, theirs(qwen.torch_recurrent_gated_delta_rule, g)),
        Row("KDA", f"{name}, chunked", kimi_ours, theirs(kimi.chunk_kimi_delta_attention, per_key), 5),
        Row("KDA", f"{name}, token by token", kimi_ours, theirs(kimi.recurrent_kimi_delta_attention, per_key), 1),
    ]  # fmt: skip


def mambas() -> list[Row]:
    from transformers.models.mamba import modeling_mamba as first
    from transformers.models.mamba2 import modeling_mamba2 as second

    channels, states = 512, 16
    x, b, c = normal(1, LENGTH, channels), normal(1, LENGTH, states), normal(1, LENGTH, states)
    delta, A = (
        0.1 * uniform(1, LENGTH, channels),
        -torch.arange(1.0, states + 1).repeat(channels, 1),
    )
    skip = normal(channels)
    built = s6(delta, A, b, c, skip=skip)

    def selective() -> Tensor:
        return output(s6(delta, A, b, c, skip=skip), x[:, :, None])[:, :, 0]

    def prepared() -> Tensor:
        return output(built, x[:, :, None])[:, :, 0]

    def loop(**options: bool) -> Call:
        turned = [t.transpose(1, 2) for t in (x, delta, b, c)]

        def call() -> Tensor:
            found = first.mamba_selective_scan(
                turned[0], turned[1], A, turned[2], turned[3], D=skip, **options
            )
            return (found[0] if isinstance(found, tuple) else found).transpose(1, 2)

        return call

    heads, groups = 8, 2
    values, step = normal(1, LENGTH, heads, 64), uniform(1, LENGTH, heads)
    rates = -uniform(heads)
    writes, reads = normal(1, LENGTH, groups, 64), normal(1, LENGTH, groups, 64)

    def dual() -> Tensor:
        several = [w.repeat_interleave(heads // groups, 2) for w in (writes, reads)]
        return output(ssd(step, rates, *several), values)

    def chunked() -> Tensor:
        found = second.mamba2_chunk_scan(values, step, rates, writes, reads, chunk_size=256)
        return found[0] if isinstance(found, tuple) else found

    rows = [
        Row("Mamba-1, from Δ, A, b, c", "transformers, token by token", selective, loop(), 5),
        Row("Mamba-1, gates prepared", "transformers, token by token", prepared, loop(), None),
        Row("Mamba-2", "transformers, chunked", dual, chunked, 1.2),
    ]
    if _version("mambapy"):
        rows.append(
            Row("Mamba-1, from Δ, A, b, c", "mambapy.pscan", selective, loop(use_mambapy=True))
        )
    return rows


def gated_scans() -> list[Row]:
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    width = 256
    gate, x = uniform(1, LENGTH, width), normal(1, LENGTH, width)
    reset = torch.zeros(1, LENGTH, 1, dtype=torch.bool)
    one = torch.ones(1, 1, 1, 1)

    def ours() -> Tensor:
        system = System(Scalar(gate), OuterCoupling(one), OuterCoupling(one))
        return output(system, x[..., None])[..., 0]

    def theirs() -> Tensor:
        return RecurrentGemmaRglru._rnn_scan(None, x, gate, reset, None)[0]  # type: ignore[arg-type]

    rows = [Row("RG-LRU, the scan", "transformers, token by token", ours, theirs, 3)]
    if _version("mambapy"):
        from mambapy.pscan import pscan

        rows.append(
            Row(
                "RG-LRU, the scan",
                "mambapy.pscan",
                ours,
                lambda: pscan(gate[..., None], x[..., None])[..., 0],
            )
        )
    return rows


def rwkv() -> list[Row]:
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    width = 256
    k, v = normal(1, LENGTH, width), normal(1, LENGTH, width)
    log_w, u = normal(width), normal(width)

    def ours() -> Tensor:
        return output(rwkv4(k, torch.exp(log_w), u), v[..., None])[..., 0]

    def theirs() -> Tensor:
        return rwkv_linear_attention_cpu(log_w, u, k, v)[0]

    return [Row("RWKV-4", "transformers, token by token", ours, theirs, 3)]


def scalar_decay() -> list[Row]:
    case = cases(LENGTH)["scalar decay"]()
    system, v = case.system, case.values
    q, k = system.read.weights, system.write.weights
    decay, log = system.transition.decay, system.transition.log  # type: ignore[attr-defined]
    turned = [x.transpose(1, 2).contiguous() for x in (q, k, v)]

    def ours() -> Tensor:
        return output(system, v)

    def softmax() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(*turned, is_causal=True)

    def loop() -> Tensor:
        state, found = torch.zeros(1, 4, 64, 64), []
        for i in range(LENGTH):
            state = decay[:, i, :, None, None] * state + k[:, i, :, :, None] * v[:, i, :, None]
            found.append((q[:, i, :, None] @ state)[:, :, 0])
        return torch.stack(found, 1)

    rows = [
        Row("scalar decay", "a loop over the tokens", ours, loop, 15),
        Row("scalar decay", "softmax: `scaled_dot_product_attention`", ours, softmax, 10),
    ]
    if len(sys.argv) > 1:
        chunked = runpy.run_path(sys.argv[1])["naive_chunk_simple_gla"]

        def naive() -> Tensor:
            return chunked(q, k, v, log, scale=1.0)[0]

        rows.append(Row("scalar decay", "flash-linear-attention, its plain chunks", ours, naive))
    return rows


def main() -> None:
    torch.set_num_threads(1)
    groups = [scalar_decay]
    if _version("transformers"):
        groups += [delta_rules, mambas, gated_scans, rwkv]
    with torch.no_grad():
        lines = [line for group in groups for line in map(_line, group())]
    slopes = list(_slopes())
    versions = ", ".join(
        f"{name} {version}"
        for name in ("torch", "transformers", "mambapy")
        if (version := _version(name))
    )
    text = f"""# Measurements on a CPU

Written by `tests/benchmarks/peers.py`: float32, one thread, B = 1, T = {LENGTH}, median of {ROUNDS} rounds in
turn. Four heads of K = V = 64; Mamba-1 512 channels of 16 states, Mamba-2 eight heads of 64 × 64 in two groups,
RG-LRU 256 channels. {platform.machine()}, {processor()}, Python {platform.python_version()}, {versions},
dsf {dsf.__version__}.

## Against what one would use instead

"Apart": the largest difference of the two outputs, over the largest output.

| what | peer | ours, ms | peer, ms | times faster | aim | apart |
|---|---|---:|---:|---:|---:|---:|
{chr(10).join(lines)}

## Growth with the length, and the way back

The exponent p of time ∝ T^p, fitted over T = 512 … 65 536 (scan: … 16 384, S6 and recurrent: … 8192, the gradient of
recurrent: … 2048), and the time of forward and backward over that of forward alone, at the longest length.

| structure | form | forward, µs per token | p | forward and backward | p | ratio |
|---|---|---:|---:|---:|---:|---:|
{chr(10).join(slopes)}
"""
    TARGET.write_text(text, encoding="utf-8")


def _line(row: Row) -> str:
    ours, theirs = row.ours(), row.theirs()
    apart = (
        float((ours - theirs).abs().max() / theirs.abs().max())
        if row.peer[:7] != "softmax"
        else None
    )
    times = interleaved({"ours": row.ours, "theirs": row.theirs}, ROUNDS)
    faster = ratio(times["theirs"], times["ours"])
    cells = [f"{1e3 * statistics.median(times[name]):.1f}" for name in ("ours", "theirs")]
    aim = "" if row.aim is None else f"{row.aim:g}"
    shown = "" if apart is None else f"{apart:.0e}"
    print(row.title, row.peer, f"{faster:.1f}", file=sys.stderr)
    return (
        f"| {row.title} | {row.peer} | {cells[0]} | {cells[1]} | {faster:.1f} | {aim} | {shown} |"
    )


def _slopes() -> list[str]:
    """A row per structure and form."""
    found = []
    for name in ("linear attention", "scalar decay", "diagonal decay", "gated delta rule", "S6"):
        for form in ("recurrent", "scan", "chunkwise"):
            if not dsf.forms.selection.named(form).admits(cases(8)[name]().system):
                continue
            longest = 8192 if form == "recurrent" or name == "S6" else 65536
            if form == "scan" and name != "S6":
                longest = 16384
            forward = _times(name, form, longest, backward=False)
            both = _times(name, form, 2048 if form == "recurrent" else longest, backward=True)
            last = max(both)
            found.append(
                f"| {name} | {form} | {1e6 * forward[max(forward)] / max(forward):.1f} | {_exponent(forward):.2f} "
                f"| {1e6 * both[last] / last:.1f} | {_exponent(both):.2f} | {both[last] / forward[last]:.1f} |"
            )
            print(found[-1], file=sys.stderr)
    return found


def _times(name: str, form: str, longest: int, backward: bool) -> dict[int, float]:
    found, length = {}, 512
    while length <= longest:
        case = cases(length)[name]()
        system = case.system.map(lambda x: x.detach().requires_grad_()) if backward else case.system
        values = case.values.requires_grad_() if backward else case.values
        leaves = [*system.transition.leaves, *system.write.tensors, *system.read.tensors, values]

        def call(system=system, values=values, leaves=leaves) -> None:
            outputs = dsf.run(system, values, form=form)[0]
            if backward:
                torch.autograd.grad(outputs.sum(), leaves, allow_unused=True)

        found[length] = statistics.median(interleaved({"call": call}, ROUNDS)["call"])
        length *= 4 if 4 * length <= longest or length == longest else 2
    return found


def _exponent(times: dict[int, float]) -> float:
    x, y = [math.log(n) for n in times], [math.log(t) for t in times.values()]
    return statistics.linear_regression(x, y).slope


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())

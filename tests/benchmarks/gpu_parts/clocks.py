"""Clocks: CUDA graphs and eager calls on a GPU, the wall clock in a dry run on the CPU.

Several sets of inputs take turns, so that no call finds its inputs in the cache.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch

Calls = Sequence[Callable[[], object]]


def sets_of_inputs(bytes_of_one: int, device: torch.device) -> int:
    """How many sets of inputs are three times the cache of second level; 8 at most."""
    if device.type != "cuda":
        return 1
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 64 << 20)
    return max(1, min(8, -(-3 * cache // max(bytes_of_one, 1))))


def eager_ms(calls: Calls, device: torch.device, budget_ms: float) -> float:
    """Milliseconds of a call as Python makes it, launches included: the median of up to five blocks."""
    _warm(calls, device)
    clock = _events if device.type == "cuda" else _wall
    once = clock(calls, 1)
    times = max(1, min(200, int(budget_ms / 5 / max(once, 1e-3))))
    blocks = max(2, min(5, int(budget_ms / max(once, 1e-3))))
    return statistics.median(clock(calls, times) for _ in range(blocks))


def graph_ms(calls: Calls, device: torch.device, budget_ms: float) -> float:
    """Milliseconds of a call without the host: calls are captured in one CUDA graph and replayed."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        _warm(calls, device)
        once = _events(calls, 1)
        times = max(len(calls), min(100, int(budget_ms / 8 / max(once, 1e-3))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in itertools.islice(itertools.cycle(calls), times):
                call()
        torch.cuda.synchronize(device)
        graph.replay()
        replays = max(2, min(7, int(budget_ms / max(once * times, 1e-3))))
        found = [_between_events(graph.replay) / times for _ in range(replays)]
    torch.cuda.current_stream(device).wait_stream(stream)
    return statistics.median(found)


def _warm(calls: Calls, device: torch.device) -> None:
    """Compile, tune and load: none of it may happen while a graph is captured."""
    for call in calls:
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _events(calls: Calls, times: int) -> float:
    def block() -> None:
        for call in itertools.islice(itertools.cycle(calls), times):
            call()

    return _between_events(block) / times


def _between_events(block: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    block()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def _wall(calls: Calls, times: int) -> float:
    start = time.perf_counter()
    for call in itertools.islice(itertools.cycle(calls), times):
        call()
    return 1e3 * (time.perf_counter() - start) / times


def copy_tb_s(device: torch.device, budget_ms: float) -> float:
    """10^12 bytes a second, read and written, of a copy that no cache holds."""
    size = 1 << 30 if device.type == "cuda" else 1 << 24
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    calls = [lambda: target.copy_(source)]
    clock = graph_ms if device.type == "cuda" else eager_ms
    return 2 * size / (1e9 * clock(calls, device, budget_ms))

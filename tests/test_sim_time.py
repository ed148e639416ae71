"""Schedules, the time model and its calibration, end to end, context parallel, devices."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsf.errors import InvalidInput
from dsf.numerics import require_close
from dsf.sim import Pattern, Tiling, bounds, count, count_visits
from dsf.sim.calibration import (
    default_kernel,
    fit,
    leave_one_out,
    leave_rank_out,
    masked_overhead,
    permutation_share,
    predict,
)
from dsf.sim.context_parallel import split
from dsf.sim.device import DEVICES, Device, device
from dsf.sim.end_to_end import Run, bounds_end_to_end, end_to_end, layers_end_to_end
from dsf.sim.kernel_time import Kernel, Problem, dense_time, kernel_time, permute_ms, visit_us
from dsf.sim.measured import DENSE_MS, ROWS
from dsf.sim.published import END_TO_END
from dsf.sim.schedule import last_sm, makespan, visits_in_order

B200 = DEVICES["B200"]
PLAIN = Kernel(efficiency=0.5, prologue_us=0.0, masked_overhead=0.0)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 8))
def test_a_schedule_is_greedy_and_within_its_bounds(durations: list[int], sms: int) -> None:
    found = makespan(np.array(durations, dtype=float), sms)
    free = [0.0] * sms
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    assert found.time == max(free)
    total, longest = sum(durations), max(durations)
    assert found.floor == max(total / sms, longest)
    assert found.floor <= found.time <= total / sms + longest * (1 - 1 / sms) + longest / total
    assert sum(durations[i] for i in last_sm(np.array(durations, dtype=float), sms)) == found.time


def test_no_work_takes_no_time() -> None:
    assert makespan(np.array([]), 4) == (0.0, 0.0)


def test_launch_order_is_row_major_and_holds_every_tile() -> None:
    pattern, tiling = Pattern((13, 18), (5, 6), 1, (2, 1), extra_keys=3), Tiling((2, 4), (2, 3))
    counts = count(pattern, tiling)
    visits = visits_in_order(counts, copies=3)
    assert visits.sum() == 3 * counts.padded_visited and visits.size == 3 * counts.padded_q_tiles
    line = count(Pattern(24, 8), Tiling(4, 4))
    assert visits_in_order(line).tolist() == [2, 3, 3, 3, 3, 2]


def test_a_visit_waits_for_its_slowest_unit() -> None:
    narrow = replace(B200, exp_per_clock=4)
    starved = replace(B200, smem_bytes_per_clock=16)
    units = [visit_us((256, 128), Problem(), row)[1] for row in (B200, narrow, starved)]
    assert units == ["tensor cores", "exponentials", "shared memory"]
    assert visit_us((256, 128), Problem(64), B200)[1] == "exponentials"


def test_one_wave_by_hand() -> None:
    """148 query tiles on 148 SMs, 4 visits each: 4 times the visit, at half the peak."""
    tiles = 148
    counts = count_visits([4] * tiles, [4] * tiles, 10, 256 * tiles, 128, (256, 128))
    found = kernel_time(counts, Tiling(256, 128), Problem(), B200, PLAIN)
    assert found.ms == 4 * visit_us((256, 128), Problem(), B200)[0] / 0.5 / 1e3
    assert (found.waves, found.limit) == (1.0, "tensor cores")
    two = kernel_time(counts, Tiling(256, 128), Problem(heads=2), B200, PLAIN)
    assert two.ms == 2 * found.ms
    masked = replace(PLAIN, masked_overhead=0.5)
    assert kernel_time(counts, Tiling(256, 128), Problem(), B200, masked).ms == found.ms
    partial = counts._replace(full=0)
    assert kernel_time(partial, Tiling(256, 128), Problem(), B200, masked).ms == 1.5 * found.ms
    late = replace(PLAIN, prologue_us=2.0, launch_us=3.0)
    delayed = kernel_time(counts, Tiling(256, 128), Problem(), B200, late).ms
    assert delayed == (4 * visit_us((256, 128), Problem(), B200)[0] / 0.5 + 2.0) / 1e3 + 3.0 / 1e3


def test_memory_is_a_floor() -> None:
    counts = count(Pattern(4096, 128, 128), Tiling(128, 128))
    slow = replace(B200, hbm_tb_s=1e-3)
    found = kernel_time(counts, Tiling(128, 128), Problem(), slow, PLAIN)
    assert found.limit == "HBM" and found.hbm_bytes == 4 * 4096 * 128 * 2
    assert found.ms == found.hbm_bytes / 1e6
    cached = kernel_time(counts, Tiling(128, 128), Problem(), replace(B200, l2_tb_s=1e-4), PLAIN)
    assert cached.limit == "L2" and cached.l2_bytes == 2 * 2 * 4096 * 128 * 2
    assert found.floor_ms <= found.ms and cached.floor_ms <= cached.ms


def test_dense_over_block_sparse_is_the_padding_aware_bound() -> None:
    """Without prologue, and where waves are whole."""
    pattern = Pattern((30, 48, 80), (18, 24, 24), (16, 8, 8), heads=148)
    tiling = Tiling((4, 8, 8), (2, 8, 8))
    counts, problem = count(pattern, tiling), Problem.of(pattern)
    times = [f(counts, tiling, problem, B200, PLAIN).ms for f in (dense_time, kernel_time)]
    require_close(times[0] / times[1], bounds(counts).padding_aware, 16)


def test_permutation_moves_every_tensor_twice() -> None:
    pattern = Pattern((30, 48, 80), (18, 24, 24), heads=24)
    tiling = Tiling((4, 8, 8), (2, 8, 8))
    tokens = 32 * 48 * 80 * 2 + 30 * 48 * 80 * 2
    moved = 2 * tokens * 24 * 128 * 2
    assert permute_ms(pattern, tiling, Problem.of(pattern), B200, 0.25) == moved / (0.25 * 8e9)


# Calibration.


@pytest.mark.parametrize("name", ["B200", "H100"])
def test_a_fit_finds_the_constants_that_made_its_rows(name: str) -> None:
    made = Kernel(efficiency=0.61, prologue_us=4.5, masked_overhead=0.37)
    own = [row for row in ROWS if row.device == name]
    rows = [replace(row, ms=predict(row, DEVICES[name], made)) for row in own]
    found = fit(rows, DEVICES[name])
    for key in ("efficiency", "prologue_us", "masked_overhead"):
        assert round(getattr(found, key), 6) == getattr(made, key)
    for row in rows:  # least squares are backward stable: the times agree whatever the conditioning
        require_close(predict(row, DEVICES[name], found), row.ms, 64 * len(rows))


@pytest.mark.parametrize("name", ["B200", "H100"])
def test_held_out_kernels_are_predicted_within_the_aim(name: str) -> None:
    assert len(leave_one_out(DEVICES[name])) == 7
    for held in leave_one_out(DEVICES[name]):
        assert abs(held.error) <= 0.15, held
    for rank in (2, 3):
        for held in leave_rank_out(DEVICES[name], rank):
            assert abs(held.error) <= 0.15, held


def test_a_fit_needs_rows_that_tell_the_constants_apart() -> None:
    own = [row for row in ROWS if row.device == "B200"]
    with pytest.raises(InvalidInput, match="do not determine"):
        fit([row for row in own if not count(row.pattern, row.tiling).partial], B200)
    with pytest.raises(InvalidInput, match="measured on it"):
        fit(own, DEVICES["H100"])


def test_stand_ins_are_named_and_others_refused() -> None:
    assert default_kernel("H200") == default_kernel("H100")
    assert "on H100" in default_kernel("A100").source
    with pytest.raises(InvalidInput, match="no measured runs"):
        default_kernel("X1")


def test_overheads_and_shares_lie_where_the_documentation_says() -> None:
    assert all(0.3 < masked_overhead(rank) < 0.7 for rank in (1, 2, 3, 4))
    assert masked_overhead(4) == masked_overhead(3)
    assert 0 < permutation_share("B200") < permutation_share("H100") < 1


def test_dense_rows_have_every_device_and_rank() -> None:
    assert set(DENSE_MS) == {(row.device, row.rank) for row in ROWS}


# Devices.


def test_peaks_are_those_of_the_data_sheets() -> None:
    sheets = {"A100": 312, "H100": 989.4, "H200": 989.4, "B200": 2250}
    for name, tflops in sheets.items():
        assert abs(DEVICES[name].tensor_tflops / tflops - 1) < 0.005
        assert set(DEVICES[name].sources) >= {"sms", "flops_per_clock", "hbm_tb_s"}


def test_bad_devices_and_kernels() -> None:
    with pytest.raises(InvalidInput, match="there are A100, H100, H200, B200"):
        device("V100")
    with pytest.raises(InvalidInput, match="sms must be positive"):
        replace(B200, sms=0)
    with pytest.raises(InvalidInput, match="efficiency"):
        Kernel(0.0, 0.0, 0.0)
    with pytest.raises(InvalidInput, match="prologue_us"):
        Kernel(0.5, -1.0, 0.0)
    with pytest.raises(InvalidInput, match="head_dim"):
        Problem(0)
    assert isinstance(device("b200"), Device)


# End to end.


def test_published_rows_follow() -> None:
    """All but the two of Cosmos at stride 1, to the two decimals that are printed."""
    missed = []
    for row in END_TO_END:
        found = bounds_end_to_end(row.run, bounds(count(row.pattern, row.use_case.tiling)))
        printed = round(found["flop"], 2), round(found["worst_tile"], 2)
        if printed != (row.flop, row.simulated):
            missed.append((row.use_case.slug, row.stride, row.dense_steps, printed))
    assert missed == [
        ("cosmos", (1, 1, 1), 0, (1.5, 1.32)),
        ("cosmos", (1, 1, 1), 12, (1.28, 1.19)),
    ]


def test_amdahl_by_hand() -> None:
    assert end_to_end(Run(0.5), 2.0) == 1 / 0.75
    require_close(end_to_end(Run(1.0, 10, 5), 5.0), 1 / (0.5 + 0.1), 8)
    assert end_to_end(Run(0.0), 9.0) == 1.0
    assert layers_end_to_end(Run(0.8), [(0.5, 4.0), (0.5, 4.0)]) == end_to_end(Run(0.8), 4.0)
    assert layers_end_to_end(Run(0.8), []) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Run(1.2), "share"),
        (lambda: Run(0.5, 3, 4), "dense_steps"),
        (lambda: layers_end_to_end(Run(0.5), [(0.7, 2.0), (0.4, 2.0)]), "more than 1"),
        (lambda: layers_end_to_end(Run(0.5), [(0.7, 0.0)]), "positive"),
    ],
)
def test_bad_runs(call, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


# Context parallel.


@settings(max_examples=100)
@given(st.data())
def test_a_split_fetches_what_its_queries_see_and_no_more(data: st.DataObject) -> None:
    length = data.draw(st.integers(4, 40))
    window = data.draw(st.integers(2, length))
    stride = data.draw(st.integers(1, window))
    causal = data.draw(st.booleans())
    q, kv = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    devices = data.draw(st.integers(1, -(-length // q)))
    pattern = Pattern((length, 6), (window, 3), (stride, 1), 1, (causal, False))
    tiling, problem = Tiling((q, 2), (kv, 2)), Problem(head_dim=4, batch=2, kv_heads=3)
    found = split(pattern, tiling, problem, 0, devices)
    axis = pattern.axes[0]
    start, end = axis.intervals(np.arange(length), length)
    assert found.ranks[0].start == 0 and found.ranks[-1].stop == length
    for before, after in zip(found.ranks, found.ranks[1:], strict=False):
        assert before.stop == after.start
    for rank in found.ranks:
        seen = {k for i in range(rank.start, rank.stop) for k in range(start[i], end[i])}
        assert seen == set(range(rank.first_key, rank.last_key))
        away = len(seen - set(range(rank.start, rank.stop)))
        assert rank.halo_bytes == 2 * 2 * 2 * 3 * 4 * 6 * away
        assert rank.halo_bytes <= 2 * 2 * 2 * 3 * 4 * 6 * length
    assert sum(rank.visits for rank in found.ranks) == count(pattern, tiling).visited
    assert 0 < found.balance <= 1


def test_bad_splits() -> None:
    tiling, problem = Tiling(4, 4), Problem()
    with pytest.raises(InvalidInput, match="there can be 1 to 4"):
        split(Pattern(16, 4), tiling, problem, 0, 5)
    with pytest.raises(InvalidInput, match="axes 0 to 0"):
        split(Pattern(16, 4), tiling, problem, 1, 2)
    with pytest.raises(InvalidInput, match="dilation 2"):
        split(Pattern(16, 4, dilation=2), tiling, problem, 0, 2)

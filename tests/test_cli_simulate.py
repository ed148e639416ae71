"""`dsf simulate`: the contract of its JSON, its tables, its messages, its pictures."""

from __future__ import annotations

import json

import pytest

from dsf.cli import main
from dsf.sim import Pattern, Tiling, bounds, count
from dsf.sim.device import DEVICES
from dsf.sim.end_to_end import Run, end_to_end
from dsf.sim.report import simulate

HUNYUAN = ["--layout", "30x48x80", "--window", "18x24x24"]
TILES = ["--tiles", "4x8x8/2x8x8"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leaving:
        main(["simulate", *arguments])
    printed = capsys.readouterr()
    return int(leaving.value.code or 0), printed.out, printed.err


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    code, out, err = run(capsys, *arguments, "--json", "-")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_contract(capsys) -> None:
    found = asked(capsys, "gna", *HUNYUAN, "--stride", "16x8x8", *TILES)
    assert {"flop", "worst_tile", "mean_tile", "padding_aware"} <= set(found["speedup"])
    assert found["speedup"]["flop"] == found["speedup"]["worst_tile"] == 900 / 81
    assert found["speedup"]["padding_aware"] == 450 * 900 / (480 * 81)
    expected = {
        "q": 480,
        "kv": 900,
        "visited_max": 81,
        "visited_mean": 81,
        "visited_total": 38880,
        "full": 38880,
        "partial": 0,
    }
    assert expected.items() <= found["tiles"].items()
    assert found["pairs"] == {"visible": 1194393600, "dense": 13271040000, "sparsity": 0.91}
    assert found["block_sparse"] == {"exact": True, "natten": True, "reasons": []}
    assert found["padding"]["ragged"] and "no order" in found["notes"][0]
    assert "end_to_end" not in found and "time_ms" not in found


def test_end_to_end_has_the_keys_of_speedup(capsys) -> None:
    run_options = ["--share", "0.607", "--steps", "50", "--dense-steps", "15", "--paper-rounding"]
    found = asked(capsys, "gna", *HUNYUAN, "--stride", "1", *TILES, *run_options)
    assert set(found["end_to_end"]) == set(found["speedup"])
    wanted = Run(0.607, 50, 15, paper_rounding=True)
    for key, speed in found["speedup"].items():
        assert found["end_to_end"][key] == end_to_end(wanted, speed)
    assert round(found["end_to_end"]["worst_tile"], 2) == 1.42


def test_time_on_a_device_of_the_table_and_of_a_file(capsys, tmp_path) -> None:
    arguments = ["gna", *HUNYUAN, "--stride", "16x8x8", *TILES, "--heads", "24"]
    found = asked(capsys, *arguments, "--device", "B200")["time_ms"]
    assert abs(found["kernel"] / 13.010 - 1) < 0.15  # measured; a run of the fit
    assert found["floor"] <= found["kernel"] < found["dense"]
    row = {key: getattr(DEVICES["B200"], key) for key in DEVICES["B200"].__dataclass_fields__}
    row |= {"name": "mine", "sources": {}}
    row["kernel"] = {"efficiency": 0.5, "prologue_us": 1.0, "masked_overhead": 0.0}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(row))
    code, _, err = run(capsys, *arguments, "--device", str(path), "--json", "-")
    assert code == 2 and "bandwidth" in err
    row["kernel"]["permute_share"] = 0.5
    path.write_text(json.dumps(row))
    mine = asked(capsys, *arguments, "--device", str(path))["time_ms"]
    assert mine["device"] == "mine" and mine["kernel"] > found["kernel"]


def test_search_prints_the_front(capsys) -> None:
    found = asked(capsys, "search", *HUNYUAN, *TILES)
    strides = [tuple(row["stride"]) for row in found["front"]]
    assert strides == [
        (1, 1, 1),
        (2, 1, 1),
        (1, 1, 8),
        (2, 1, 8),
        (1, 8, 8),
        (2, 8, 8),
        (16, 8, 8),
    ]
    for row in found["front"]:
        tiling = Tiling(row["tiling"]["q"], row["tiling"]["kv"], row["tiling"]["kv_tiling"])
        speeds = bounds(count(Pattern((30, 48, 80), row["window"], row["stride"]), tiling))
        assert row["speedup"]["worst_tile"] == speeds.worst_tile
        assert row["speedup"]["padding_aware"] == speeds.padding_aware
    assert found["searched"] == {"windows": 1, "tilings": 1, "configurations": 10368}


def test_search_over_windows_of_a_sparsity(capsys) -> None:
    found = asked(capsys, "search", "--layout", "64x64", "--sparsity", "0.75", "--step", "16")
    assert found["searched"]["windows"] == 3 and found["searched"]["tilings"] == 4
    assert all(abs(row["pairs"]["sparsity"] - 0.75) <= 0.01 for row in found["front"])


def test_tables_for_people(capsys) -> None:
    code, out, _ = run(capsys, "gna", *HUNYUAN, "--stride", "1x1x11", *TILES, "--device", "H100")
    assert code == 0
    for part in ("91.00%", "2.73", "1x1x10", "16x8x8", "time on H100", "axis 2"):
        assert part in out
    code, out, _ = run(capsys, "search", *HUNYUAN, *TILES)
    assert code == 0 and "16x8x8" in out and "none" in out


def test_options_reach_the_pattern(capsys) -> None:
    arguments = ["--layout", "24x20", "--window", "6", "--stride", "2x1", "--dilation", "2x1"]
    arguments += ["--causal", "0x1", "--tiles", "4x4/2x4", "--extra-keys", "7", "--heads", "6"]
    found = asked(capsys, "gna", *arguments, "--kv-heads", "2")
    pattern = Pattern((24, 20), 6, (2, 1), (2, 1), (False, True), 6, 2, 7)
    assert found == json.loads(json.dumps(simulate(pattern, Tiling((4, 4), (2, 4))).to_json()))
    assert asked(capsys, "gna", *arguments, "--causal", "true")["pattern"]["causal"] == [True, True]


def test_pictures_are_written(capsys, tmp_path) -> None:
    small = ["--layout", "16x24", "--window", "8", "--tiles", "4x4/4x4"]
    assert run(capsys, "gna", *small, "--stride", "4", "--plot", str(tmp_path))[0] == 0
    assert run(capsys, "search", *small, "--plot", str(tmp_path))[0] == 0
    for name in ("blocks", "heat", "pareto"):
        assert (tmp_path / f"{name}.svg").read_text().rstrip().endswith("</svg>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gna", "--layout", "30x48", "--window", "60"], "axis 0 of layout 30x48: window 60"),
        (["gna", "--layout", "30*48", "--window", "8"], "write it like 30x48x80"),
        (["gna", *HUNYUAN, "--tiles", "4x8x8"], "write Q/KV"),
        (["gna", *HUNYUAN, *TILES, *TILES], "--tiles once"),
        (["gna", *HUNYUAN, "--causal", "maybe"], "1x0x0"),
        (["gna", *HUNYUAN, "--device", "V100"], "there are A100"),
        (["gna", *HUNYUAN, "--steps", "5"], "need --share"),
        (["search", *HUNYUAN, "--sparsity", "0.9"], "one of --window and --sparsity"),
        (["search", "--layout", "8x8"], "one of --window and --sparsity"),
        (["search", "--layout", "9x9", "--sparsity", "0.99", "--tolerance", "0"], "no window"),
        (["search", *HUNYUAN, "--by", "luck"], "worst_tile, mean_tile or padding_aware"),
        (["gna", "--layout", "8x8x8x8", "--window", "4"], "give the tiles"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_one_message(capsys, arguments, message) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1


def test_a_file_that_is_no_device(capsys, tmp_path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"sms": 4}')
    code, _, err = run(capsys, "gna", *HUNYUAN, "--device", str(path))
    assert code == 2 and "not a device" in err
    assert run(capsys, "gna", *HUNYUAN, "--device", str(tmp_path / "none.json"))[0] == 3

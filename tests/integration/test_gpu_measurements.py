"""The measurements for a GPU, as small as possible on the CPU, where NVML gives no value."""

import importlib
import itertools
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.integrate import trapezoid

from resque.workflows.engine import LocalEngine, read_rows, run_tasks

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "studies", ROOT / "benchmarks")


class NVMLError(Exception):
    """Error of a library that reads no GPU."""


class CountingLibrary:
    """NVML with a card of 100 W, whose counter advances by 500 mJ at every tenth call."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self._calls = itertools.count()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle) -> int:  # noqa: N802
        return 500 * (next(self._calls) // 10)

    def nvmlDeviceGetPowerUsage(self, handle) -> int:  # noqa: N802
        return 100_000


def refuse(*arguments):
    raise NVMLError("insufficient permissions")


@pytest.fixture(scope="module")
def modules():
    """Both modules, as a script in their folder would import them."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDERS[0]))
        yield SimpleNamespace(**{name: importlib.import_module(f"gpu_{name}") for name in ("energy", "speed")})
        for name in set(sys.modules) - before:
            if any((folder / f"{name}.py").is_file() for folder in FOLDERS):
                del sys.modules[name]


@pytest.fixture(scope="module")
def energy(modules, tmp_path_factory):
    path = tmp_path_factory.mktemp("energy") / "rows.jsonl"
    rows = run_tasks(modules.energy.energy_tasks("cpu", tiny=True), path, LocalEngine(0))
    assert read_rows(path).keys() == rows.keys()
    return rows


@pytest.fixture(scope="module")
def speed(modules, tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "rows.jsonl"
    rows = run_tasks(modules.speed.speed_tasks("cpu", tiny=True), path, LocalEngine(0))
    assert read_rows(path).keys() == rows.keys()
    return rows


def repeat(watts, counter=100.0):
    return {
        "seconds": 1.0, "counter_w": counter, "sampled_w": None, "resque_w": watts,
        "methods": {"gpu": "measured", "ram": "assumed"},
    }  # fmt: skip


def window(seconds, *watts):
    repeats = [repeat(each) for each in watts]
    return {"key": f"window {seconds:g}", "device": "a card", "asked_s": seconds, "repeats": repeats}


def test_no_task_fails(energy, speed):
    assert [row for row in (*energy.values(), *speed.values()) if "error" in row] == []
    assert list(energy) == ["idle", "counter", "window 0.1", "window 0.2", "training"]
    assert list(speed) == ["index", "steps small_cnn", "waits", "epoch", "sampling"]


def test_a_cpu_has_no_watts_of_a_card_but_those_of_its_components(energy):
    repeats = [repeat for row in energy.values() for repeat in row.get("repeats", ())]
    assert len(repeats) == 1 + 2 + 2 + 1
    for each in repeats:
        assert (each["counter_w"], each["sampled_w"], each["resque_w"], each["samples"]) == (None, None, None, 0)
        assert sum(each["components_w"].values()) > 0.0
        assert all(watts >= 0.0 for watts in each["components_w"].values())
        assert set(each["components_w"]) <= set(each["methods"])
    assert (energy["counter"]["polls"], energy["counter"]["step_ms"]) == (0, None)


def test_windows_last_at_least_as_long_as_asked(energy):
    for row in energy.values():
        assert all(each["seconds"] >= row["asked_s"] for each in row.get("repeats", ()))
    assert energy["training"]["steps"] >= 1


def test_the_meter_is_as_it_was_afterwards(modules, energy):
    assert modules.energy.shared_meter("cpu").shortest_s > 0.0


def test_energy_table_holds_every_row(modules, energy):
    table = modules.energy.energy_table(energy.values())
    assert table.count("\n| ") == 1 + 4
    assert "matrix products | 0.1 | 2 | – | – | – | –" in table
    assert "resque: none." in table
    assert "cpu " in table


def test_counter_and_samples_of_a_card_are_read(modules, monkeypatch):
    card = modules.energy.Card(CountingLibrary(), "handle")
    monkeypatch.setattr(modules.energy, "open_card", lambda device: card)
    step = modules.energy.counter_step("cpu", 0.05)
    assert step["step_mj"] == pytest.approx(500.0)
    assert step["polls"] > step["steps"] > 0
    (measured,) = modules.energy.load_power("cpu", 0.05, 1, 0.0)["repeats"]
    assert measured["sampled_w"] == pytest.approx(100.0)
    assert measured["samples"] >= 2
    assert measured["counter_w"] in (0.0, pytest.approx(0.5 / measured["seconds"]))


def test_a_restricted_card_gives_none(modules, monkeypatch):
    restricted = SimpleNamespace(
        NVMLError=NVMLError, nvmlDeviceGetTotalEnergyConsumption=refuse, nvmlDeviceGetPowerUsage=lambda handle: 7000
    )
    card = modules.energy.Card(restricted, "handle")
    assert (card.energy_j(), card.power_w()) == (None, 7.0)
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=NVMLError, nvmlInit=refuse))
    assert modules.energy.open_card.__wrapped__("cuda").power_w() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    assert modules.energy.open_card.__wrapped__("cuda").energy_j() is None


def test_mean_power_is_the_trapezoidal_mean(modules):
    times, watts = torch.rand(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    times.sort()
    mean = modules.energy.mean_power(list(zip(times, watts, strict=True)))
    assert mean == pytest.approx(trapezoid(watts, times) / (times[-1] - times[0]))
    assert modules.energy.mean_power([(0.0, 1.0)]) is None


@pytest.mark.parametrize(
    ("watts", "expected"),
    [
        ({0.1: [90.0], 0.5: [96.0, 104.0], 1.0: [99.0, 101.0]}, 0.5),
        ({0.1: [100.0], 0.5: [90.0], 1.0: [100.0]}, 1.0),  # what holds at .1 s by chance does not count
        ({0.1: [100.0], 0.5: [None], 1.0: [100.0]}, 1.0),
        ({0.5: [100.0], 1.0: [90.0, 110.0]}, None),
        ({0.5: [None], 1.0: [None]}, None),
        ({}, None),
    ],
)
def test_shortest_window_needs_all_longer_ones(modules, watts, expected):
    assert modules.energy.shortest_window(watts) == expected


def test_energy_table_of_a_card(modules):
    rows = [
        {"key": "idle", "device": "a card", "asked_s": 3.0, "repeats": [repeat(71.0, 70.0)]},
        {"key": "counter", "device": "a card", "polls": 1234, "steps": 50, "step_ms": 20.0, "step_mj": 1400.0},
        window(0.1, 80.0, 120.0),
        window(0.5, 98.0, 103.0),
        window(4.0, 100.0, 100.0),
        {"key": "training", "error": "RuntimeError: out of memory"},
    ]
    table = modules.energy.energy_table(rows)
    assert "| none (idle) | 3 | 1 | 70.0 | – | 71.0 | 1.4 % |" in table
    assert "| matrix products | 0.1 | 2 | 100.0 ± 0.0 | – | 100.0 ± 28.3 | 20.0 % |" in table
    assert "every 20.0 ms by 1400 mJ under load (medians of 50 steps, 1,234 polls)" in table
    assert "gpu measured, ram assumed" in table
    assert "NVML's counter: 0.1 s; sampled power: none; resque: 0.5 s." in table
    assert "training failed: RuntimeError: out of memory" in table


def test_index_row_compares_passes_within_rounds(modules, speed):
    for part, batches in zip(speed["index"]["passes"], (2, 4), strict=True):
        assert part["batches"] == batches
        assert {len(values) for values in part["seconds"].values()} == {3}
        assert all(seconds > 0.0 for values in part["seconds"].values() for seconds in values)
    bare, again, *_ = speed["index"]["passes"][-1]["seconds"].values()
    assert 0.1 < sum(again) / sum(bare) < 10.0  # a pass over itself


def test_fixed_part_of_a_pass_is_the_intercept(modules):
    passes = [{"batches": n, "seconds": {"bare pass": [0.1 * n] * 3, "index": [0.5 + 0.12 * n] * 3}} for n in (20, 80)]
    assert modules.speed._fixed_part(passes, "index") == (
        "index: 500.0 ms once per pass, and 20.0 % of a bare pass for each batch."
    )


def test_steps_cover_every_setting_once(speed):
    settings = speed["steps small_cnn"]["settings"]
    found = [(each["precision"], each["channels_last"], each["batch_size"]) for each in settings]
    assert found == list(itertools.product(("float32", "bfloat16"), (False, True), (8, 16)))
    assert all(len(each["step_s"]) == 2 and min(each["step_s"]) > 0.0 for each in settings)


def test_epoch_repeats_the_best_number_of_workers(speed):
    row = speed["epoch"]
    best = f"plain, {row['best_workers']} workers"
    rounds = {name: len(values) for name, values in row["seconds"].items()}
    assert rounds == {name: 2 if name in ("resque", best) else 1 for name in rounds}
    assert {"resque", "plain, 0 workers"} <= rounds.keys()
    assert row["seconds"][best][0] == min(row["seconds"][name][0] for name in rounds if name != "resque")


def test_host_waits_for_no_batch_where_none_is_needed(modules, speed):
    waits = speed["waits"]["waits"]
    assert {counts["batches"] for counts in waits.values()} == {2}
    assert waits[modules.speed.CONTROL]["synchronizations"] == 2
    for name in ("training step", "evaluation", "index pass, classes declared"):
        assert waits[name]["synchronizations"] == 0


def test_waits_on_a_gpu_are_read_from_the_profile(modules, monkeypatch):
    events = Counter({"cudaStreamSynchronize": 3, "cudaEventSynchronize": 1, "cudaLaunchKernel": 90, "aten::item": 3})
    events |= Counter({"Memcpy DtoH (Device -> Pageable)": 2, "Memcpy DtoH (Device -> Pinned)": 1, "Memcpy HtoD": 5})
    monkeypatch.setattr(modules.speed, "count_events", lambda work: events)
    waits = modules.speed.count_waits("cuda", lambda: None)
    assert (waits["synchronizations"], waits["copies to the host"]) == (4, 3)
    row = {"key": "waits", "device": "a card", "network": "resnet18", "waits": {"a pass": waits | {"batches": 2}}}
    line = "| a pass | 2 | 2 | 1.5 | cudaStreamSynchronize 1.5, cudaEventSynchronize 0.5 |"
    assert line in modules.speed.speed_table([row])


def test_profiler_counts_what_the_host_waits_for(modules):
    values = torch.ones(3)
    events = modules.speed.count_events(lambda: [value.item() for value in values])
    assert events["aten::item"] == 3


def test_rounds_have_every_variant_once_in_changing_orders(modules):
    calls = []
    variants = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = modules.speed.interleaved(variants, torch.device("cpu"), 8)
    rounds = [tuple(calls[start : start + 3]) for start in range(3, len(calls), 3)]  # the first three are the warm-up
    assert len(rounds) == 8
    assert {len(values) for values in seconds.values()} == {8}
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 2


def test_speed_table_holds_every_row(modules, speed):
    table = modules.speed.speed_table([*speed.values(), {"key": "steps vit", "error": "RuntimeError: out of memory"}])
    assert table.count("\n| small_cnn | ") == 8
    assert table.count("| bare pass, again |") == 2
    for name in (*speed["epoch"]["seconds"], *speed["waits"]["waits"]):
        assert f"\n| {name} | " in table
    assert f"fastest with {speed['epoch']['best_workers']} workers" in table
    assert "steps vit failed: RuntimeError: out of memory" in table

"""Measure how well the energy of a short window on a GPU is known, by three methods that run at the same time.

The methods are the energy counter of NVML (the library behind ``nvidia-smi``), power that is sampled every 20 ms, and
resque's own meter. A constant load shows from which window length on they agree; then come real training steps.
NVML's sampled power is itself a mean over about a second on recent GPUs, so short windows need a load before them too.

A value that NVML does not give is None; on a CPU these are all of them. Tasks of a GPU must run one after the other,
because its counter covers the whole card.
"""

import functools
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.energy.meters import EnergyMeter, open_meter
from resque.models.networks import resnet18, small_cnn
from resque.training.recipe import named_recipe
from resque.training.trainer import Trainer
from resque.workflows.engine import ExperimentTask, Row

__all__ = [
    "NETWORKS", "Card", "counter_step", "describe_device", "energy_table", "energy_tasks", "idle_power", "load_power",
    "mean_power", "random_dataset", "shortest_window", "training_power",
]  # fmt: skip

REPEATS = {0.1: 6, 0.2: 6, 0.5: 4, 1.0: 3, 2.0: 2, 4.0: 1}
TINY_REPEATS = {0.1: 2, 0.2: 2}
WARM_UP_S, TINY_WARM_UP_S, BETWEEN_S = 0.7, 0.05, 0.1
SAMPLE_S, CHUNK_S = 0.02, 0.01
J_PER_KWH = 3.6e6
TOLERANCE = 0.05
RECIPE = "train-adam,batch_size=256"
NETWORKS = {"resnet18": (resnet18, (3, 32, 32)), "small_cnn": (small_cnn, (1, 16, 16))}
METHODS = {"counter_w": "NVML's counter", "sampled_w": "sampled power", "resque_w": "resque"}


class Card:
    """A GPU as NVML describes it; a value that NVML does not give is None.

    Args:
        library: Module ``pynvml``, initialized; None without NVML.
        handle: NVML's handle of the GPU.
    """

    def __init__(self, library: Any = None, handle: Any = None) -> None:
        self._library, self._handle = library, handle

    def energy_j(self) -> float | None:
        """Return the energy since the driver was loaded, in joules."""
        return self._thousandth("nvmlDeviceGetTotalEnergyConsumption")

    def power_w(self) -> float | None:
        """Return the power in watts; a mean over about a second on recent GPUs."""
        return self._thousandth("nvmlDeviceGetPowerUsage")

    def _thousandth(self, function: str) -> float | None:
        if self._library is None:
            return None
        try:
            return float(getattr(self._library, function)(self._handle)) / 1000.0
        except self._library.NVMLError:
            return None


@functools.lru_cache
def open_card(device: str) -> Card:
    """Return the GPU of a device; one without any value if there is no GPU or no NVML."""
    if torch.device(device).type != "cuda":
        return Card()
    try:
        import pynvml
    except ImportError:
        return Card()
    try:
        pynvml.nvmlInit()
        return Card(pynvml, _handle(pynvml, torch.device(device)))
    except pynvml.NVMLError:
        return Card()


def _handle(library: Any, device: torch.device) -> Any:
    """Return NVML's handle: by UUID, because NVML numbers GPUs differently from PyTorch; else by number."""
    try:
        return library.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except (AttributeError, library.NVMLError):
        return library.nvmlDeviceGetHandleByIndex(device.index or 0)


@functools.lru_cache
def shared_meter(device: str) -> EnergyMeter:
    """Return resque's meter of a device, opened once per process because that takes seconds."""
    return open_meter(torch.device(device))


@contextmanager
def any_length(meter: EnergyMeter) -> Iterator[None]:
    """Let a meter report the energy of windows of any length inside the block."""
    shortest_s, meter.shortest_s = meter.shortest_s, 0.0
    try:
        yield
    finally:
        meter.shortest_s = shortest_s


@contextmanager
def sampled_power(card: Card) -> Iterator[list[tuple[float, float]]]:
    """Sample the power inside the block, from its start to its end; yield pairs of seconds and watts."""
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample() -> None:
        watts = card.power_w()
        if watts is not None:
            samples.append((time.perf_counter(), watts))

    def repeat() -> None:
        while not ended.wait(SAMPLE_S):
            sample()

    sample()
    if not samples:
        yield samples
        return
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
        sample()


def mean_power(samples: Sequence[tuple[float, float]]) -> float | None:
    """Compute the mean power in watts by the trapezoidal rule; None for fewer than two samples.

    Example:
        >>> mean_power([(0.0, 100.0), (1.0, 200.0), (3.0, 200.0)])
        183.33333333333334
    """
    if len(samples) < 2:
        return None
    pairs = list(itertools.pairwise(samples))
    joules = sum((after[0] - before[0]) * (after[1] + before[1]) / 2.0 for before, after in pairs)
    return joules / (samples[-1][0] - samples[0][0])


class Load:
    """A constant load: products of random matrices, in chunks of about 10 ms."""

    def __init__(self, device: torch.device) -> None:
        side, precision = (8192, torch.bfloat16) if device.type == "cuda" else (256, torch.float32)
        self._device, self._products = device, 4
        self._left, self._right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
        self._result = torch.empty_like(self._left)
        self._chunk()  # loads the kernels
        start = now(device)
        self._chunk()
        self._products = max(1, round(CHUNK_S / (now(device) - start) * self._products))

    def run(self, seconds: float) -> None:
        """Run for some seconds; wait for the device after each chunk."""
        end = now(self._device) + seconds
        while now(self._device) < end:
            self._chunk()

    def _chunk(self) -> None:
        for _ in range(self._products):
            torch.mm(self._left, self._right, out=self._result)


@functools.lru_cache
def shared_load(device: str) -> Load:
    """Return the load of a device, built once per process."""
    return Load(torch.device(device))


def measure(device: str, work: Callable[[], Any]) -> Row:
    """Measure the mean power of some work by all three methods at once; return a repeat of a row."""
    card, meter, place = open_card(device), shared_meter(device), torch.device(device)
    with any_length(meter), meter.window() as window, sampled_power(card) as samples:
        start, before = now(place), card.energy_j()
        work()
        seconds, after = now(place) - start, card.energy_j()
    reading = window.reading
    components = {
        name: kwh * J_PER_KWH / reading.wall_s for name, kwh in reading.components_kwh.items() if kwh is not None
    }
    return {
        "seconds": seconds,
        "counter_w": None if before is None or after is None else (after - before) / seconds,
        "sampled_w": mean_power(samples),
        "samples": len(samples),
        "resque_w": components.get("gpu"),
        "components_w": components,
        "methods": dict(reading.methods),
        "meter": reading.meter,
        "note": reading.note,
    }


def idle_power(device: str, seconds: float, settle_s: float) -> Row:
    """Measure the power of an idle device on which a context exists."""
    shared_meter(device)
    torch.zeros(1, device=device)  # creates the CUDA context
    now(torch.device(device))
    time.sleep(settle_s)
    return {
        "device": describe_device(device),
        "asked_s": seconds,
        "repeats": [measure(device, lambda: time.sleep(seconds))],
    }


def counter_step(device: str, seconds: float) -> Row:
    """Measure how often NVML's counter advances under load, and by how much; None where there is no counter."""
    card = open_card(device)
    row: Row = {"device": describe_device(device), "polls": 0, "steps": 0, "step_ms": None, "step_mj": None}
    previous = card.energy_j()
    if previous is None:
        return row
    load = threading.Thread(target=shared_load(device).run, args=(seconds,), daemon=True)
    load.start()
    advances: list[tuple[float, float]] = []
    while load.is_alive():
        energy = card.energy_j()
        row["polls"] += 1
        if energy is not None and energy != previous:
            advances.append((time.perf_counter(), energy))
            previous = energy
    load.join()
    steps = list(itertools.pairwise(advances))
    if steps:
        row["step_ms"] = 1e3 * statistics.median(after[0] - before[0] for before, after in steps)
        row["step_mj"] = 1e3 * statistics.median(after[1] - before[1] for before, after in steps)
    return row | {"steps": len(steps)}


def load_power(device: str, seconds: float, repeats: int, warm_up_s: float) -> Row:
    """Measure windows of a constant load."""
    load = shared_load(device)
    load.run(warm_up_s)  # until the clocks are stable
    measured = []
    for _ in range(repeats):
        load.run(min(BETWEEN_S, warm_up_s))  # the meter starts and stops while the device is idle
        measured.append(measure(device, functools.partial(load.run, seconds)))
    return {"device": describe_device(device), "asked_s": seconds, "repeats": measured}


def training_power(device: str, seconds: float, warm_up_s: float, network: str) -> Row:
    """Measure one window of training steps, on data that stay on the device."""
    build, shape = NETWORKS[network]
    torch.manual_seed(0)
    trainer = Trainer(build().to(device), random_dataset(2048, shape), named_recipe(RECIPE), seed=0)

    def train(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            trainer.step()
        now(torch.device(device))

    train(warm_up_s)
    before = trainer.step_count
    repeat = measure(device, functools.partial(train, seconds))
    steps = trainer.step_count - before
    return {
        "device": describe_device(device),
        "asked_s": seconds,
        "network": network,
        "steps": steps,
        "repeats": [repeat],
    }


def random_dataset(n: int, shape: Sequence[int], seed: int = 0) -> LabeledDataset:
    """Return random images ``(n, channels, height, width)`` as bytes, with random labels of 10 classes.

    Example:
        >>> random_dataset(20, (1, 8, 8)).images.shape
        torch.Size([20, 1, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (n,), generator=generator)
    return LabeledDataset(f"random:{n}", images, labels, torch.arange(n))


def energy_tasks(device: str, tiny: bool = False) -> list[ExperimentTask]:
    """Return the tasks of the measurement, to be run in this order in one process.

    Args:
        device: Device of PyTorch, such as ``"cuda"``.
        tiny: Whether to measure as briefly as possible, for tests.
    """
    repeats, warm_up_s = (TINY_REPEATS, TINY_WARM_UP_S) if tiny else (REPEATS, WARM_UP_S)
    idle_s, training_s, network = (0.2, 0.5, "small_cnn") if tiny else (3.0, 5.0, "resnet18")
    windows = [
        ExperimentTask(
            f"window {seconds:g}",
            load_power,
            {"device": device, "seconds": seconds, "repeats": n, "warm_up_s": warm_up_s},
        )
        for seconds, n in repeats.items()
    ]
    training = {"device": device, "seconds": training_s, "warm_up_s": warm_up_s, "network": network}
    return [
        ExperimentTask("idle", idle_power, {"device": device, "seconds": idle_s, "settle_s": 0.0 if tiny else 1.0}),
        ExperimentTask("counter", counter_step, {"device": device, "seconds": 0.2 if tiny else 1.0}),
        *windows,
        ExperimentTask("training", training_power, training),
    ]


def shortest_window(watts: Mapping[float, Sequence[float | None]]) -> float | None:
    """Return the window length from which on every repeat is within 5 % of the mean of the longest windows.

    Args:
        watts: Length in seconds → watts of each repeat.

    Returns:
        Length in seconds; None if even the longest windows differ by more, or a value is unknown there.

    Example:
        >>> shortest_window({0.1: [80.0, 99.0], 0.5: [97.0, 104.0], 1.0: [99.0, 101.0]})
        0.5
    """
    found, lengths = None, sorted(watts, reverse=True)
    longest = [value for value in watts[lengths[0]] if value is not None] if lengths else []
    for seconds in lengths if longest else []:
        reference = statistics.mean(longest)
        if not all(value is not None and abs(value - reference) <= TOLERANCE * reference for value in watts[seconds]):
            break
        found = seconds
    return found


def energy_table(rows: Iterable[Row]) -> str:
    """Format the rows of all tasks as Markdown."""
    by_key = {row["key"]: row for row in rows}
    failed = [f"{key} failed: {row['error']}" for key, row in by_key.items() if "error" in row]
    known = {key: row for key, row in by_key.items() if "error" not in row}
    measured = {key: row for key, row in known.items() if "repeats" in row}
    columns = (*(f"by {name} [W]" for name in METHODS.values()), "resque off the counter, at most")
    lines = [f"| work | window [s] | n | {' | '.join(columns)} |", f"|{'---|' * (3 + len(columns))}"]
    lines += [_table_row(key, row) for key, row in measured.items()]
    notes = [*_counter_notes(known), *_training_notes(known), *_component_notes(measured.values()), *failed]
    windows = {row["asked_s"]: row["repeats"] for key, row in measured.items() if key.startswith("window")}
    return "\n\n".join([*_device_notes(known), "\n".join(lines), *notes, *_window_notes(windows)]) + "\n"


def _table_row(key: str, row: Row) -> str:
    work = {"window": "matrix products", "idle": "none (idle)"}.get(key.split()[0], "training steps")
    cells = [_mean_and_deviation([repeat[name] for repeat in row["repeats"]]) for name in METHODS]
    offsets = [
        abs(repeat["resque_w"] / repeat["counter_w"] - 1.0)
        for repeat in row["repeats"]
        if repeat["resque_w"] is not None and repeat["counter_w"]
    ]
    offset = f"{max(offsets):.1%}".replace("%", " %") if offsets else "–"
    return f"| {work} | {row['asked_s']:g} | {len(row['repeats'])} | {' | '.join(cells)} | {offset} |"


def _mean_and_deviation(values: Sequence[float | None]) -> str:
    """Format mean ± standard deviation; a dash if no value is known."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"


def _device_notes(rows: Mapping[str, Row]) -> list[str]:
    devices = dict.fromkeys(row["device"] for row in rows.values())
    return [f"Device: {', '.join(devices)}; mean power, ± one standard deviation over n repeats; – where unknown."]


def _counter_notes(rows: Mapping[str, Row]) -> list[str]:
    if "counter" not in rows:
        return []
    row = rows["counter"]
    if row["step_ms"] is None:
        return ["The step of NVML's counter is unknown: it gives no value, or did not advance twice."]
    return [
        f"NVML's counter advances every {row['step_ms']:.1f} ms by {row['step_mj']:.0f} mJ under load "
        f"(medians of {row['steps']} steps, {row['polls']:,} polls)."
    ]


def _training_notes(rows: Mapping[str, Row]) -> list[str]:
    if "training" not in rows:
        return []
    row = rows["training"]
    repeat = row["repeats"][0]
    joules = [
        f"{repeat[name] * repeat['seconds'] / row['steps']:.3g} J by {method}"
        for name, method in METHODS.items()
        if repeat[name] is not None
    ]
    pace = f"{row['steps'] / repeat['seconds']:.1f} steps a second"
    return [f"Training {row['network']} (`{RECIPE}`): {pace}; a step takes {', '.join(joules) or 'unknown energy'}."]


def _component_notes(rows: Iterable[Row]) -> list[str]:
    methods = dict.fromkeys(
        f"{component} {method}"
        for row in rows
        for repeat in row["repeats"]
        for component, method in sorted(repeat["methods"].items())
    )
    return [f"Components of resque's reading: {', '.join(methods) or 'none'}."]


def _window_notes(windows: Mapping[float, Sequence[Row]]) -> list[str]:
    """Name the shortest window by each method."""
    if not windows:
        return []
    words = []
    for name, method in METHODS.items():
        watts = {seconds: [repeat[name] for repeat in repeats] for seconds, repeats in windows.items()}
        shortest = shortest_window(watts)
        words.append(f"{method}: " + ("none" if shortest is None else f"{shortest:g} s"))
    return [
        f"The shortest window, from which on all repeats stay within {100 * TOLERANCE:.0f} % of the mean of the "
        f"longest windows: {'; '.join(words)}."
    ]


def describe_device(device: str) -> str:
    """Return the name of a device."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device

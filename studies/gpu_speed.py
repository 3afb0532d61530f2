"""Measure how fast resque is on a GPU: the index pass, training steps, an epoch against a plain loop, host waits.

Speeds are ratios within one run. What is compared takes turns in rounds, in a new order each round, after a warm-up;
the tables show the median over rounds and the range. The clock waits for the device before and after each block.
"""

import dataclasses
import functools
import itertools
import os
import random
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode

import resque
from analysis import markdown
from gpu_energy import describe_device, random_dataset
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.data.preprocessing import ImagePreprocessing
from resque.energy.clock import now
from resque.errors import ResqueWarning
from resque.indices.baselines.model_outputs import collect_outputs
from resque.models.batchnorm import adapt_batchnorm
from resque.models.networks import resnet18, small_cnn, vgg16, vit
from resque.models.weights import check_weights, fingerprint
from resque.training.evaluation import evaluate_dataset
from resque.training.recipe import named_recipe
from resque.training.trainer import Trainer
from resque.workflows.engine import ExperimentTask, Row

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.epoch import BATCH, RECIPE, MeasuredLoop, PlainLoop, load_fashion_mnist, untimed
from benchmarks.measuring import FASHION

__all__ = [
    "count_events", "count_waits", "epoch_speed", "host_waits", "index_overhead", "interleaved", "speed_table",
    "speed_tasks", "step_speed",
]  # fmt: skip

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (resnet18, (3, 32, 32)),
    "vgg16": (vgg16, (3, 32, 32)),
    "vit": (vit, (3, 32, 32)),
    "small_cnn": (small_cnn, (1, 16, 16)),
}
CLASSES, SEED = 10, 0
PASS_BATCH = 256
BARE, AGAIN, DECLARED, PSEUDO = "bare pass", "bare pass, again", "index, classes declared", "index, pseudo-labels"
WHOLE, SAMPLED = "index of all samples", "sampled index"
PRECISIONS, BATCH_SIZES = ("float32", "bfloat16"), (32, 256)
RESQUE, WORKERS = "resque", (0, 2, 4, 8, 16)
CONTROL = "forward pass and one item() (control)"
SYNCHRONIZATIONS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
WAITING = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "equal", "bincount")
"""Operations whose result the host needs before it goes on, so that it waits for a GPU."""


def interleaved(
    variants: Mapping[str, Callable[[], Any]], device: torch.device, rounds: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Time each variant once per round, in a new order each round; return name → seconds of each round.

    Args:
        variants: Name → function to time.
        device: Device that the clock waits for.
        rounds: Number of rounds.
        warm_up: Whether each variant runs once before the first round.
    """
    orders = random.Random(SEED)
    for run in variants.values() if warm_up else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name in orders.sample(list(variants), len(variants)):
            start = now(device)
            variants[name]()
            seconds[name].append(now(device) - start)
    return seconds


def index_overhead(device: str, network: str, batch_size: int, counts: Sequence[int], rounds: Sequence[int]) -> Row:
    """Time index passes and bare forward passes over batches that are on the device.

    Args:
        device: Device of PyTorch.
        network: Name of a network.
        batch_size: Images per batch.
        counts: Numbers of batches.
        rounds: Number of rounds for each of them.
    """
    model, shape = _network(network, device)
    batches = list(random_dataset(max(counts) * batch_size, shape).batches(batch_size, device))
    passes = [
        {"batches": n, "seconds": interleaved(_passes(model, batches[:n]), torch.device(device), repeats)}
        for n, repeats in zip(counts, rounds, strict=True)
    ]
    once = {
        "hash of the weights": functools.partial(fingerprint, model),
        "check of the weights": functools.partial(check_weights, model),
    }
    return {
        "device": describe_device(device),
        "network": network,
        "batch_size": batch_size,
        "passes": passes,
        "once_s": interleaved(once, torch.device(device), rounds[0]),
    }


def _passes(model: nn.Module, batches: Sequence[Any]) -> dict[str, Callable[[], Any]]:
    """Return the passes to compare, by name; the second bare one shows how much a ratio varies by itself."""
    return {
        BARE: functools.partial(_bare_pass, model, batches),
        AGAIN: functools.partial(_bare_pass, model, batches),
        DECLARED: functools.partial(resque.profile, model, batches, classes=CLASSES),
        PSEUDO: functools.partial(resque.profile, model, batches, labels="pseudo"),
    }


def _bare_pass(model: nn.Module, batches: Sequence[Any]) -> None:
    model.eval()
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs)


def sampling_speed(device: str, network: str, folder: str | None, shift: str, precision: str, rounds: int) -> Row:
    """Time a sampled index beside the index of all data and a bare pass, with data in the memory of the host.

    Args:
        device: Device of PyTorch.
        network: Name of a network; its random weights are those of the other measurements.
        folder: Folder of Fashion-MNIST; None takes scikit-learn's digits.
        shift: Specification of the shift.
        precision: Half width of the interval that ends the sampling.
        rounds: Number of rounds.
    """
    model, _ = _network(network, device)
    place = torch.device(device)
    if folder is None:
        original, shifted = load_data("digits@16px"), load_data(f"digits@16px+{shift}")
    else:
        original = load_fashion_mnist(folder, "t10k", 10_000, "@rgb@32px")
        shifted = load_fashion_mnist(folder, "train", 60_000, f"@rgb@32px+{shift}")
    before = resque.profile(model, original.batches(PASS_BATCH, place), classes=CLASSES)
    readings: list[Any] = []
    passes = {
        BARE: lambda: _bare_pass(model, shifted.batches(PASS_BATCH, place)),
        WHOLE: lambda: resque.profile(model, shifted.batches(PASS_BATCH, place), classes=CLASSES),
        SAMPLED: lambda: readings.append(resque.sampled_dist(model, before, shifted, precision)),
    }
    seconds = interleaved(passes, place, rounds)
    return {
        "device": describe_device(device),
        "network": network,
        "shift": shift,
        "precision": precision,
        "samples": len(shifted),
        "read": readings[0].sampling.n_shifted_read,
        "seconds": seconds,
    }


def step_speed(device: str, network: str, batch_sizes: Sequence[int], rounds: int, steps: int) -> Row:
    """Time training steps in both precisions and memory formats, on data that stay on the device.

    Args:
        device: Device of PyTorch.
        network: Name of a network.
        batch_sizes: Images per step.
        rounds: Number of rounds; one more before them is the warm-up.
        steps: Steps per round.
    """
    settings, variants = {}, {}
    for precision, channels_last, batch_size in itertools.product(PRECISIONS, (False, True), batch_sizes):
        model, shape = _network(network, device)
        data = random_dataset(batch_size * (steps * (rounds + 1) + 1), shape)  # all steps lie within one epoch
        recipe = f"train-adam,precision={precision},channels_last={str(channels_last).lower()},batch_size={batch_size}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResqueWarning)  # a processor without bfloat16 is measured, too
            trainer = Trainer(model, data, named_recipe(recipe), SEED)
        settings[recipe] = {"precision": precision, "channels_last": channels_last, "batch_size": batch_size}
        variants[recipe] = functools.partial(_take_steps, trainer, steps)
    seconds = interleaved(variants, torch.device(device), rounds)
    measured = [setting | {"step_s": [s / steps for s in seconds[name]]} for name, setting in settings.items()]
    return {"device": describe_device(device), "network": network, "steps": steps, "settings": measured}


def _take_steps(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step()


def epoch_speed(
    device: str, network: str, folder: str | None, samples: int, workers: Sequence[int], rounds: int
) -> Row:
    """Time an epoch of resque and of a plain loop with several numbers of worker processes.

    Args:
        device: Device of PyTorch.
        network: Name of a network.
        folder: Folder of Fashion-MNIST; None takes scikit-learn's digits.
        samples: Number of images.
        workers: Numbers of workers; those above the number of cores are left out.
        rounds: Number of rounds for the best number of workers; the others have one.
    """
    place, data = torch.device(device), _images(folder, samples)
    build = functools.partial(_network, network, device)
    few = data.take(torch.arange(4 * BATCH))
    MeasuredLoop(build()[0], few, SEED, named_recipe(RECIPE), untimed).epoch()  # the first epochs load kernels
    PlainLoop(build()[0], few, SEED, 0, untimed).epoch()
    loops: dict[str, Any] = {RESQUE: MeasuredLoop(build()[0], data, SEED, named_recipe(RECIPE), untimed)}
    possible = {_plain_name(n): n for n in workers if n <= _cores()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks; the workers use no device
        for name, n in possible.items():
            loops[name] = PlainLoop(build()[0], data, SEED, n, untimed, persistent=True)
            loops[name].start()
    seconds = interleaved({name: loop.epoch for name, loop in loops.items()}, place, 1, warm_up=False)
    best = min(possible, key=lambda name: seconds[name][0])
    again = interleaved({name: loops[name].epoch for name in (RESQUE, best)}, place, rounds - 1, warm_up=False)
    for name, more in again.items():
        seconds[name] += more
    for name in possible:
        loops[name].stop()
    return {
        "device": describe_device(device),
        "network": network,
        "samples": len(data),
        "cores": _cores(),
        "seconds": seconds,
        "best_workers": possible[best],
    }


def _images(folder: str | None, samples: int) -> LabeledDataset:
    """Load images as bytes, as files hold them."""
    if folder is None:
        data = load_data("digits@16px", limit=samples)
    else:
        data = load_fashion_mnist(folder, "train", samples, "@rgb@32px")
    return dataclasses.replace(data, inputs=(255.0 * data.images).round().to(torch.uint8))


def _plain_name(workers: int) -> str:
    return f"plain, {workers} workers"


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_waits(device: str, network: str, batches: int, step_batches: int) -> Row:
    """Count how often the host waits for the device per batch, in each kind of pass.

    Each pass runs over N and over 2N batches. The difference holds no waits that occur once per pass.

    Args:
        device: Device of PyTorch.
        network: Name of a network.
        batches: N of passes without training.
        step_batches: N of training; each run is a whole epoch.
    """
    model, shape = _network(network, device)
    counted: dict[str, Row] = {}
    for name, (prepare, n) in _activities(model, shape, batches, step_batches).items():
        prepare(n)()  # loads what a first pass loads
        once, twice = (_waits_of(model, device, prepare(count)) for count in (n, 2 * n))
        counted[name] = {kind: twice[kind] - once[kind] for kind in twice}
    return {"device": describe_device(device), "network": network, "waits": counted}


def _waits_of(model: nn.Module, device: str, work: Callable[[], Any]) -> dict[str, int]:
    """Count the waits of some work by kind, and its forward passes."""
    forwards: list[int] = []
    hook = model.register_forward_hook(lambda *_: forwards.append(1))  # a copy of the model keeps it
    try:
        waits = count_waits(device, work)
    finally:
        hook.remove()
    return waits | {"batches": len(forwards)}


def _activities(
    model: nn.Module, shape: Sequence[int], batches: int, step_batches: int
) -> dict[str, tuple[Callable[[int], Callable[[], Any]], int]]:
    """Return name → function that prepares the work on a number of batches, and N."""
    device = next(model.parameters()).device
    plain = random_dataset(1, shape)
    normalized = dataclasses.replace(plain, transform=ImagePreprocessing(mean=(0.5,), std=(0.5,)))

    def epoch(recipe: str, kind: LabeledDataset, n: int) -> Callable[[], Any]:
        data = dataclasses.replace(random_dataset(BATCH * n, shape), transform=kind.transform)
        return functools.partial(_take_steps, Trainer(model, data, named_recipe(recipe), SEED), n)

    def dataset_pass(work: Callable[[nn.Module, LabeledDataset], Any], batch_size: int, n: int) -> Callable[[], Any]:
        return functools.partial(work, model, random_dataset(batch_size * n, shape).resident(device))

    def batch_pass(work: Callable[..., Any], n: int) -> Callable[[], Any]:
        return functools.partial(work, model, list(random_dataset(PASS_BATCH * n, shape).batches(PASS_BATCH, device)))

    steps = {
        "training step": functools.partial(epoch, "train-adam", plain),
        "training step, normalized images": functools.partial(epoch, "train-adam", normalized),
        "training step, paper's augmentation": functools.partial(epoch, RECIPE, plain),
    }
    passes = {
        "evaluation": functools.partial(dataset_pass, evaluate_dataset, 1024),
        "index pass, classes declared": functools.partial(
            batch_pass, functools.partial(resque.profile, classes=CLASSES)
        ),
        "batch-norm adaptation": functools.partial(batch_pass, adapt_batchnorm),
        "outputs for baselines": functools.partial(dataset_pass, collect_outputs, PASS_BATCH),
        CONTROL: functools.partial(batch_pass, _pass_with_item),
    }
    return {name: (work, step_batches) for name, work in steps.items()} | {
        name: (work, batches) for name, work in passes.items()
    }


def _pass_with_item(model: nn.Module, batches: Sequence[Any]) -> None:
    """Wait exactly once per batch."""
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs).sum().item()


def count_waits(device: str, work: Callable[[], Any]) -> dict[str, int]:
    """Count the host waits of some work: on a GPU by the profiler, else the operations that would wait for one.

    On a CPU the count is an upper bound, because a GPU's run does some of these operations on the host as well.

    Returns:
        Kind → count; ``"synchronizations"`` in all, and ``"copies to the host"`` on a GPU.
    """
    if torch.device(device).type == "cuda":
        events = count_events(work)
        kinds = {name: events[name] for name in SYNCHRONIZATIONS}
        to_host = sum(count for name, count in events.items() if name.startswith("Memcpy DtoH"))
        return kinds | {"synchronizations": sum(kinds.values()), "copies to the host": to_host}
    with _WaitCounter() as counter:
        work()
    kinds = {name: counter.calls[name] for name in WAITING}
    return kinds | {"synchronizations": sum(kinds.values())}


def count_events(work: Callable[[], Any]) -> Counter[str]:
    """Count the events of some work in PyTorch's profiler, by name, on the host and on the GPU.

    Example:
        >>> count_events(lambda: torch.ones(2).sum().item())["aten::item"]
        1
    """
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the profiler, about cycles of its own
        with torch.profiler.profile(activities=activities) as profiler:
            work()
            if on_gpu:
                torch.cuda.synchronize()
    return Counter(event.name for event in profiler.events())


class _WaitCounter(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def speed_tasks(device: str, tiny: bool = False) -> list[ExperimentTask]:
    """Return the tasks of the measurement, to be run one after the other in one process.

    Args:
        device: Device of PyTorch, such as ``"cuda"``.
        tiny: Whether to measure as briefly as possible, for tests.
    """
    common = {"device": device, "network": "small_cnn" if tiny else "resnet18"}
    if tiny:
        index = common | {"batch_size": 32, "counts": (2, 4), "rounds": (3, 3)}
        steps = {"batch_sizes": (8, 16), "rounds": 2, "steps": 1}
        epoch = common | {"folder": None, "samples": 128, "workers": (0, 2), "rounds": 2}
        waits = common | {"batches": 2, "step_batches": 2}
        sampling = common | {"folder": None, "shift": "contrast:3", "precision": "0.1", "rounds": 2}
    else:
        folder = os.environ.get("FASHION_MNIST", FASHION)
        index = common | {"batch_size": PASS_BATCH, "counts": (20, 80), "rounds": (9, 5)}
        steps = {"batch_sizes": BATCH_SIZES, "rounds": 4, "steps": 5}
        epoch = common | {"folder": folder, "samples": 3200, "workers": WORKERS, "rounds": 3}
        # Waits do not depend on the network, and the profiler is slow for a large one. A block has 16 batches.
        waits = {"device": device, "network": "small_cnn", "batches": 4, "step_batches": 16}
        sampling = common | {"folder": folder, "shift": "contrast:3", "precision": "0.03", "rounds": 5}
    return [
        ExperimentTask("index", index_overhead, index),
        *(
            ExperimentTask(f"steps {name}", step_speed, {"device": device, "network": name} | steps)
            for name in (("small_cnn",) if tiny else ("resnet18", "vgg16", "vit"))
        ),
        ExperimentTask("waits", host_waits, waits),
        ExperimentTask("epoch", epoch_speed, epoch),
        ExperimentTask("sampling", sampling_speed, sampling),
    ]


def speed_table(rows: Iterable[Row]) -> str:
    """Format the rows of all tasks as Markdown."""
    parts = {"index": _index_part, "epoch": _epoch_part, "sampling": _sampling_part, "waits": _waits_part}
    found, step_rows, failed = [], [], []
    devices: dict[str, None] = {}
    for row in rows:
        if "error" in row:
            failed.append(f"{row['key']} failed: {row['error']}")
            continue
        devices[row["device"]] = None
        if row["key"] in parts:
            found.append(parts[row["key"]](row))
        else:
            step_rows += _step_rows(row)
    head = ("network", "batch size", "precision", "memory format", "ms a step", "images a second", "speed")
    steps = [f"Training steps; speed over float32, contiguous\n\n{markdown(head, step_rows)}"] if step_rows else []
    return "\n\n".join([f"Device: {', '.join(devices)}; median over rounds [range].", *steps, *found, *failed]) + "\n"


def _index_part(row: Row) -> str:
    cells = [
        (
            seconds["batches"],
            name,
            _spread([1e3 * s for s in values]),
            _spread(_ratios(values, seconds["seconds"][BARE])),
        )
        for seconds in row["passes"]
        for name, values in seconds["seconds"].items()
    ]
    table = markdown(("batches", "pass", "ms", "× bare pass"), cells)
    notes = [_fixed_part(row["passes"], name) for name in (DECLARED, PSEUDO)]
    once = [f"{name}: {_spread([1e3 * s for s in values])} ms." for name, values in row.get("once_s", {}).items()]
    return "\n\n".join([f"Index pass, {row['network']}, batch {row['batch_size']}", table, *notes, *once])


def _sampling_part(row: Row) -> str:
    cells = [
        (name, _spread(values), _spread(_ratios(values, row["seconds"][BARE])))
        for name, values in row["seconds"].items()
    ]
    title = (
        f"Sampled index of {row['samples']:,} images in the memory of the host, {row['network']}, `{row['shift']}`, "
        f"precision {row['precision']}: {row['read']:,} images read"
    )
    return f"{title}\n\n{markdown(('pass', 'seconds', '× bare pass'), cells)}"


def _fixed_part(passes: Sequence[Row], name: str) -> str:
    """Split the extra time of a pass into a fixed part and a part per batch: a line through two numbers of batches."""
    (few, extra_few, _), (many, extra_many, bare) = (
        (
            part["batches"],
            statistics.median(map(float.__sub__, part["seconds"][name], part["seconds"][BARE])),
            statistics.median(part["seconds"][BARE]),
        )
        for part in (passes[0], passes[-1])
    )
    per_batch = (extra_many - extra_few) / (many - few)
    fixed = extra_few - few * per_batch
    share = 100.0 * per_batch * many / bare
    return f"{name}: {1e3 * fixed:.1f} ms once per pass, and {share:.1f} % of a bare pass for each batch."


def _step_rows(row: Row) -> list[tuple[str, ...]]:
    references = {
        setting["batch_size"]: setting["step_s"]
        for setting in row["settings"]
        if setting["precision"] == "float32" and not setting["channels_last"]
    }
    return [
        (
            row["network"],
            str(setting["batch_size"]),
            setting["precision"],
            "channels last" if setting["channels_last"] else "contiguous",
            _spread([1e3 * s for s in setting["step_s"]]),
            f"{setting['batch_size'] / statistics.median(setting['step_s']):,.0f}",
            _spread(_ratios(references[setting["batch_size"]], setting["step_s"])),
        )
        for setting in sorted(row["settings"], key=lambda setting: setting["batch_size"])
    ]


def _epoch_part(row: Row) -> str:
    rounds = len(row["seconds"][RESQUE])
    cells = [
        (name, len(values), _spread(values), _spread(_ratios(values, row["seconds"][RESQUE][: len(values)])))
        for name, values in row["seconds"].items()
    ]
    table = markdown(("loop", "rounds", "seconds an epoch", "× resque"), cells)
    best = row["seconds"][_plain_name(row["best_workers"])]
    factor = _spread(_ratios(best, row["seconds"][RESQUE]))
    title = f"Epoch of {row['network']}, {row['samples']:,} images, batch {BATCH}, `{RECIPE}`, {row['cores']} cores"
    note = f"The plain loop is fastest with {row['best_workers']} workers: {factor} × resque, {rounds} rounds."
    return "\n\n".join([title, table, note])


def _waits_part(row: Row) -> str:
    cells = []
    for name, counts in row["waits"].items():
        n = counts["batches"]
        kinds = [
            f"{kind} {count / n:.3g}"
            for kind, count in counts.items()
            if count and kind in (*SYNCHRONIZATIONS, *WAITING)
        ]
        to_host = f"{counts['copies to the host'] / n:.3g}" if "copies to the host" in counts else "–"
        cells.append((name, n, f"{counts['synchronizations'] / n:.3g}", to_host, ", ".join(kinds) or "–"))
    head = ("pass", "batches", "waits a batch", "copies to the host a batch", "of which")
    return f"Waits of the host for the device, {row['network']}\n\n{markdown(head, cells)}"


def _network(name: str, device: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a network with random weights of a fixed seed, on a device; return it and the shape of an image."""
    build, shape = NETWORKS[name]
    torch.manual_seed(SEED)
    return build().to(device), shape


def _ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    return [value / reference for value, reference in zip(values, references, strict=True)]


def _spread(values: Sequence[float]) -> str:
    """Format median and range."""
    median = f"{statistics.median(values):.4g}"
    return f"{median} [{min(values):.4g}, {max(values):.4g}]" if len(values) > 1 else median

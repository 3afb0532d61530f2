"""RESQUE_task of a model and a new task: a head for its classes, a warm-up, one pass, and what all that took."""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading
from resque.errors import DataError, RepresentationError, SettingError
from resque.indices.baselines.model_outputs import KNN_SAMPLES
from resque.indices.clustering import check_start
from resque.indices.compute_profile import profile
from resque.indices.results import TaskIndex, TaskIndexOverhead
from resque.indices.shift_features import model_knn_accuracy
from resque.indices.task import index_of_assignment, index_of_clustering, nearest_mean_assignment
from resque.ledger.records import Features
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import representation_layer
from resque.training.evaluation import count_outputs, evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.new_task import prepare_new_task, with_new_head
from resque.training.recipe import RECIPES, Recipe, recipe_to_dict
from resque.training.trainer import Trainer

Watch = Callable[[int, int, str], None]
_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class TaskIndexSettings:
    """How RESQUE_task is to be asked.

    Attributes:
        extend: Widen the head: labels below the number of its outputs are its old classes, whose weights stay; the
            others are new. Otherwise a new head takes the place of the old one, one output per class of the data.
        warmup_steps: Optimizer steps of the warm-up; None is one epoch, 0 none at all.
        recipe: How the warm-up trains.
        init: See :func:`resque.resque_task`.
        lloyd: See :func:`resque.resque_task`; False needs no memory that grows with the data, and a second pass.
        keep: See :func:`resque.resque_task`.
        layer: A module's name, ``"penultimate"``, or None for the paper's layer.
        reduction: See :func:`resque.models.feature_extraction.reduce_features`.
        seed: Of the new weights, the order of the samples, and the random starts.
    """

    extend: bool = False
    warmup_steps: int | None = None
    recipe: Recipe = RECIPES["retrain-adam"]
    init: str = "class-means"
    lloyd: bool = True
    keep: str = "sizes"
    layer: str | None = None
    reduction: str = "flatten"
    seed: int = 0

    def __post_init__(self) -> None:
        check_start(self.init, self.lloyd, self.keep, self.seed)
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise SettingError(f"{self.warmup_steps} warm-up steps: expected 0 or more, or none given for one epoch")


def task_index(
    model: nn.Module,
    data: LabeledDataset,
    query: TaskIndexSettings | None = None,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    on_progress: Watch = lambda done, total, what: None,
) -> TaskIndex:
    """How well a model's representations already tell the classes of a new task apart, and what asking took.

    A copy of the model gets a head for the new classes and trains on them for one epoch; then its representations of
    the same data are clustered (Algorithm 1). The model itself is left as it was.

    Args:
        model: The classifier as it is now.
        data: The new task.
        query: How to ask; None is the paper's way.
        meter: Measures the asking.
        grid: The electricity it runs on; without it carbon is None.
        on_progress: Called with ``(done, total, what)`` as it goes on.

    Returns:
        RESQUE_task with its layer and the cost of asking.

    Raises:
        ModelError: The head cannot be replaced, or the model does not take the data.
        SettingError: Nothing to extend.
        DataError: Fewer samples than classes, or more representations than memory holds.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, Algorithm 1 and eq. 4.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.energy.meters import ClockMeter
        >>> from resque.models.networks import small_cnn
        >>> ask = TaskIndexSettings(warmup_steps=5, layer="penultimate")
        >>> found = task_index(small_cnn(), load_data("digits@16px@500"), ask, meter=ClockMeter())
        >>> found.classes, found.layer, found.overhead.head, found.overhead.steps
        (10, 'penultimate', 'new', 5)
    """
    index, asking, _, _ = _asked(model, data, query or TaskIndexSettings(), meter, grid, on_progress)
    return dataclasses.replace(index, overhead=asking)


def task_features(
    model: nn.Module,
    job: RetrainingJob,
    query: TaskIndexSettings | None = None,
    *,
    meter: EnergyMeter,
    on_progress: Watch = lambda done, total, what: None,
) -> tuple[Features, EnergyReading]:
    """What the warm-up tells of a change of task, for a forecast: RESQUE_task, accuracy and neighbours after it.

    Args:
        model: As it is now, with its old head.
        job: To be learned, with the labels of the data.
        query: How to ask; None is the paper's way.
        meter: Measures the asking.
        on_progress: Called with ``(done, total, what)``.

    Returns:
        What is known, and what asking took, which is about one epoch of the update.
    """
    ask = query or TaskIndexSettings()
    start = now(device_of(model))
    learner, to_do = prepare_new_task(model, job, ask.extend)
    before, loss = evaluate_dataset(learner, to_do.test)
    index, asking, warmed, task = _asked(model, job.train, ask, meter, None, on_progress)
    after, loss_after = evaluate_dataset(warmed, to_do.test)
    scores = {"warm-up accuracy": after, "warm-up loss": loss_after}
    near = model_knn_accuracy(warmed, task.limited(KNN_SAMPLES))
    features = Features(
        None,
        before,
        loss,
        layer=index.layer,
        reduction=index.reduction,
        labels="true",
        samples=len(task),
        classes=len(task.classes),
        parameters=sum(p.numel() for p in learner.parameters()),
        scores=scores if near is None else scores | {"warm-up k-NN": near},
        task_index=index.value,
    )
    return features, _longer(asking.energy, now(device_of(model)) - start)


def _longer(reading: EnergyReading, wall_s: float) -> EnergyReading:
    """The asking with the looks at the test data around the meter's window, at the same power."""
    factor = max(1.0, wall_s / reading.wall_s)
    return dataclasses.replace(
        reading,
        wall_s=reading.wall_s * factor,
        energy_kwh=None if reading.energy_kwh is None else reading.energy_kwh * factor,
        components_kwh={device: kwh * factor for device, kwh in reading.components_kwh.items()},
    )


def _asked(
    model: nn.Module,
    data: LabeledDataset,
    ask: TaskIndexSettings,
    meter: EnergyMeter,
    grid: Grid | None,
    on_progress: Watch,
) -> tuple[TaskIndex, TaskIndexOverhead, nn.Module, LabeledDataset]:
    """The index, what asking took, and the learner after its warm-up with the task as it saw it."""
    with torch.random.fork_rng():
        torch.manual_seed(ask.seed)
        learner, task = with_new_head(model, data, ask.extend)
        ask = dataclasses.replace(ask, layer=representation_layer(learner, ask.layer))
        _prepare_process(learner, task, ask)
        with meter.window() as window:
            times = [now(device_of(learner))]
            epochs = _warm_up(learner, task, ask, on_progress)
            times.append(now(device_of(learner)))
            index, accuracy, passed = (_clustered if ask.lloyd else _assigned)(learner, task, ask, on_progress)
            times += [passed, now(device_of(learner))]
    warm_up_s, pass_s, clustering_s = np.diff(times).tolist()
    overhead = TaskIndexOverhead(
        head="widened" if ask.extend else "new",
        outputs=count_outputs(learner, task),
        recipe=recipe_to_dict(ask.recipe),
        steps=epochs[0],
        epochs=epochs[0] / epochs[1],
        accuracy=accuracy,
        warm_up_s=warm_up_s,
        pass_s=pass_s,
        clustering_s=clustering_s,
        energy=window.reading,
        carbon_kg=None if grid is None else grid.carbon_kg(window.reading.energy_kwh),
    )
    return dataclasses.replace(index, layer=ask.layer or ""), overhead, learner, task


def _prepare_process(learner: nn.Module, task: LabeledDataset, ask: TaskIndexSettings) -> None:
    """What only the first step and the first clustering in a process pay for is no price of this question."""
    import sklearn.cluster  # noqa: F401

    if ask.warmup_steps != 0:
        with torch.random.fork_rng():
            Trainer(copy.deepcopy(learner), task, ask.recipe, ask.seed).step()


def _warm_up(model: nn.Module, data: LabeledDataset, ask: TaskIndexSettings, on_progress: Watch) -> tuple[int, int]:
    """``(steps taken, steps per epoch)``."""
    trainer = Trainer(model, data, ask.recipe, ask.seed)
    steps = trainer.steps_per_epoch if ask.warmup_steps is None else ask.warmup_steps
    while trainer.step_count < steps:
        trainer.step()
        on_progress(trainer.step_count, steps, "warm-up")
    trainer.end()
    return steps, trainer.steps_per_epoch


def _clustered(
    model: nn.Module, data: LabeledDataset, ask: TaskIndexSettings, on_progress: Watch
) -> tuple[TaskIndex, float, float]:
    """Lloyd's form, with the representations of all samples in memory; ``(index, accuracy, end of the pass)``."""
    kept, done, correct = np.empty((0, 0)), 0, 0
    with capture_features(model, ask.layer or "", ask.reduction) as observe:
        for images, labels in _shown(model, data, on_progress, "pass"):
            rows, logits = observe(images)
            kept = kept if done else _room(len(data), rows.shape[1])
            kept[done : done + len(rows)] = rows.cpu().double().numpy()
            correct += int((logits.argmax(1) == labels).sum())
            done += len(rows)
    passed = now(device_of(model))
    if not bool(np.isfinite(kept).all()):
        raise RepresentationError("representations hold NaN or infinity: did the warm-up diverge?")
    on_progress(0, 1, "clustering")

    def clustering(done: int, total: int) -> None:
        on_progress(done, total, "clustering")

    index = index_of_clustering(kept, data.labels.numpy(), ask.init, ask.reduction, ask.seed, ask.keep, clustering)
    return index, correct / len(data), passed


def _assigned(
    model: nn.Module, data: LabeledDataset, ask: TaskIndexSettings, on_progress: Watch
) -> tuple[TaskIndex, float, float]:
    """The streaming form, class means in one pass and nearest means in a second; returns as :func:`_clustered`."""
    first = _shown(model, data, on_progress, "first pass")
    assignment = nearest_mean_assignment(profile(model, first, ask.layer, ask.reduction, classes=data.classes))
    correct = torch.zeros((), dtype=torch.int64, device=device_of(model))
    with capture_features(model, ask.layer or "", ask.reduction) as observe:
        for images, labels in _shown(model, data, on_progress, "second pass"):
            rows, logits = observe(images)
            assignment.add(rows, labels)
            correct += (logits.argmax(1) == labels).sum()
    return index_of_assignment(assignment, ask.reduction), int(correct) / len(data), now(device_of(model))


def _shown(model: nn.Module, data: LabeledDataset, on_progress: Watch, what: str) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for images, labels in data.batches(device=device_of(model)):
        yield images, labels
        done += len(labels)
        on_progress(done, len(data), what)


def _room(n: int, width: int) -> np.ndarray:
    """Memory for all representations; refused where it would not fit, before the machine runs out of it."""
    needed, free = 8 * n * width, _free_bytes()
    if free is not None and needed > _SHARE_OF_MEMORY * free:
        raise DataError(
            f"{n:,} representations of width {width:,} take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "use --no-lloyd (needs no such memory), --reduction mean, --layer penultimate, or --limit"
        )
    return np.empty((n, width))


def _free_bytes() -> int | None:
    """What Linux says is available; None elsewhere."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

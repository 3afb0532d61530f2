"""Compute RESQUE_task of a model and a new task: new head, warm-up, forward pass, clustering, and their cost."""

import copy
import dataclasses
import functools
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from resque._processes import current_processes
from resque.data.dataset import Inputs, LabeledDataset
from resque.data.shards import Shard, shard_rows
from resque.energy.clock import now, timed
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading, extend_reading
from resque.errors import DataError, RepresentationError, SettingError
from resque.indices.baselines.model_outputs import KNN_SAMPLES
from resque.indices.clustering import check_clustering_options
from resque.indices.compute_profile import default_reduction, profile
from resque.indices.head_inputs import model_knn_accuracy
from resque.indices.merging import merge
from resque.indices.nearest_mean import NearestMeanAssignment
from resque.indices.results import TaskIndex, TaskIndexOverhead
from resque.indices.task import index_of_assignment, index_of_clustering
from resque.ledger.records import Features
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import representation_layer
from resque.models.randomness import isolated_random_state
from resque.training.evaluation import count_outputs, evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.new_task import prepare_new_task, with_new_head
from resque.training.recipe import RECIPES, Recipe, recipe_to_dict
from resque.training.trainer import Trainer

__all__ = ["TaskIndexSettings", "allocate_rows", "task_features", "task_index"]

_OnProgress = Callable[[int, int, str], None]
_MAX_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class TaskIndexSettings:
    """Settings of RESQUE_task: head, warm-up, representation and clustering.

    Attributes:
        extend: Whether the head is widened: labels below its number of outputs are its old classes, whose weights
            stay, and the others are new. Otherwise a new head with one output per class replaces it.
        warmup_steps: Optimizer steps of the warm-up; None is one epoch, 0 is no warm-up.
        recipe: Recipe of the warm-up.
        init: Initialization of the clustering, see :func:`resque.resque_task`.
        lloyd: Whether Lloyd's iterations run, see :func:`resque.resque_task`; False needs a second forward pass, but
            no memory that grows with the data.
        keep: Rule that chooses the random clustering, see :func:`resque.resque_task`.
        layer: Name of a module, ``"penultimate"``, or None for the paper's layer.
        reduction: Reduction of a representation to a vector, see
            :func:`resque.models.feature_extraction.reduce_features`; None is that of :func:`resque.profile`.
        seed: Seed of the new weights, of the data order and of the random initializations.

    Example:
        >>> TaskIndexSettings(warmup_steps=100, layer="penultimate").lloyd
        True
    """

    extend: bool = False
    warmup_steps: int | None = None
    recipe: Recipe = RECIPES["retrain-adam"]
    init: str = "class-means"
    lloyd: bool = True
    keep: str = "sizes"
    layer: str | None = None
    reduction: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_clustering_options(self.init, self.lloyd, self.keep, self.seed)
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise SettingError(f"{self.warmup_steps} warm-up steps: expected 0 or more, or none given for one epoch")


def task_index(
    model: nn.Module,
    data: LabeledDataset,
    query: TaskIndexSettings | None = None,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    on_progress: _OnProgress = lambda done, total, what: None,
) -> TaskIndex:
    """Compute RESQUE_task of a new task: how well the model separates its classes after a short warm-up.

    A copy of the model gets a head for the new classes and trains on them for one epoch. Then one forward pass over
    the same data gives the representations, which are clustered (Algorithm 1).

    Args:
        model: Classifier as it is now; it is left as it was found.
        data: New task.
        query: Settings; None is the paper's way.
        meter: Energy meter.
        grid: Electricity grid; None leaves carbon None.
        on_progress: Called with ``(done, total, what)``.

    Returns:
        The index with its layer and its overhead.

    Raises:
        ModelError: The head cannot be replaced, or the model does not take the data.
        SettingError: There is no new class to extend the model by.
        DataError: There are fewer samples than classes, or the representations do not fit into memory.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, Algorithm 1 and eq. 4.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.energy.meters import ClockMeter
        >>> from resque.models.networks import small_cnn
        >>> settings = TaskIndexSettings(warmup_steps=5, layer="penultimate")
        >>> index = task_index(small_cnn(), load_data("digits@16px@500"), settings, meter=ClockMeter())
        >>> index.classes, index.layer, index.overhead.head, index.overhead.steps
        (10, 'penultimate', 'new', 5)
    """
    index, overhead, _, _ = _warm_up_and_cluster(model, data, query or TaskIndexSettings(), meter, on_progress)
    carbon_kg = None if grid is None else grid.carbon_kg(overhead.energy.energy_kwh)
    return dataclasses.replace(index, overhead=dataclasses.replace(overhead, carbon_kg=carbon_kg))


def task_features(
    model: nn.Module,
    job: RetrainingJob,
    query: TaskIndexSettings | None = None,
    *,
    meter: EnergyMeter,
    on_progress: _OnProgress = lambda done, total, what: None,
) -> tuple[Features, EnergyReading]:
    """Compute the features of an update to a new task: RESQUE_task, and accuracy and k-NN accuracy after a warm-up.

    ==== ============================== =======================================================================
    Pass Data                           Result
    ==== ============================== =======================================================================
    1    test data                      accuracy and loss with the new head, before training
    2    training data                  warm-up: one epoch of training on a copy
    3    training data                  representations, clustered to RESQUE_task; two passes without Lloyd
    4    test data                      accuracy and loss after the warm-up
    5    at most 2,000 training samples k-NN accuracy after the warm-up
    ==== ============================== =======================================================================

    Args:
        model: Model as it is now, with its old head; it is left as it was found.
        job: Update to be forecast, with the labels of the data.
        query: Settings; None is the paper's way.
        meter: Energy meter.
        on_progress: Called with ``(done, total, what)``.

    Returns:
        The features, and the overhead of computing them: about one epoch of the update.

    Raises:
        ModelError, SettingError, DataError: See :func:`task_index`.

    Example:
        >>> from resque import RetrainingJob, load_data, load_model
        >>> from resque.energy.meters import ClockMeter
        >>> job = RetrainingJob(load_data("digits@16px@train"), load_data("digits@16px@test"), 0.9)
        >>> settings = TaskIndexSettings(warmup_steps=5, layer="penultimate")
        >>> model = load_model("resque.networks:small_cnn")
        >>> features, overhead = task_features(model, job, settings, meter=ClockMeter())
        >>> sorted(features.scores), features.task_index > 0.0, overhead.wall_s > 0.0
        (['warm-up accuracy', 'warm-up k-NN', 'warm-up loss'], True, True)
    """
    settings = query or TaskIndexSettings()
    start = now(device_of(model))
    learner, prepared = prepare_new_task(model, dataclasses.replace(job, original_test=None), settings.extend)
    (accuracy, loss), evaluation_s = timed(device_of(model), lambda: evaluate_dataset(learner, prepared.test))
    index, overhead, warmed_up, task = _warm_up_and_cluster(model, job.train, settings, meter, on_progress)
    scores = dict(zip(("warm-up accuracy", "warm-up loss"), evaluate_dataset(warmed_up, prepared.test), strict=True))
    knn = model_knn_accuracy(warmed_up, task.limited(KNN_SAMPLES))
    features = Features(
        None,
        accuracy,
        loss,
        layer=index.layer,
        reduction=index.reduction,
        labels="true",
        samples=len(task),
        classes=len(task.classes),
        parameters=sum(parameter.numel() for parameter in learner.parameters()),
        evaluation_s=evaluation_s,
        scores=scores if knn is None else scores | {"warm-up k-NN": knn},
        task_index=index.value,
    )
    return features, extend_reading(overhead.energy, now(device_of(model)) - start, "evaluations")


def allocate_rows(n: int, width: int) -> np.ndarray:
    """Allocate memory for ``(n, width)`` float64 representations.

    Raises:
        DataError: They would take more than 80 % of the free memory.

    Example:
        >>> allocate_rows(10, 3).shape
        (10, 3)
    """
    needed, free = 8 * n * width, _free_bytes()
    if free is not None and needed > _MAX_SHARE_OF_MEMORY * free:
        raise DataError(
            f"{n:,} representations of width {width:,} take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "use --no-lloyd (needs no such memory), --reduction mean, --layer penultimate, or --limit"
        )
    return np.empty((n, width))


def _warm_up_and_cluster(
    model: nn.Module, data: LabeledDataset, settings: TaskIndexSettings, meter: EnergyMeter, on_progress: _OnProgress
) -> tuple[TaskIndex, TaskIndexOverhead, nn.Module, LabeledDataset]:
    """Return the index, its overhead without carbon, the warmed-up learner, and the task with its labels renumbered."""
    with isolated_random_state(device_of(model), settings.seed):
        learner, task = with_new_head(model, data, settings.extend)
        layer = representation_layer(learner, settings.layer)
        reduction = settings.reduction or default_reduction(task.inputs, layer)
        settings = dataclasses.replace(settings, layer=layer, reduction=reduction)
        _run_first_step(learner, task, settings)
        compute_index = _index_by_clustering if settings.lloyd else _index_by_nearest_mean
        with meter.window() as window:
            times = [now(device_of(learner))]
            steps, steps_per_epoch = _warm_up(learner, task, settings, on_progress)
            times.append(now(device_of(learner)))
            index, accuracy, end_of_passes = compute_index(learner, task, settings, on_progress)
            times += [end_of_passes, now(device_of(learner))]
    warm_up_s, pass_s, clustering_s = np.diff(times).tolist()
    overhead = TaskIndexOverhead(
        head="widened" if settings.extend else "new",
        outputs=count_outputs(learner, task),
        recipe=recipe_to_dict(settings.recipe),
        steps=steps,
        epochs=steps / steps_per_epoch,
        accuracy=accuracy,
        warm_up_s=warm_up_s,
        pass_s=pass_s,
        clustering_s=clustering_s,
        energy=window.reading,
        carbon_kg=None,
    )
    return dataclasses.replace(index, layer=settings.layer or ""), overhead, learner, task


def _run_first_step(learner: nn.Module, task: LabeledDataset, settings: TaskIndexSettings) -> None:
    """Do what only the first step and the first clustering of a process pay for, so that it is not measured."""
    import sklearn.cluster  # noqa: F401

    if settings.warmup_steps != 0:
        with isolated_random_state(device_of(learner)):
            Trainer(copy.deepcopy(learner), task, settings.recipe, settings.seed).step()


def _warm_up(
    model: nn.Module, data: LabeledDataset, settings: TaskIndexSettings, on_progress: _OnProgress
) -> tuple[int, int]:
    """Train the model; return the steps taken and the steps per epoch."""
    trainer = Trainer(model, data, settings.recipe, settings.seed)
    steps = trainer.steps_per_epoch if settings.warmup_steps is None else settings.warmup_steps
    while trainer.step_count < steps:
        trainer.step()
        on_progress(trainer.step_count, steps, "warm-up")
    trainer.share_buffers()
    trainer.end()
    return steps, trainer.steps_per_epoch


def _index_by_clustering(
    model: nn.Module, data: LabeledDataset, settings: TaskIndexSettings, on_progress: _OnProgress
) -> tuple[TaskIndex, float, float]:
    """Cluster the representations of all samples, in memory; return the index, the accuracy and the end of the pass."""
    processes = current_processes()
    own = len(data) if processes.shard is None else len(shard_rows(len(data), *processes.shard))
    rows, done, correct = np.empty((0, 0)), 0, 0
    with capture_features(model, settings.layer or "", settings.reduction or "") as observe:
        for inputs, labels in _batches(model, data, on_progress, "pass"):
            batch, logits = observe(inputs)
            if not done:
                rows = allocate_rows(own, batch.shape[1])
            rows[done : done + len(batch)] = batch.cpu().double().numpy()
            correct += int((logits.argmax(1) == labels).sum())
            done += len(batch)
    end_of_pass = now(device_of(model))
    if not bool(np.isfinite(rows).all()):
        raise RepresentationError("representations hold NaN or infinity: did the warm-up diverge?")
    on_progress(0, 1, "clustering")

    def on_start(done: int, total: int) -> None:
        on_progress(done, total, "clustering")

    def cluster(parts: list[tuple[np.ndarray, int]]) -> tuple[TaskIndex, int]:
        filled = [rows for rows, _ in parts if len(rows)]
        every = filled[0] if len(filled) == 1 else np.concatenate(filled)
        index = index_of_clustering(
            every, data.labels.numpy(), settings.init, settings.reduction or "", settings.seed, settings.keep, on_start
        )
        return index, sum(correct for _, correct in parts)

    index, correct = processes.combine((rows, correct), cluster)
    return index, correct / len(data), end_of_pass


def _index_by_nearest_mean(
    model: nn.Module, data: LabeledDataset, settings: TaskIndexSettings, on_progress: _OnProgress
) -> tuple[TaskIndex, float, float]:
    """Compute class means in one pass, assign to the nearest in a second; return as :func:`_index_by_clustering`."""
    processes = current_processes()
    shard = None if processes.shard is None else Shard.cut(data, *processes.shard)
    batches = _batches(model, data, on_progress, "first pass")
    class_sums = profile(model, batches, settings.layer, settings.reduction, classes=data.classes, shard=shard)
    if shard is not None:
        class_sums = processes.combine(class_sums, merge)
    assignment = NearestMeanAssignment.to_profile(class_sums)
    correct = torch.zeros((), dtype=torch.int64, device=device_of(model))
    with capture_features(model, settings.layer or "", settings.reduction or "") as observe:
        for inputs, labels in _batches(model, data, on_progress, "second pass"):
            batch, logits = observe(inputs)
            assignment.add(batch, labels)
            correct += (logits.argmax(1) == labels).sum()
    assignment = processes.combine(assignment, lambda parts: functools.reduce(operator.add, parts))
    right = processes.combine(int(correct), sum)
    return index_of_assignment(assignment, settings.reduction or ""), right / len(data), now(device_of(model))


def _batches(
    model: nn.Module, data: LabeledDataset, on_progress: _OnProgress, what: str
) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield the batches of this process on the model's device and report progress."""
    shard = current_processes().shard
    rows = range(len(data)) if shard is None else shard_rows(len(data), *shard)
    order = None if shard is None else torch.arange(rows.start, rows.stop)
    done = 0
    for inputs, labels in data.batches(device=device_of(model), order=order):
        yield inputs, labels
        done += len(labels)
        on_progress(done, len(rows), what)


def _free_bytes() -> int | None:
    """Return the memory that Linux reports as available; None elsewhere."""
    try:
        line = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(line[1]) * 1024 if line else None

"""RESQUE_task of a model and a new task: a head for its classes, a warm-up, one pass, and what all that took."""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from resque.asking import check_fits, neighbours
from resque.clustering import check_start
from resque.energy import EnergyMeter
from resque.errors import DataError, ModelError, RepresentationError, SettingError
from resque.indices import assigned, clustered, to_class_means
from resque.labelled import LabelledData
from resque.layers import head_name, replace_head, representation_layer, widen_head
from resque.measures import EVALUATION_BATCH, evaluate
from resque.models import fingerprint
from resque.profiles import profile
from resque.readings import EnergyReading, Grid, TaskAsking, TaskIndex
from resque.recipes import RECIPES, Recipe, Retraining, plain_recipe
from resque.records import Features
from resque.representations import device_of, evaluating, forward, observing
from resque.trainer import Trainer, clock
from resque.views import NEIGHBOURHOOD

Watch = Callable[[int, int, str], None]
_SHARE_OF_MEMORY = 0.8
NEW_TASK, EXTENSION = "new task", "extension"
"""Kinds of update that are no shift."""


@dataclass(frozen=True)
class TaskQuestion:
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
        reduction: See :func:`resque.representations.reduce`.
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
    data: LabelledData,
    question: TaskQuestion | None = None,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    watch: Watch = lambda done, total, what: None,
) -> TaskIndex:
    """How well a model's representations already tell the classes of a new task apart, and what asking took.

    A copy of the model gets a head for the new classes and trains on them for one epoch; then its representations of
    the same data are clustered (Algorithm 1). The model itself is left as it was.

    Args:
        model: The classifier as it is now.
        data: The new task.
        question: How to ask; None is the paper's way.
        meter: Measures the asking.
        grid: The electricity it runs on; without it carbon is None.
        watch: Called with ``(done, total, what)`` as it goes on.

    Returns:
        RESQUE_task with its layer and the cost of asking.

    Raises:
        ModelError: The head cannot be replaced, or the model does not take the data.
        SettingError: Nothing to extend.
        DataError: Fewer samples than classes, or more representations than memory holds.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, Algorithm 1 and eq. 4.

    Example:
        >>> from resque.data import load_data
        >>> from resque.energy import ClockMeter
        >>> from resque.networks import small_cnn
        >>> ask = TaskQuestion(warmup_steps=5, layer="penultimate")
        >>> found = task_index(small_cnn(), load_data("digits@16px@500"), ask, meter=ClockMeter())
        >>> found.classes, found.layer, found.cost_of_asking.head, found.cost_of_asking.steps
        (10, 'penultimate', 'new', 5)
    """
    index, asking, _, _ = _asked(model, data, question or TaskQuestion(), meter, grid, watch)
    return dataclasses.replace(index, cost_of_asking=asking)


def known_of_task(
    model: nn.Module,
    job: Retraining,
    question: TaskQuestion | None = None,
    *,
    meter: EnergyMeter,
    watch: Watch = lambda done, total, what: None,
) -> tuple[Features, EnergyReading]:
    """What the warm-up tells of a change of task, for a forecast: RESQUE_task, accuracy and neighbours after it.

    Args:
        model: As it is now, with its old head.
        job: To be learned, with the labels of the data.
        question: How to ask; None is the paper's way.
        meter: Measures the asking.
        watch: Called with ``(done, total, what)``.

    Returns:
        What is known, and what asking took, which is about one epoch of the update.
    """
    ask = question or TaskQuestion()
    start = clock(model)
    learner, to_do = for_task(model, job, ask.extend)
    before, loss = evaluate(learner, to_do.test.batches(EVALUATION_BATCH, device_of(learner)))
    index, asking, warmed, task = _asked(model, job.train, ask, meter, None, watch)
    after, loss_after = evaluate(warmed, to_do.test.batches(EVALUATION_BATCH, device_of(warmed)))
    scores = {"warm-up accuracy": after, "warm-up loss": loss_after}
    near = neighbours(warmed, task.limited(NEIGHBOURHOOD))
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
        scores=scores if near is None else scores | {"warm-up neighbours": near},
        task_index=index.value,
    )
    return features, _longer(asking.energy, clock(model) - start)


def _longer(reading: EnergyReading, wall_s: float) -> EnergyReading:
    """The asking with the looks at the test data around the meter's window, at the same power."""
    factor = max(1.0, wall_s / reading.wall_s)
    return dataclasses.replace(
        reading,
        wall_s=reading.wall_s * factor,
        energy_kwh=None if reading.energy_kwh is None else reading.energy_kwh * factor,
        components_kwh={device: kwh * factor for device, kwh in reading.components_kwh.items()},
    )


def for_task(model: nn.Module, job: Retraining, extend: bool = False) -> tuple[nn.Module, Retraining]:
    """The model with a head for the job's classes, and the job with the outputs' numbers as labels.

    Args:
        model: Left as it was.
        job: With the labels of the data; its seed is that of the new weights.
        extend: See :class:`TaskQuestion`.
    """
    if job.original_test is not None:
        raise SettingError("what is forgotten cannot be told beside a changed head: leave --original-test out")
    outputs = _outputs_of(model, job.train, extend)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        learner, task = with_head(model, job.train, extend)
    kind = job.kind or (EXTENSION if extend else NEW_TASK)
    test = _numbered(job.test, outputs)
    return learner, dataclasses.replace(job, train=task, test=test, kind=kind, parent=fingerprint(model))


def _asked(
    model: nn.Module, data: LabelledData, ask: TaskQuestion, meter: EnergyMeter, grid: Grid | None, watch: Watch
) -> tuple[TaskIndex, TaskAsking, nn.Module, LabelledData]:
    """The index, what asking took, and the learner after its warm-up with the task as it saw it."""
    with torch.random.fork_rng():
        torch.manual_seed(ask.seed)
        learner, task = with_head(model, data, ask.extend)
        ask = dataclasses.replace(ask, layer=representation_layer(learner, ask.layer))
        _prepare_process(learner, task, ask)
        with meter.window() as window:
            times = [clock(learner)]
            epochs = _warm_up(learner, task, ask, watch)
            times.append(clock(learner))
            index, accuracy, passed = (_clustered if ask.lloyd else _assigned)(learner, task, ask, watch)
            times += [passed, clock(learner)]
    warm_up_s, pass_s, clustering_s = np.diff(times).tolist()
    asking = TaskAsking(
        head="widened" if ask.extend else "new",
        outputs=_outputs(learner, task),
        recipe=plain_recipe(ask.recipe),
        steps=epochs[0],
        epochs=epochs[0] / epochs[1],
        accuracy=accuracy,
        warm_up_s=warm_up_s,
        pass_s=pass_s,
        clustering_s=clustering_s,
        energy=window.reading,
        carbon_kg=None if grid is None else grid.carbon_kg(window.reading.energy_kwh),
    )
    return dataclasses.replace(index, layer=ask.layer or ""), asking, learner, task


def _prepare_process(learner: nn.Module, task: LabelledData, ask: TaskQuestion) -> None:
    """What only the first step and the first clustering in a process pay for is no price of this question."""
    import sklearn.cluster  # noqa: F401

    if ask.warmup_steps != 0:
        with torch.random.fork_rng():
            Trainer(copy.deepcopy(learner), task, ask.recipe, ask.seed).step()


def with_head(model: nn.Module, data: LabelledData, extend: bool = False) -> tuple[nn.Module, LabelledData]:
    """A copy of the model with a head for the data's classes, and the data with the outputs' numbers as labels.

    Args:
        model: Any classifier; left as it was.
        data: The new task.
        extend: Widen the head and keep what it has learned, see :class:`TaskQuestion`.

    Raises:
        ModelError: The head cannot be found or replaced.
        SettingError: To be extended by classes that the model has already.
    """
    outputs = _outputs_of(model, data, extend)
    old, learner = _outputs(model, data), copy.deepcopy(model)
    kept, size = (old, max(outputs.values()) + 1) if extend else (0, len(outputs))
    widen_head(learner, size) if extend else replace_head(learner, size)
    _check_head(model, learner, data, kept, size)
    task = _numbered(data, outputs)
    check_fits(learner, task)
    return learner, task


def _outputs_of(model: nn.Module, data: LabelledData, extend: bool) -> dict[int, int]:
    """Label → output of the head to come."""
    old, classes = _outputs(model, data), data.classes
    new = [label for label in classes if not 0 <= label < old] if extend else classes
    if not new:
        raise SettingError(
            f"{data.name}: its classes are all among the {old} that the model has; "
            f"label new ones from {old} on to extend it, or leave --extend out for a new task"
        )
    kept = old if extend else 0
    return {label: label for label in classes} | {label: kept + i for i, label in enumerate(new)}


def _numbered(data: LabelledData, outputs: Mapping[int, int]) -> LabelledData:
    """With outputs in the place of labels."""
    own = torch.tensor([outputs[label] for label in data.classes])
    return dataclasses.replace(data, labels=own[torch.searchsorted(torch.tensor(data.classes), data.labels)])


def _outputs(model: nn.Module, data: LabelledData) -> int:
    return _some_logits(model, data).shape[1]


def _some_logits(model: nn.Module, data: LabelledData) -> Tensor:
    with evaluating(model):
        images, _ = next(data.batches(2, device_of(model)))
        return forward(model, images).double()


def _check_head(model: nn.Module, learner: nn.Module, data: LabelledData, kept: int, outputs: int) -> None:
    """Refuse a learner whose changed layer was no head, or whose old classes answer otherwise than the model's."""
    name = head_name(learner)
    advice = f"{name!r}, the last dense layer, is not the last thing that the model runs, so it is no head to change"
    try:
        logits = _some_logits(learner, data)
    except ModelError as error:
        raise ModelError(f"{advice}: {error.__cause__ or error}") from error
    if logits.shape[1] != outputs:
        raise ModelError(f"{advice}: the model still has {logits.shape[1]} outputs, expected {outputs}")
    precision = next(p.dtype for p in learner.parameters() if p.is_floating_point())
    slack = torch.finfo(precision).eps ** (2 / 3) * (1.0 + float(logits.abs().max()))  # a product may round otherwise
    if kept and not torch.allclose(logits[:, :kept], _some_logits(model, data), rtol=0.0, atol=slack):
        raise ModelError(f"after {name!r} was widened, the old classes get other logits than before: {advice}")


def _warm_up(model: nn.Module, data: LabelledData, ask: TaskQuestion, watch: Watch) -> tuple[int, int]:
    """``(steps taken, steps per epoch)``."""
    trainer = Trainer(model, data, ask.recipe, ask.seed)
    steps = trainer.steps_per_epoch if ask.warmup_steps is None else ask.warmup_steps
    while trainer.step_count < steps:
        trainer.step()
        watch(trainer.step_count, steps, "warm-up")
    trainer.end()
    return steps, trainer.steps_per_epoch


def _clustered(model: nn.Module, data: LabelledData, ask: TaskQuestion, watch: Watch) -> tuple[TaskIndex, float, float]:
    """Lloyd's form, with the representations of all samples in memory; ``(index, accuracy, end of the pass)``."""
    kept, done, correct = np.empty((0, 0)), 0, 0
    with observing(model, ask.layer or "", ask.reduction) as observe:
        for images, labels in _shown(model, data, watch, "pass"):
            rows, logits = observe(images)
            kept = kept if done else _room(len(data), rows.shape[1])
            kept[done : done + len(rows)] = rows.cpu().double().numpy()
            correct += int((logits.argmax(1) == labels).sum())
            done += len(rows)
    passed = clock(model)
    if not bool(np.isfinite(kept).all()):
        raise RepresentationError("representations hold NaN or infinity: did the warm-up diverge?")
    watch(0, 1, "clustering")

    def clustering(done: int, total: int) -> None:
        watch(done, total, "clustering")

    index = clustered(kept, data.labels.numpy(), ask.init, ask.reduction, ask.seed, ask.keep, clustering)
    return index, correct / len(data), passed


def _assigned(model: nn.Module, data: LabelledData, ask: TaskQuestion, watch: Watch) -> tuple[TaskIndex, float, float]:
    """The streaming form, class means in one pass and nearest means in a second; returns as :func:`_clustered`."""
    first = _shown(model, data, watch, "first pass")
    assignment = to_class_means(profile(model, first, ask.layer, ask.reduction, classes=data.classes))
    correct = torch.zeros((), dtype=torch.int64, device=device_of(model))
    with observing(model, ask.layer or "", ask.reduction) as observe:
        for images, labels in _shown(model, data, watch, "second pass"):
            rows, logits = observe(images)
            assignment.add(rows, labels)
            correct += (logits.argmax(1) == labels).sum()
    return assigned(assignment, ask.reduction), int(correct) / len(data), clock(model)


def _shown(model: nn.Module, data: LabelledData, watch: Watch, what: str) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for images, labels in data.batches(device=device_of(model)):
        yield images, labels
        done += len(labels)
        watch(done, len(data), what)


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

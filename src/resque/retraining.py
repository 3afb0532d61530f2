"""A measured update: recipe + stop rule + meter → the cost of reaching a target, with its learning curve."""

import copy
import dataclasses
import datetime
import math
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.data import LabelledData
from resque.energy import EnergyMeter, shared
from resque.errors import DataError, ModelError, SettingError
from resque.indices import resque_dist
from resque.measures import MAX_EPOCHS, TOLERANCES, Tally, evaluate, stop_epoch
from resque.models import fingerprint
from resque.profiles import Profile, profile
from resque.records import Cost, EnergyReading, Features, Forecast, Grid, Index, LearningCurve, StepCost, Update
from resque.representations import device_of, evaluating, forward

_EVALUATION_BATCH = 1024
_MIN_PROBE_STEPS = 5


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: data, not code.

    Attributes:
        optimizer: ``"adam"`` or ``"sgd"``.
        learning_rate: At the start.
        weight_decay: L2 regularisation.
        momentum: Of SGD.
        batch_size: Samples per optimizer step.
        milestones: Epochs after which the learning rate is divided by ten.
        evaluate_every: Steps between evaluations; None evaluates after each epoch.
        max_epochs: The longest run.
        tolerances: When a run that comes close may end, see :func:`resque.measures.stop_epoch`.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    momentum: float = 0.9
    batch_size: int = 32
    milestones: tuple[int, ...] = (40, 70, 90)
    evaluate_every: int | None = None
    max_epochs: int = MAX_EPOCHS
    tolerances: tuple[tuple[float, int], ...] = TOLERANCES

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise SettingError(f"optimizer {self.optimizer!r}: use 'adam' or 'sgd'")
        for name in ("learning_rate", "batch_size", "max_epochs"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise SettingError(f"evaluate_every is {self.evaluate_every}; expected at least 1 step")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer for a model's parameters."""
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            raise ModelError("the model has no parameter that requires a gradient: there is nothing to retrain")
        if self.optimizer == "adam":
            return torch.optim.Adam(trainable, lr=self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(trainable, lr=self.learning_rate, weight_decay=self.weight_decay, momentum=self.momentum)


RECIPES = {
    "retrain-adam": Recipe(),
    "retrain-sgd": Recipe(optimizer="sgd", learning_rate=1e-3),
    "train-adam": Recipe(learning_rate=1e-3, weight_decay=1e-4, milestones=()),
    "train-sgd": Recipe(optimizer="sgd", learning_rate=1e-2, weight_decay=1e-4, milestones=(70,)),
}
"""The paper's recipes by name, without its augmentation."""


def named_recipe(name: str, evaluate_every: int | None = None, max_epochs: int | None = None) -> Recipe:
    """A recipe by name, with its evaluation interval and longest run where they are given."""
    if name not in RECIPES:
        raise SettingError(f"unknown recipe {name!r}: use one of {', '.join(RECIPES)}")
    given: dict[str, Any] = {"evaluate_every": evaluate_every, "max_epochs": max_epochs}
    return dataclasses.replace(RECIPES[name], **{key: value for key, value in given.items() if value is not None})


@dataclass(frozen=True)
class Retraining:
    """What is to be done: which data, to which accuracy, by which recipe.

    Attributes:
        train: The new data.
        test: New data held out, on which the target is to be reached.
        target_accuracy: In (0, 1].
        recipe: How to train.
        seed: Of the order of the samples (and of dropout).
        original_test: Original data held out, to see what is forgotten; None leaves that unmeasured.
        kind: Kind of shift; None takes it from the training data.
    """

    train: LabelledData
    test: LabelledData
    target_accuracy: float
    recipe: Recipe = RECIPES["retrain-adam"]
    seed: int = 0
    original_test: LabelledData | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        self.check_target(self.target_accuracy)

    @staticmethod
    def check_target(target_accuracy: float) -> None:
        """Refuse an accuracy that is no share."""
        if not 0.0 < target_accuracy <= 1.0:
            raise SettingError(f"target accuracy {target_accuracy:g}: expected a share in (0, 1], e.g. 0.9 for 90 %")

    @property
    def shift_kind(self) -> str | None:
        """The kind of shift, as named or as the training data tells."""
        return self.kind or self.train.kind

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return _steps_per_epoch(len(self.train), self.recipe.batch_size)

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the longest run."""
        return self.steps_per_epoch * self.recipe.max_epochs


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for those who watch."""

    step: int
    max_steps: int
    accuracy: float


class Trainer:
    """Optimizer steps over reshuffled data, one at a time, with the measures of the paper.

    Args:
        model: Trained in place.
        data: Training data, resident.
        recipe: How to train.
        seed: Of the order of the samples.
    """

    def __init__(self, model: nn.Module, data: LabelledData, recipe: Recipe, seed: int) -> None:
        self.step_count = 0
        self.steps_per_epoch = _steps_per_epoch(len(data), recipe.batch_size)
        self.tally = Tally(model, self.steps_per_epoch)
        self._model, self._data, self._batch_size = model, data, recipe.batch_size
        self._optimizer = recipe.build(model)
        self._schedule = torch.optim.lr_scheduler.MultiStepLR(self._optimizer, list(recipe.milestones), gamma=0.1)
        self._generator = torch.Generator().manual_seed(seed)
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    @property
    def within_epoch(self) -> bool:
        """Whether the current epoch has begun and not ended."""
        return self.step_count % self.steps_per_epoch != 0

    @property
    def learning_rates(self) -> list[float]:
        """Of the optimizer's parameter groups, now."""
        return [float(group["lr"]) for group in self._optimizer.param_groups]

    def step(self) -> None:
        """One optimizer step; an epoch's last one closes its measures and moves the schedule."""
        if not self.within_epoch:
            order = torch.randperm(len(self._data), generator=self._generator)
            self._batches = self._data.batches(self._batch_size, device_of(self._model), order)
            self._model.train()
        inputs, labels = next(self._batches)
        loss = F.cross_entropy(forward(self._model, inputs), labels)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.tally.after_backward()
        self._optimizer.step()
        self.step_count += 1
        if not self.within_epoch:
            self.tally.end_epoch()
            self._schedule.step()


def retrain(
    model: nn.Module,
    job: Retraining,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    features: Features | None = None,
    step_cost: StepCost | None = None,
    model_name: str = "",
    forecast_id: str | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Update:
    """Retrain a model until it reaches its target, and measure what that takes.

    The test accuracy is looked at before the first step and then every ``recipe.evaluate_every`` steps (or
    after each epoch); the run ends at the first look at or above the target, or by the paper's tolerance
    rule at the end of an epoch, or with the last epoch. Costs are of the training steps alone.

    Args:
        model: Trained in place.
        job: What is to be done.
        meter: Measures the run; its energy is shared between training and evaluation by time.
        grid: The electricity it runs on; without it carbon is None.
        features: What was known beforehand; None evaluates accuracy and loss alone.
        step_cost: Probed cost of a step, for the energy of a run too short for the meter; None probes then.
        model_name: For the record.
        forecast_id: The forecast that this run settles.
        watch: Called after each evaluation.

    Returns:
        The update, complete whether or not it reached its target.

    Raises:
        DataError: Fewer samples than classes, or labels that are no outputs of the model.
        ModelError: The model does not take the data.

    Example:
        >>> from resque.data import load_data
        >>> from resque.energy import ClockMeter
        >>> from resque.models import small_cnn
        >>> digits = load_data("digits@16px")
        >>> job = Retraining(digits.part("train"), digits.part("test"), 0.5, RECIPES["train-adam"])
        >>> update = retrain(small_cnn(), job, meter=ClockMeter())
        >>> update.reached, update.cost.steps > 0, update.cost.energy_kwh is None
        (True, True, True)
    """
    check_fits(model, job.train)
    check_fits(model, job.test)
    pristine = copy.deepcopy(model)
    parent, forgetting = fingerprint(model), [_original_accuracy(model, job)]
    with torch.random.fork_rng(), meter.window() as window:
        torch.manual_seed(job.seed)
        curve, stopped_by, evaluation_s = _run(model, job, watch)
    model.eval()
    forgetting.append(_original_accuracy(model, job))
    if window.reading.energy_kwh is None and window.reading.methods and curve.steps[-1] and step_cost is None:
        step_cost = probe(pristine, job.train, job.recipe, meter)
    energy = _short_run_energy(window.reading, curve, step_cost)
    cost = _cost(curve, job, energy, step_cost, grid)
    return Update(
        id=uuid.uuid4().hex[:12],
        created_utc=utc_now(),
        model=model_name or type(model).__name__,
        parent=parent,
        child=fingerprint(model),
        train_data=job.train.name,
        test_data=job.test.name,
        kind=job.shift_kind,
        recipe=dataclasses.asdict(job.recipe),
        seed=job.seed,
        target_accuracy=job.target_accuracy,
        reached=stopped_by == "target",
        stopped_by=stopped_by,
        features=features or Features(None, curve.accuracy[0], curve.loss[0]),
        curve=curve,
        cost=cost,
        evaluation_s=evaluation_s,
        energy=energy,
        grid=grid,
        original_accuracy_before=forgetting[0],
        original_accuracy_after=forgetting[1],
        forecast_id=forecast_id,
        host=host(model),
    )


def probe(model: nn.Module, data: LabelledData, recipe: Recipe, meter: EnergyMeter) -> StepCost:
    """What one training step costs on this machine: a few real steps on a copy; the model stays untouched."""
    trainer = Trainer(copy.deepcopy(model), data, recipe, seed=0)
    with torch.random.fork_rng():
        for _ in range(2):  # the first steps pay for allocation and thread start
            trainer.step()
        first, length_s = trainer.step_count, 1.2 * meter.shortest_s
        with meter.window() as window:
            start = _clock(model)
            while _clock(model) - start < length_s or trainer.step_count - first < _MIN_PROBE_STEPS:
                trainer.step()
            wall_s = _clock(model) - start
    steps = trainer.step_count - first
    energy_kwh = shared(window.reading, wall_s)
    per_step = None if energy_kwh is None else energy_kwh / steps
    return StepCost(wall_s / steps, per_step, steps, window.reading)


def known_before(
    model: nn.Module,
    job: Retraining,
    original: Profile | None = None,
    labels: str = "true",
) -> tuple[Features, Index | None, float]:
    """What one forward pass over the new data tells: ``(features, index, seconds)``.

    Args:
        model: The model as it is now; left as it was found.
        job: The update to be judged.
        original: Profile of the data the model was trained on; without it there is no index.
        labels: ``"pseudo"`` lets the model's own predictions stand in for the training labels.

    Raises:
        ProfileMismatchError: The profile belongs to another model, layer or preprocessing.
        UndefinedDirectionError: A class has no samples on one side.
    """
    start, index = _clock(model), None
    if original is not None:
        origin = original.origin
        shifted = profile(
            model,
            job.train.batches(device=device_of(model)),
            layer=origin.layer,
            reduction=origin.reduction,
            labels=labels,
            preprocessing=origin.preprocessing,
        )
        index = resque_dist(original, shifted)
    accuracy, loss = evaluate(model, job.test.batches(_EVALUATION_BATCH, device_of(model)))
    features = Features(None if index is None else index.value, accuracy, loss)
    return features, index, _clock(model) - start


def price_of_asking(passes_s: float, step_cost: StepCost, forecasts: int = 1) -> EnergyReading:
    """What one forecast took: its passes, at the probe's power, and its share of the probe.

    Args:
        passes_s: Seconds of the forward passes; as a rule too short for a meter's own window.
        step_cost: The probe.
        forecasts: How many forecasts share the probe.
    """
    probed = step_cost.reading
    wall_s = passes_s + probed.wall_s / forecasts
    energy_kwh = shared(probed, wall_s)
    parts = {device: kwh * wall_s / probed.wall_s for device, kwh in probed.components_kwh.items()}
    note = f"passes {passes_s:.2f} s at the probe's power, and 1/{forecasts} of the probe"
    return EnergyReading(wall_s, energy_kwh, parts, probed.methods, probed.meter, note)


def check_fits(model: nn.Module, data: LabelledData) -> None:
    """Refuse data that this classifier cannot learn from.

    Raises:
        DataError: Fewer samples than classes, or a label that is no output of the model.
        ModelError: The model does not take these images.
    """
    with evaluating(model):
        images, _ = next(data.batches(2, device_of(model)))
        classes = forward(model, images).shape[1]
    if len(data) < classes:
        raise DataError(f"{data.name}: {len(data)} samples for {classes} classes; expected at least one a class")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{data.name}: labels run from {low} to {high}, the model has {classes} outputs; "
            f"expected labels 0 to {classes - 1}"
        )


def check_settles(model: nn.Module, job: Retraining, said: Forecast) -> None:
    """Refuse to settle a forecast with an update that it was not made for.

    Raises:
        SettingError: Another model, data set or target.
    """
    here = {
        "model": fingerprint(model),
        "training data": job.train.name,
        "test data": job.test.name,
        "target accuracy": job.target_accuracy,
    }
    there = said.parent, said.train_data, said.test_data, said.target_accuracy
    for (what, mine), theirs in zip(here.items(), there, strict=True):
        if mine != theirs:
            raise SettingError(f"forecast {said.id} was made for {what} {theirs}, not {mine}: make a new forecast")


def utc_now() -> str:
    """The time now, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def host(model: nn.Module) -> dict[str, str]:
    """The machine and versions that a cost belongs to."""
    device = device_of(model)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _run(
    model: nn.Module, job: Retraining, watch: Callable[[Progress], None] | None
) -> tuple[LearningCurve, str, float]:
    trainer = Trainer(model, job.train, job.recipe, job.seed)
    every = job.recipe.evaluate_every or trainer.steps_per_epoch
    rows: list[tuple[float, ...]] = []
    by_epoch: list[float] = []
    training_s = evaluation_s = 0.0
    stopped_by = None
    while stopped_by is None:
        start = _clock(model)
        accuracy, loss = evaluate(model, job.test.batches(_EVALUATION_BATCH, device_of(model)))
        evaluation_s += _clock(model) - start
        rows.append((trainer.step_count, accuracy, loss, training_s, *trainer.tally.totals(trainer.within_epoch)))
        if watch:
            watch(Progress(trainer.step_count, job.max_steps, accuracy))
        if trainer.step_count and not trainer.within_epoch:
            by_epoch.append(accuracy)
        stopped_by = _verdict(job, accuracy, loss, by_epoch)
        if stopped_by is None:
            start = _clock(model)
            trainer.step()
            while trainer.within_epoch and trainer.step_count % every:
                trainer.step()
            training_s += _clock(model) - start
    names = [field.name for field in dataclasses.fields(LearningCurve)][:-1]
    columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
    curve = LearningCurve(**columns, steps_per_epoch=trainer.steps_per_epoch)
    return curve, stopped_by, evaluation_s


def _verdict(job: Retraining, accuracy: float, loss: float, by_epoch: list[float]) -> str | None:
    if accuracy >= job.target_accuracy:
        return "target"
    if not math.isfinite(loss):
        return "diverged"
    return stop_epoch(by_epoch, job.target_accuracy, job.recipe.tolerances, job.recipe.max_epochs)[1]


def _short_run_energy(reading: EnergyReading, curve: LearningCurve, step_cost: StepCost | None) -> EnergyReading:
    """Say how the energy of a run below the meter's shortest window is known."""
    if reading.energy_kwh is not None or step_cost is None or step_cost.energy_kwh is None:
        return reading
    note = f"{reading.note}: {curve.steps[-1]} steps × probed energy"
    return dataclasses.replace(reading, note=note)


def _cost(
    curve: LearningCurve, job: Retraining, energy: EnergyReading, step_cost: StepCost | None, grid: Grid | None
) -> Cost:
    steps, wall_s = curve.steps[-1], curve.wall_s[-1]
    energy_kwh = shared(energy, wall_s)
    if energy_kwh is None and energy.methods and steps == 0:
        energy_kwh = 0.0
    if energy_kwh is None and step_cost is not None and step_cost.energy_kwh is not None:
        energy_kwh = steps * step_cost.energy_kwh
    whole, rest = divmod(steps, job.steps_per_epoch)
    return Cost(
        epochs=steps / job.steps_per_epoch,
        steps=steps,
        samples=min(whole * len(job.train) + rest * job.recipe.batch_size, (whole + 1) * len(job.train)),
        gradient_norm=curve.gradient_norm[-1],
        gradient_norm_last_batch=curve.gradient_norm_last_batch[-1],
        parameter_change=curve.parameter_change[-1],
        wall_s=wall_s,
        energy_kwh=energy_kwh,
        carbon_kg=grid.carbon_kg(energy_kwh) if grid else None,
    )


def _original_accuracy(model: nn.Module, job: Retraining) -> float | None:
    if job.original_test is None:
        return None
    return evaluate(model, job.original_test.batches(_EVALUATION_BATCH, device_of(model)))[0]


def _steps_per_epoch(n: int, batch_size: int) -> int:
    """A last batch of one sample is left out: batch normalisation cannot train on it."""
    whole, rest = divmod(n, batch_size)
    return max(1, whole + (rest > 1))


def _clock(model: nn.Module) -> float:
    if device_of(model).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()

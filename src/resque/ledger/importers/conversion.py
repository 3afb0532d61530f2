"""Conversion of other tools' runs to updates.

A run of MLflow becomes an update whose learning curve is the accuracy it logged. A run of codecarbon gives the energy;
it becomes an update of its own only with the steps and the accuracy that its file lacks. What a tool did not record
is None: no index, no gradient norm, no model, no time of evaluation. Times are those of logging, so the cost includes
evaluation.
"""

import dataclasses
import datetime
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resque.energy.reading import EnergyReading
from resque.errors import DataError, SettingError
from resque.ledger.importers.codecarbon import FILE, EmissionsRow
from resque.ledger.importers.mlflow import LoggedRun, MetricPoint
from resque.ledger.records import BY_USER, Cost, Features, LearningCurve, Update
from resque.ledger.validation import check_record

__all__ = [
    "UNITS", "ImportOptions", "UnusableRunError", "add_energy", "option_name", "update_from_emissions",
    "update_from_run",
]  # fmt: skip

UNITS = {"steps": 0, "epochs": 0, "epochs-from-0": 1}
"""Unit of a logged step → its offset; loops that log after epoch 0 count epochs from 0."""
_HELD_OUT = frozenset(
    f"{part}_{name}" for part in ("val", "valid", "validation", "test", "eval") for name in ("accuracy", "acc")
)
_ANY_DATA = frozenset({"accuracy", "acc"})
_ENDED = "FINISHED", "FAILED", "KILLED"
_MIN_COVERAGE = 0.95  # share of the training time that codecarbon must have measured


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


_SETTINGS: Mapping[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "optimizer": (("optimizer", "optimizer_name", "optim"), str.lower),
    "learning_rate": (("learning_rate", "lr"), _finite),
    "batch_size": (("batch_size",), int),
    "weight_decay": (("weight_decay",), _finite),
    "momentum": (("momentum",), _finite),
    "max_epochs": (("max_epochs", "num_epochs", "n_epochs", "epochs"), int),
}
_MODEL = "model", "model_name", "architecture", "arch", "backbone"
_TRAIN_DATA = "train_data", "dataset"
_SEED = "seed", "random_seed"
_LONGEST_SEED = 20  # digits of a 64-bit number


@dataclass(frozen=True)
class ImportOptions:
    """Facts about imported runs that their file does not hold.

    Attributes:
        accuracy_metric: MLflow's name of the accuracy; None looks for one.
        loss_metric: MLflow's name of the mean cross-entropy on the same data, nats; None takes ``val_loss`` beside
            ``val_acc``.
        percent: Whether accuracies are in percent.
        step_unit: Unit of a logged step, a key of :data:`UNITS`; None takes optimizer steps, unless they grow by one.
        steps_per_epoch: Optimizer steps of an epoch.
        experiment: Name of the MLflow experiment; None takes all.
        energy: Codecarbon's file with the energy of the MLflow runs.
        run: Name of a run, or the beginning of its id; None takes all.
        target_accuracy: Target accuracy; None takes the accuracy at the end.
        shift_type: Name of the shift type.
        steps: Optimizer steps of a codecarbon run.
        accuracy: Accuracy on the test data at the end of a codecarbon run.
        accuracy_before: Accuracy on the test data before the first step of a codecarbon run.

    Raises:
        SettingError: An accuracy outside [0, 1], a number of steps below 1, or an unknown unit.

    Example:
        >>> ImportOptions(step_unit="epochs", steps_per_epoch=20).target_accuracy is None
        True
    """

    accuracy_metric: str | None = None
    loss_metric: str | None = None
    percent: bool = False
    step_unit: str | None = None
    steps_per_epoch: int | None = None
    experiment: str | None = None
    energy: Path | None = None
    run: str | None = None
    target_accuracy: float | None = None
    shift_type: str | None = None
    steps: int | None = None
    accuracy: float | None = None
    accuracy_before: float | None = None

    def __post_init__(self) -> None:
        for name in ("target_accuracy", "accuracy", "accuracy_before"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise SettingError(f"{option_name(name)} {value:g}: expected a share in [0, 1], e.g. 0.9 for 90 %")
        for name in ("steps", "steps_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{option_name(name)} {value}: expected a whole number from 1 on")
        if self.step_unit is not None and self.step_unit not in UNITS:
            raise SettingError(f"unknown step unit {self.step_unit!r}: use one of {', '.join(UNITS)}")
        if self.step_unit not in (None, "steps") and self.steps_per_epoch is None:
            raise SettingError(f"--step-unit {self.step_unit} needs --steps-per-epoch: costs count optimizer steps")


class UnusableRunError(Exception):
    """A run cannot become an update; the import reports the reason and continues with the next run."""


def option_name(name: str) -> str:
    """Return the command-line option of a field of :class:`ImportOptions`.

    Example:
        >>> option_name("step_unit")
        '--step-unit'
    """
    return "--" + name.replace("_", "-")


def update_from_run(run: LoggedRun, options: ImportOptions) -> Update:
    """Convert a run of MLflow to an update without energy.

    Raises:
        UnusableRunError: The run cannot become an update.
        DataError: Several metrics could be its accuracy.
    """
    if run.status not in _ENDED:
        raise UnusableRunError(f"its status is {run.status.lower()}, expected one that has ended")
    metric = options.accuracy_metric or _accuracy_metric(run)
    if metric not in run.metrics:
        raise UnusableRunError(f"it logged no {metric}; it logged {', '.join(run.metrics) or 'nothing'}")
    points = run.read_metric(metric)
    curve = _learning_curve(run, points, metric, options)
    ended_ms = run.ended_ms or points[-1].timestamp_ms
    try:
        times = _utc(run.started_ms), _utc(ended_ms)
    except (ValueError, OverflowError, OSError):
        raise UnusableRunError(f"it has an impossible start or end: {run.started_ms} and {ended_ms} ms") from None
    note = "MLflow logs no energy; --energy emissions.csv joins codecarbon's"
    seed = _parameter(run, _SEED) or ""
    return _update(
        curve,
        options,
        times,
        id=run.id,
        energy=EnergyReading(max(ended_ms - run.started_ms, 0) / 1000.0, None, {}, {}, "mlflow", note),
        model=_parameter(run, _MODEL) or run.experiment,
        train_data=_parameter(run, _TRAIN_DATA) or f"{run.experiment}/{run.name}",
        test_data=f"{metric} in MLflow",
        recipe=_recipe(run.params),
        seed=int(seed) if seed.isascii() and seed.isdigit() and len(seed) < _LONGEST_SEED else 0,
        host={"imported": "from MLflow, which names no machine"},
    )


def update_from_emissions(row: EmissionsRow, options: ImportOptions) -> Update:
    """Convert a run of codecarbon to an update, with the steps and the accuracy from the options.

    Raises:
        SettingError: The options have no steps or no accuracy.
        UnusableRunError: The run cannot become an update.
    """
    if options.steps is None or options.accuracy is None:
        raise SettingError(
            f"{FILE} holds energy and time, but no steps and no accuracy, from which forecasts learn: "
            "add --steps and --accuracy (and --accuracy-before), or join it to MLflow runs with --energy"
        )
    wall_s, before = row.reading.wall_s, options.accuracy_before
    evaluations = [(options.steps, options.accuracy, None, wall_s)]
    if before is not None:
        evaluations.insert(0, (0, before, None, 0.0))
    update = _update(
        _curve(evaluations, options.steps_per_epoch),
        options,
        (_utc(row.started.timestamp() * 1000.0), _utc(row.ended.timestamp() * 1000.0)),
        id=row.run_id.replace("-", "") or f"codecarbon {row.ended.isoformat()}",
        energy=row.reading,
        model=row.project,
        train_data=row.project,
        test_data="",
        recipe={},
        seed=0,
        host={},
    )
    return add_energy(update, row)


def add_energy(update: Update, row: EmissionsRow) -> Update:
    """Return the update with the row's energy, divided by time; without it if the row covers less than the training."""
    wall_s, reading = update.cost.wall_s, row.reading
    if reading.wall_s < _MIN_COVERAGE * wall_s:
        note = f"codecarbon measured {reading.wall_s:.3g} s of {wall_s:.3g} s of training, so its energy is not used"
        return dataclasses.replace(update, energy=dataclasses.replace(update.energy, note=note))
    kwh = reading.energy_kwh
    if kwh is not None and wall_s < reading.wall_s:
        kwh *= wall_s / reading.wall_s
    carbon_kg = row.grid.carbon_kg(kwh) if row.grid else None
    cost = dataclasses.replace(update.cost, energy_kwh=kwh, carbon_kg=carbon_kg)
    return dataclasses.replace(update, cost=cost, energy=reading, grid=row.grid, host=row.host or update.host)


def _accuracy_metric(run: LoggedRun) -> str:
    """Return the one accuracy that a run logged; held-out data take precedence over data that may be the training's."""
    for names in (_HELD_OUT, _ANY_DATA):
        metrics = [metric for metric in run.metrics if _normalize(metric) in names]
        if len(metrics) > 1:
            raise DataError(f"run {run.name} logged {', '.join(metrics)}: name the accuracy with --accuracy-metric")
        if metrics:
            return metrics[0]
    logged = ", ".join(run.metrics) or "nothing"
    raise UnusableRunError(
        f"no accuracy that is known by its name; it logged {logged}: name one with --accuracy-metric"
    )


def _loss_metric(run: LoggedRun, accuracy_metric: str, options: ImportOptions) -> str | None:
    """Return the loss on the same data; a plain ``loss`` is usually the training data's and is not used."""
    if options.loss_metric is not None or _normalize(accuracy_metric) not in _HELD_OUT:
        return options.loss_metric
    expected = _normalize(accuracy_metric).rsplit("_", 1)[0] + "_loss"
    metrics = [metric for metric in run.metrics if _normalize(metric) == expected]
    return metrics[0] if len(metrics) == 1 else None


def _normalize(name: str) -> str:
    return name.lower().translate(str.maketrans("/-. ", "____"))


def _learning_curve(
    run: LoggedRun, points: Sequence[MetricPoint], metric: str, options: ImportOptions
) -> LearningCurve:
    if len(points) < 2:
        raise UnusableRunError(f"it logged {metric} once; a learning curve needs two evaluations")
    logged = [point.step for point in points]
    gaps = {after - before for before, after in itertools.pairwise(logged)}
    if min(gaps) <= 0 or logged[0] < 0:
        raise UnusableRunError(f"the steps of {metric} do not grow from 0 on ({', '.join(map(str, logged[:4]))}…)")
    if gaps == {1} and options.step_unit is None:
        raise UnusableRunError("its steps grow one by one, which may be epochs: name their unit with --step-unit")
    unit = options.step_unit or "steps"
    scale = 1 if unit == "steps" else options.steps_per_epoch or 1
    steps = [(step + UNITS[unit]) * scale for step in logged]
    start_ms = points[0].timestamp_ms if steps[0] == 0 else run.started_ms  # no training before the first step
    wall_s = [max(point.timestamp_ms - start_ms, 0) / 1000.0 for point in points]
    loss_metric = _loss_metric(run, metric, options)
    known = run.read_metric(loss_metric) if loss_metric and loss_metric in run.metrics else []
    losses = {point.step: point.value if math.isfinite(point.value) else None for point in known}
    accuracies = _accuracies([point.value for point in points], metric, options.percent)
    return _curve(zip(steps, accuracies, map(losses.get, logged), wall_s, strict=True), options.steps_per_epoch)


def _curve(evaluations: Iterable[tuple[int, float, float | None, float]], steps_per_epoch: int | None) -> LearningCurve:
    """Return the learning curve of evaluations (steps, accuracy, loss, seconds), without gradients."""
    steps, accuracy, loss, wall_s = zip(*evaluations, strict=True)
    none = (None,) * len(steps)
    return LearningCurve(steps, accuracy, loss, wall_s, none, none, none, steps_per_epoch)


def _accuracies(values: Sequence[float], metric: str, percent: bool) -> list[float]:
    top = 100.0 if percent else 1.0
    if not all(0.0 <= value <= top for value in values):
        hint = "" if percent or not 1.0 < max(values) <= 100.0 else "; if that is percent, add --percent"
        raise UnusableRunError(f"{metric} goes from {min(values):g} to {max(values):g}, expected 0 to {top:g}{hint}")
    if percent and max(values) <= 1.0:
        raise UnusableRunError(f"{metric} never exceeds 1, which is not percent: leave --percent out")
    return [value / top for value in values]


def _recipe(params: Mapping[str, str]) -> dict[str, Any]:
    """Return unambiguous settings under resque's names, every other parameter as the text that it is."""
    recipe: dict[str, Any] = {}
    used: set[str] = set()
    for setting, (aliases, parse) in _SETTINGS.items():
        names = [name for name in params if _normalize(name) in aliases]
        try:
            values = {parse(params[name]) for name in names}
        except ValueError:
            continue
        if len(values) == 1:
            recipe[setting] = values.pop()
            used |= set(names)
    return recipe | {f"params.{name}": value for name, value in params.items() if name not in used}


def _parameter(run: LoggedRun, names: Iterable[str]) -> str | None:
    return next((run.params[name] for name in names if run.params.get(name)), None)


def _update(curve: LearningCurve, options: ImportOptions, times: tuple[str, str], **fields: Any) -> Update:
    """Return an update with what all imported runs have in common: an unknown model, stopped by its own loop.

    Raises:
        UnusableRunError: It has a value that no update can have.
    """
    target = curve.accuracy[-1] if options.target_accuracy is None else options.target_accuracy
    has_start, steps, per_epoch = curve.steps[0] == 0, curve.steps[-1], curve.steps_per_epoch
    epochs = None if per_epoch is None else steps / per_epoch
    update = Update(
        started_utc=times[0],
        created_utc=times[1],
        parent="",
        child="",
        shift_type=options.shift_type,
        target_accuracy=target,
        reached=curve.first_at(target) is not None,
        stopped_by=BY_USER,
        features=Features(None, curve.accuracy[0] if has_start else None, curve.loss[0] if has_start else None),
        curve=curve,
        cost=Cost(epochs, steps, None, None, None, None, curve.wall_s[-1]),
        evaluation_s=None,
        grid=None,
        original_accuracy_before=None,
        original_accuracy_after=None,
        forecast_id=None,
        trainable_share=None,
        **fields,
    )
    try:
        check_record(update)
    except ValueError as error:
        raise UnusableRunError(str(error)) from error
    return update


def _utc(ms: float) -> str:
    return datetime.datetime.fromtimestamp(ms / 1000.0, datetime.UTC).isoformat(timespec="milliseconds")

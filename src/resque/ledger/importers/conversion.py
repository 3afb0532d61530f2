"""Runs of other tools as updates: what MLflow logged of a training, what codecarbon measured of one.

A run that MLflow kept becomes an update whose learning curve is the accuracy it logged; a run of codecarbon gives the
energy, and becomes an update of its own only with the steps and the accuracy that its file lacks. What a tool did not
write down is None here: no index, no gradient norm, no model, no time of evaluation. Time is read off the moments of
logging, so evaluation is part of it.
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
from resque.ledger.importers.codecarbon import EmissionsRow
from resque.ledger.importers.mlflow import LoggedRun, Point
from resque.ledger.records import BY_USER, Cost, Features, LearningCurve, Update

_HELD_OUT = frozenset(
    f"{part}_{name}" for part in ("val", "valid", "validation", "test", "eval") for name in ("accuracy", "acc")
)
_PLAIN = frozenset({"accuracy", "acc"})
_ENDED = "FINISHED", "FAILED", "KILLED"
_COVERED = 0.95
_Reading = Callable[[str], Any]
_SETTINGS: Mapping[str, tuple[tuple[str, ...], _Reading]] = {
    "optimizer": (("optimizer", "optimizer_name", "optim"), str.lower),
    "learning_rate": (("learning_rate", "lr"), float),
    "batch_size": (("batch_size",), int),
    "weight_decay": (("weight_decay",), float),
    "momentum": (("momentum",), float),
    "max_epochs": (("max_epochs", "num_epochs", "n_epochs", "epochs"), int),
}
_MODEL = "model", "model_name", "architecture", "arch", "backbone"
_TRAIN_DATA = "train_data", "dataset"
_SEED = "seed", "random_seed"
UNITS = {"steps": 0, "epochs": 0, "epochs-from-0": 1}
"""What a logged step counts → by how much it is short; loops that log after epoch 0 count epochs from 0."""


@dataclass(frozen=True)
class ImportOptions:
    """What the user says of a file that does not say it itself.

    Attributes:
        accuracy_metric: Of MLflow; None looks for one.
        loss_metric: Mean cross-entropy on the same data, nats; None takes the accuracy's, ``val_loss`` of ``val_acc``.
        percent: Accuracies are in percent.
        step_unit: One of :data:`UNITS`; None takes optimizer steps, unless they grow one by one.
        steps_per_epoch: Optimizer steps of an epoch.
        experiment: Name; None takes all.
        energy: Codecarbon's file beside runs of MLflow.
        run: Id or its beginning, or name; None takes all.
        target_accuracy: What was to be reached; None takes the accuracy at the end.
        shift_type: Kind of shift.
        steps: Optimizer steps of a run of codecarbon.
        accuracy: On the test data at its end.
        accuracy_before: And before the first step.
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


class Unusable(Exception):  # noqa: N818
    """Why a run is no update; it is told, and the next one is read."""


def option_name(name: str) -> str:
    """A setting as it is typed."""
    return "--" + name.replace("_", "-")


def update_from_run(run: LoggedRun, said: ImportOptions) -> Update:
    """A run of MLflow as an update without energy.

    Raises:
        Unusable: It is no update, and why.
        DataError: Several metrics could be its accuracy.
    """
    if run.status not in _ENDED:
        raise Unusable(f"its status is {run.status.lower()}, expected one that has ended")
    metric = said.accuracy_metric or _accuracy_metric(run)
    if metric not in run.metrics:
        raise Unusable(f"it logged no {metric}; it logged {', '.join(run.metrics) or 'nothing'}")
    points = run.read(metric)
    curve = _curve(run, points, metric, said)
    ended_ms = run.ended_ms or points[-1].timestamp_ms
    try:
        when = _utc(run.started_ms), _utc(ended_ms)
    except (ValueError, OverflowError, OSError):
        raise Unusable(f"it began or ended at no moment: {run.started_ms} and {ended_ms} ms") from None
    note = "MLflow logs no energy; --energy emissions.csv joins codecarbon's"
    reading = EnergyReading(max(ended_ms - run.started_ms, 0) / 1000.0, None, {}, {}, "mlflow", note)
    return _update(
        run.id,
        when,
        curve,
        reading,
        said,
        model=_param(run, _MODEL) or run.experiment,
        train_data=_param(run, _TRAIN_DATA) or f"{run.experiment}/{run.name}",
        test_data=f"{metric} in MLflow",
        recipe=_recipe(run.params),
        seed=_seed(run),
        host={"imported": "from MLflow, which names no machine"},
    )


def _accuracy_metric(run: LoggedRun) -> str:
    """The one accuracy that a run logged; one of held-out data goes before one that may be of the training data."""
    for names in (_HELD_OUT, _PLAIN):
        found = [metric for metric in run.metrics if _plain_name(metric) in names]
        if len(found) > 1:
            raise DataError(f"run {run.name} logged {', '.join(found)}: name the accuracy with --accuracy-metric")
        if found:
            return found[0]
    logged = ", ".join(run.metrics) or "nothing"
    raise Unusable(f"no accuracy that is known by its name; it logged {logged}: name one with --accuracy-metric")


def _loss_metric(run: LoggedRun, accuracy_metric: str, said: ImportOptions) -> str | None:
    """The loss on the same data; a plain ``loss`` is as a rule the training data's and is not taken."""
    if said.loss_metric is not None or _plain_name(accuracy_metric) not in _HELD_OUT:
        return said.loss_metric
    wanted = _plain_name(accuracy_metric).rsplit("_", 1)[0] + "_loss"
    found = [metric for metric in run.metrics if _plain_name(metric) == wanted]
    return found[0] if len(found) == 1 else None


def _plain_name(name: str) -> str:
    for sign in "/-. ":
        name = name.replace(sign, "_")
    return name.lower()


def _curve(run: LoggedRun, points: Sequence[Point], metric: str, said: ImportOptions) -> LearningCurve:
    if len(points) < 2:
        raise Unusable(f"it logged {metric} once; a learning curve needs two evaluations")
    logged = [point.step for point in points]
    gaps = {after - before for before, after in itertools.pairwise(logged)}
    if min(gaps) <= 0 or logged[0] < 0:
        raise Unusable(f"the steps of {metric} do not grow from 0 on ({', '.join(map(str, logged[:4]))}…)")
    if gaps == {1} and said.step_unit is None:
        raise Unusable("its steps grow one by one, which may be epochs: say what they are with --step-unit")
    scale = 1 if said.step_unit in (None, "steps") else said.steps_per_epoch or 1
    steps = tuple((step + UNITS[said.step_unit or "steps"]) * scale for step in logged)
    zero_ms = points[0].timestamp_ms if steps[0] == 0 else run.started_ms  # before the first step nothing is trained
    loss = _loss_metric(run, metric, said)
    told = {} if loss is None or loss not in run.metrics else {point.step: point.value for point in run.read(loss)}
    none = (None,) * len(points)
    return LearningCurve(
        steps=steps,
        accuracy=_shares([point.value for point in points], metric, said.percent),
        loss=tuple(told[step] if math.isfinite(told.get(step, math.nan)) else None for step in logged),
        wall_s=tuple(max(point.timestamp_ms - zero_ms, 0) / 1000.0 for point in points),
        gradient_norm=none,
        gradient_norm_last_batch=none,
        parameter_change=none,
        steps_per_epoch=said.steps_per_epoch,
    )


def _shares(values: Sequence[float], metric: str, percent: bool) -> tuple[float, ...]:
    top = 100.0 if percent else 1.0
    if not all(0.0 <= value <= top for value in values):
        hint = "" if percent or not 1.0 < max(values) <= 100.0 else "; if that is percent, say --percent"
        raise Unusable(f"{metric} goes from {min(values):g} to {max(values):g}, expected 0 to {top:g}{hint}")
    if percent and max(values) <= 1.0:
        raise Unusable(f"{metric} never exceeds 1, which is no percent: leave --percent out")
    return tuple(value / top for value in values)


def _recipe(params: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are plain under resque's names; every other parameter as the text that it is."""
    found: dict[str, Any] = {}
    mapped: set[str] = set()
    for setting, (names, read) in _SETTINGS.items():
        given = [name for name in params if _plain_name(name) in names]
        try:
            values = {read(params[name]) for name in given}
        except ValueError:
            continue
        if len(values) == 1:
            found[setting] = values.pop()
            mapped |= set(given)
    return found | {f"params.{name}": value for name, value in params.items() if name not in mapped}


def _param(run: LoggedRun, names: Iterable[str]) -> str | None:
    return next((run.params[name] for name in names if run.params.get(name)), None)


def _seed(run: LoggedRun) -> int:
    given = _param(run, _SEED) or ""
    return int(given) if given.isascii() and given.isdigit() else 0


def _update(
    run_id: str, when: tuple[str, str], curve: LearningCurve, reading: EnergyReading, said: ImportOptions, **rest: Any
) -> Update:
    """What all imported runs have in common: nobody looked at the model, and the user's loop stopped by itself."""
    target = curve.accuracy[-1] if said.target_accuracy is None else said.target_accuracy
    known, steps, per_epoch = curve.steps[0] == 0, curve.steps[-1], curve.steps_per_epoch
    epochs = None if per_epoch is None else steps / per_epoch
    return Update(
        id=run_id,
        started_utc=when[0],
        created_utc=when[1],
        parent="",
        child="",
        shift_type=said.shift_type,
        target_accuracy=target,
        reached=curve.first_at(target) is not None,
        stopped_by=BY_USER,
        features=Features(None, curve.accuracy[0] if known else None, curve.loss[0] if known else None),
        curve=curve,
        cost=Cost(epochs, steps, None, None, None, None, curve.wall_s[-1]),
        evaluation_s=None,
        energy=reading,
        grid=None,
        original_accuracy_before=None,
        original_accuracy_after=None,
        forecast_id=None,
        trainable_share=None,
        **rest,
    )


def add_energy(update: Update, row: EmissionsRow) -> Update:
    """The row's energy, shared out by time; none where the row covers less than the training."""
    wall_s, kwh = update.cost.wall_s, row.energy_kwh
    if row.duration_s < _COVERED * wall_s:
        note = (
            f"codecarbon watched {row.duration_s:.3g} s of {wall_s:.3g} s of training, so its energy is not the run's"
        )
        return dataclasses.replace(update, energy=dataclasses.replace(update.energy, note=note))
    if kwh is not None and wall_s < row.duration_s:
        kwh *= wall_s / row.duration_s
    carbon_kg = row.grid.carbon_kg(kwh) if row.grid else None
    cost = dataclasses.replace(update.cost, energy_kwh=kwh, carbon_kg=carbon_kg)
    host = row.host or update.host
    return dataclasses.replace(update, cost=cost, energy=row.reading(), grid=row.grid, host=host)


def update_from_emissions(row: EmissionsRow, steps: int, accuracy: float, said: ImportOptions) -> Update:
    """A run of codecarbon, with the steps and the accuracy that its row lacks."""
    before = () if said.accuracy_before is None else (said.accuracy_before,)
    none = (None,) * (len(before) + 1)
    curve = LearningCurve(
        steps=(*(0 for _ in before), steps),
        accuracy=(*before, accuracy),
        loss=none,
        wall_s=(*(0.0 for _ in before), row.duration_s),
        gradient_norm=none,
        gradient_norm_last_batch=none,
        parameter_change=none,
        steps_per_epoch=said.steps_per_epoch,
    )
    update = _update(
        row.run_id.replace("-", "") or f"codecarbon {row.ended.isoformat()}",
        (_utc(row.started.timestamp() * 1000.0), _utc(row.ended.timestamp() * 1000.0)),
        curve,
        row.reading(),
        said,
        model=row.project,
        train_data=row.project,
        test_data="",
        recipe={},
        seed=0,
        host={},
    )
    return add_energy(update, row)


def _utc(ms: float) -> str:
    return datetime.datetime.fromtimestamp(ms / 1000.0, datetime.UTC).isoformat(timespec="milliseconds")

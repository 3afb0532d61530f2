"""Record a custom training loop: measured as :func:`resque.retrain` measures, as far as the loop provides the values.

Nothing is trained here, and nothing is written before the block has ended without an error. Values that the loop does
not provide are None.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter, open_meter, unfailing_window
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading, energy_share
from resque.errors import ResqueWarning, SettingError
from resque.forecasting.budget import CONFIDENCE, Budget
from resque.forecasting.landmarking import ForecastReviser
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import BY_USER, Features, Forecast, ForecastRevision, LearningCurve, Update
from resque.ledger.serialization import checked
from resque.ledger.store import Ledger
from resque.models.weights import check_weights, fingerprint
from resque.training.cost_tracking import CostTracker, build_curve, final_cost
from resque.training.environment import describe_host
from resque.training.job import RetrainingJob
from resque.training.run import ReviseForecast, StopRun
from resque.workflows.budgets import RunLimits
from resque.workflows.keeping import check_fields, keep_update
from resque.workflows.reported_values import reported_number, whole_number
from resque.workflows.settings_in_use import other_batch_size, other_recipe, settings_in_use

__all__ = ["Recording", "record"]

_FROM_FORECAST = "parent", "train_data", "test_data", "shift_type", "target_accuracy"
_NOT_SETTLED = "forecast {id} was made for {difference}: the update is stored and does not settle it"


class Recording:
    """A recorded run in progress, which the training loop reports to; :func:`record` returns it.

    Args:
        optimizer: Optimizer of the loop; None leaves its steps uncounted.
        steps_per_epoch: Optimizer steps in an epoch, the interval of eq. 5. None leaves epochs, gradient norm and
            parameter change unknown.
        reviser: In-run forecast update; None if the run settles no forecast.
        stop: Budget of the run; None for none.

    Attributes:
        should_stop: Why the loop should end, as of the last evaluation, e.g. ``"budget: kWh"``; None to go on.
        update: Update that the run became; None until the block has ended.
        revisions: In-run forecast updates, oldest first.
        notes: What a reader of the update should know.
        evaluation_s: Seconds of evaluation so far.
        started_utc: Time of the start, ISO 8601.
        trained_parameters: Number of parameters that the optimizer trains.

    Raises:
        SettingError: The optimizer is not one of PyTorch, or ``steps_per_epoch`` is not a positive whole number.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        steps_per_epoch: int | None = None,
        reviser: ReviseForecast | None = None,
        stop: StopRun | None = None,
    ) -> None:
        if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
            raise SettingError(f"optimizer is a {type(optimizer).__name__}; expected one torch.optim.Optimizer")
        if steps_per_epoch is not None:
            steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch, at_least=1)
        self.update: Update | None = None
        self.should_stop: str | None = None
        self.revisions: list[ForecastRevision] = []
        self.notes: list[str] = []
        self.evaluation_s, self.started_utc, self.trained_parameters = 0.0, utc_now(), 0
        self._reviser, self._stop, self._steps_per_epoch = reviser, stop, steps_per_epoch
        self._evaluations: list[tuple[Any, ...]] = []
        self._evaluating_since: float | None = None
        self._samples: int | None = None
        self._ended = False
        self._step_count = None if optimizer is None else 0
        self._cost_tracker: CostTracker | None = None
        self._hooks: list[Any] = []
        self._device = _device_of_optimizer(optimizer)
        if optimizer is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._hooks.append(optimizer.register_step_pre_hook(self._before_step))
            self._hooks.append(optimizer.register_step_post_hook(self._after_step))
            self.trained_parameters = sum(p.numel() for p in parameters if p.requires_grad)
            if steps_per_epoch is not None:
                self._cost_tracker = CostTracker(parameters, steps_per_epoch)
        self._start = now(self._device)

    def evaluated(self, step: int, accuracy: Any, loss: Any = None, samples: int | None = None) -> None:
        """Report an evaluation on the new test data, at best also before the first step, as step 0.

        Args:
            step: Optimizer steps taken so far, more than at the last evaluation.
            accuracy: Share of the test data classified correctly: a number, or an array or tensor with one element.
            loss: Mean cross-entropy on the test data, in nats.
            samples: Training samples passed so far, counting repeats.

        Raises:
            SettingError: The steps do not grow or differ from the optimizer's, the samples shrink, the accuracy is not
                in [0, 1], the loss is negative, a value is no number, or the block has ended.
        """
        if self._ended:
            raise SettingError("the block of resque.record has ended: call run.evaluated inside of it")
        accuracy, loss = reported_number("accuracy", accuracy), None if loss is None else reported_number("loss", loss)
        samples = None if samples is None else whole_number("samples", samples, at_least=self._samples or 0)
        step = self._check_step(step)
        if not 0.0 <= accuracy <= 1.0:
            raise SettingError(f"accuracy {accuracy:g}: expected a share in [0, 1], e.g. 0.9 for 90 %")
        if loss is not None and loss < 0.0:
            raise SettingError(f"loss is {loss:g}; expected a mean cross-entropy, which is 0 or more")
        totals: tuple[float | None, ...] = (None, None, None)
        if self._cost_tracker is not None and self._steps_per_epoch:
            totals = self._cost_tracker.totals(within_epoch=step % self._steps_per_epoch != 0)
        self._samples = samples
        self._evaluations.append((step, accuracy, loss, self._training_s(), *totals))
        with self.evaluating():
            curve = self._curve()
            revision = None if self._reviser is None else self._reviser(curve)
            self.should_stop = None if self._stop is None else self._stop(curve, revision, None)
        if revision is not None:
            self.revisions.append(revision)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Mark a block as evaluation: its time is measured separately, and is not a cost of training."""
        if self._evaluating_since is not None:
            yield  # the block around it is marked already
            return
        self._evaluating_since = now(self._device)
        try:
            yield
        finally:
            self.evaluation_s += now(self._device) - self._evaluating_since
            self._evaluating_since = None

    def finish(
        self, forecast: Forecast | None, known: Mapping[str, Any], energy: EnergyReading, settles: bool = True
    ) -> Update:
        """Return the update that the run became, at the end of the block.

        Args:
            forecast: Forecast that was made for the run.
            known: Fields of the update that do not come from the loop.
            energy: Meter reading of the block.
            settles: Whether the run settles the forecast, as far as was known at its start.

        Raises:
            SettingError: No evaluation was reported.
        """
        self._ended = True
        if not self._evaluations:
            raise SettingError(
                "no evaluation was reported: call run.evaluated(step=…, accuracy=…) after the first step or more"
            )
        curve = self._curve()
        target = known["target_accuracy"] or curve.accuracy[-1]
        difference = "" if forecast is None else self._other_batch_size(forecast)
        if forecast is not None and difference:
            self.notes.append(_NOT_SETTLED.format(id=forecast.id, difference=difference))
        if self._step_count is not None and self._step_count > curve.steps[-1]:
            late = self._step_count - curve.steps[-1]
            self.notes.append(f"{late} steps after the last evaluation are not in the cost")
        ended = self.should_stop or BY_USER
        initial = (curve.accuracy[0], curve.loss[0]) if curve.steps[0] == 0 else (None, None)
        fields = {
            **known,
            "target_accuracy": target,
            "stopped_by": "target" if known["target_accuracy"] and curve.accuracy[-1] >= target else ended,
            "features": Features(None, *initial) if forecast is None else forecast.features.measured(*initial),
            "cost": final_cost(curve, energy_share(energy, curve.wall_s[-1]), known["grid"], self._samples),
            "forecast_id": None if forecast is None or not settles or difference else forecast.id,
        }
        update = Update(
            id=new_id(),
            started_utc=self.started_utc,
            created_utc=utc_now(),
            reached=curve.first_at(target) is not None,
            curve=curve,
            evaluation_s=self.evaluation_s,
            energy=energy,
            host=describe_host(self._device),
            revisions=tuple(self.revisions),
            **fields,
        )
        self.update = update if update.forecast_id is None else update.asked_by(forecast)
        return self.update

    def detach(self) -> None:
        """Remove the hooks of the optimizer."""
        for hook in self._hooks:
            hook.remove()

    def _check_step(self, step: Any) -> int:
        number = whole_number("step", step)
        if self._step_count is not None and number != self._step_count:
            raise SettingError(
                f"step is {number}, and the optimizer took {self._step_count}: give the steps taken so far"
            )
        last = self._evaluations[-1][0] if self._evaluations else -1
        if number <= last:
            raise SettingError(f"step is {number}; the last evaluation was at step {last}: give the steps taken so far")
        return number

    def _other_batch_size(self, forecast: Forecast) -> str:
        return other_batch_size(forecast, self._samples, self._evaluations[-1][0], self._steps_per_epoch)

    def _curve(self) -> LearningCurve:
        return build_curve(self._evaluations, self._steps_per_epoch)

    def _before_step(self, *arguments: Any) -> None:
        if self._cost_tracker is not None:
            self._cost_tracker.after_backward()

    def _after_step(self, *arguments: Any) -> None:
        self._step_count = (self._step_count or 0) + 1
        if self._cost_tracker is not None and self._steps_per_epoch and self._step_count % self._steps_per_epoch == 0:
            self._cost_tracker.end_epoch()

    def _training_s(self) -> float:
        until = now(self._device) if self._evaluating_since is None else self._evaluating_since
        return until - self._start - self.evaluation_s


@contextmanager
def record(
    ledger: Ledger | str | Path,
    forecast: Forecast | str | None = None,
    *,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    steps_per_epoch: int | None = None,
    target_accuracy: float | None = None,
    meter: EnergyMeter | None = None,
    grid: Grid | None = None,
    tariff: Tariff | None = None,
    name: str = "",
    train_data: str = "",
    test_data: str = "",
    shift_type: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    seed: int | None = 0,
    budget: Budget | None = None,
    confidence: float = CONFIDENCE,
) -> Iterator[Recording]:
    """Measure a custom training loop, and store it in the ledger as an update.

    The block is the run: its time and energy are measured, and the values reported by ``run.evaluated`` become the
    learning curve. If the block raises an error, nothing is written. If the meter fails at the end, energy is None.

    Args:
        ledger: Ledger, or its file.
        forecast: Forecast that the run settles, or its id. Model, data and target are taken from the forecast, which is
            revised at each evaluation (``run.revisions``).
        model: Model in training, to identify it by its fingerprint before and after.
        optimizer: Optimizer of the loop; with ``steps_per_epoch``, gradient norm and parameter change are measured.
        steps_per_epoch: Optimizer steps in a pass over the training data.
        target_accuracy: Accuracy to reach; None takes the accuracy of the last evaluation.
        meter: Meter of time and energy; None opens the best one available.
        grid: Electricity grid; None takes that of the forecast, or else leaves carbon unknown.
        tariff: Price of energy and time.
        name: Name of the model in the update.
        train_data: Description or specification of the training data.
        test_data: Description or specification of the test data.
        shift_type: Type of shift.
        recipe: Settings of the loop, named as in :class:`resque.Recipe`. If they, or those of the optimizer, differ
            from a forecast's, there is a warning, and the update is stored without settling the forecast.
        seed: Seed of the run; None if unknown.
        budget: Limits of the run: ``run.should_stop`` is the reason as soon as it will exceed them or, with a forecast,
            not reach its target. It is for the loop to end then.
        confidence: Confidence of that reason, see :func:`resque.forecasting.budget.stop_reason`.

    Raises:
        SettingError: An argument cannot be stored, the forecast is for another model, data or target (all before the
            block begins), or no evaluation was reported.
        LedgerError: The forecast does not exist, or is settled already; or the ledger could not be written at the end,
            and the message names the file that holds the update.
        ModelError: A weight of the model is not finite.

    Example:
        >>> import tempfile
        >>> from resque.energy.meters import ClockMeter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with record(folder + "/resque.db", meter=ClockMeter()) as run:
        ...         run.evaluated(step=0, accuracy=0.1)
        ...         run.evaluated(step=100, accuracy=0.9)  # after 100 steps of the loop
        ...     [(update.cost.steps, update.accuracy) for update in Ledger(folder + "/resque.db").updates()]
        [(100, 0.9)]
    """
    store = ledger if isinstance(ledger, Ledger) else Ledger(_path(ledger))
    _check_objects(model, meter)
    given = check_fields(
        {
            "model": name or ("" if model is None else type(model).__name__),
            "parent": "" if model is None else fingerprint(model),
            "train_data": train_data,
            "test_data": test_data,
            "shift_type": shift_type,
            "recipe": {} if recipe is None else recipe,
            "seed": seed,
            "grid": grid,
            "tariff": tariff,
        }
    )
    target = None if target_accuracy is None else check_fields({"target_accuracy": target_accuracy})["target_accuracy"]
    known = given | {"target_accuracy": target, "original_accuracy_before": None, "original_accuracy_after": None}
    store.check_writable()
    if model is not None:
        check_weights(model)
    pending, reviser, difference = _pending(store, forecast), None, ""
    if pending is not None:
        used = settings_in_use(optimizer, model) if isinstance(optimizer, torch.optim.Optimizer) else {}
        known |= _fields_of_forecast(pending, known, used)
        difference = other_recipe(pending, used, given["recipe"])
        reviser = None if difference else ForecastReviser.of_ledger(pending, store, confidence=confidence)
    limits = RunLimits.of(budget, confidence, known["tariff"], known["grid"])
    stop = None if limits is None else limits.stop_by(None if pending is None else pending.step_cost)
    if stop is not None and pending is not None:
        stop = dataclasses.replace(stop, asking=pending.asking(continued=False))
    if known["target_accuracy"] is not None:
        RetrainingJob.check_target(known["target_accuracy"])
    if pending is not None and difference:
        _warn(_NOT_SETTLED.format(id=pending.id, difference=difference))
    device, failures = _device_of_optimizer(optimizer), list[str]()
    with unfailing_window(meter or open_meter(device), device, failures, checked) as window:
        run = Recording(optimizer, steps_per_epoch, reviser, stop)
        try:
            yield run
        finally:
            run.detach()
    known["child"] = "" if model is None else fingerprint(model)
    size = 0 if model is None else sum(p.numel() for p in model.parameters())
    share = min(run.trained_parameters / size, 1.0) if size else None  # an optimizer may also train other tensors
    known["trainable_share"] = share or None
    keep_update(store, run.finish(pending, known, window.reading, not difference))
    run.notes += failures
    for note in run.notes:
        _warn(note)


def _path(ledger: Any) -> str | Path:
    if not isinstance(ledger, str | Path):
        raise SettingError(f"the ledger is a {type(ledger).__name__}; expected a resque.Ledger or the name of its file")
    return ledger


def _check_objects(model: Any, meter: Any) -> None:
    if model is not None and not isinstance(model, nn.Module):
        raise SettingError(f"the model is a {type(model).__name__}; expected the nn.Module in training")
    if meter is not None and not hasattr(meter, "window"):
        raise SettingError(f"the meter is a {type(meter).__name__}; expected one of resque.open_meter")


def _pending(store: Ledger, forecast: Any) -> Forecast | None:
    """Return the forecast that a run is to settle, as the ledger has it."""
    if not isinstance(forecast, Forecast | str | None):
        raise SettingError(f"the forecast is a {type(forecast).__name__}; expected a resque.Forecast or its id")
    return None if forecast is None else store.pending(forecast if isinstance(forecast, str) else forecast.id)


def _warn(message: str) -> None:
    warnings.warn(message, ResqueWarning, stacklevel=4)


def _device_of_optimizer(optimizer: Any) -> torch.device:
    """Return the device of an optimizer's parameters; without an optimizer the GPU, if there is one."""
    if isinstance(optimizer, torch.optim.Optimizer):
        device: torch.device = optimizer.param_groups[0]["params"][0].device
        return device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _fields_of_forecast(forecast: Forecast, given: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an update takes from its forecast; raise SettingError if other than the recipe differ."""
    lacked = {"train_data": forecast.missing_labels.train, "test_data": forecast.missing_labels.test}
    renamed = {field: given[field] for field, labels in lacked.items() if labels and given[field]}  # with their labels
    expected_fields = {field: getattr(forecast, field) for field in _FROM_FORECAST} | renamed
    for field, expected in expected_fields.items():
        value = given[field]
        # a forecast for a new task names the model before it got its head
        if value and not (field == "parent" and forecast.features.task_index is not None) and value != expected:
            raise SettingError(
                f"forecast {forecast.id} was made for {field} {expected}, not {value}: make a new forecast"
            )
    recipe = {key: value for key, value in forecast.recipe.items() if not key.startswith("evaluate_")}
    fields = expected_fields | {"model": given["model"] or forecast.model, "grid": given["grid"] or forecast.grid}
    return fields | {"recipe": {**recipe, **used, **given["recipe"]}}

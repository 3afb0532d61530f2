"""A training loop of the user's own, measured: what :func:`resque.retrain` measures, as far as the loop tells.

Nothing is trained here, and nothing is written before the block has ended well. What the loop does not tell is None.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading, energy_share
from resque.errors import ResqueWarning, SettingError
from resque.forecasting.landmarking import ForecastReviser
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import (
    BY_USER,
    Cost,
    Features,
    Forecast,
    ForecastRevision,
    LearningCurve,
    Update,
)
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.cost_tracking import CostTracker
from resque.training.environment import describe_host
from resque.training.job import RetrainingJob


class Recording:
    """A run in progress; what its loop calls. ``update`` is there after the block has ended.

    Args:
        optimizer: Its steps are counted and its parameters watched; None leaves both unknown.
        steps_per_epoch: The intervals of eq. 5; None leaves epochs, gradient norm and parameter change unknown.
        renewing: Renews the forecast that the run settles; None where there is none.

    Attributes:
        revisions: The forecast as it was renewed on the way, oldest first.

    Raises:
        SettingError: What is no optimizer, or no whole number of steps.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        steps_per_epoch: int | None = None,
        renewing: ForecastReviser | None = None,
    ) -> None:
        if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
            raise SettingError(f"optimizer is a {type(optimizer).__name__}; expected one torch.optim.Optimizer")
        if steps_per_epoch is not None and not (isinstance(steps_per_epoch, int) and steps_per_epoch > 0):
            raise SettingError(f"steps_per_epoch is {steps_per_epoch}; expected a whole number from 1 on")
        self.update: Update | None = None
        self.revisions: list[ForecastRevision] = []
        self._renewing = renewing
        self.evaluation_s = 0.0
        self._evaluating_since: float | None = None
        self._samples: int | None = None
        self._ended = False
        self.started_utc = utc_now()
        self._steps_per_epoch, self._count = steps_per_epoch, None if optimizer is None else 0
        self._rows: list[tuple[Any, ...]] = []
        self._tally: CostTracker | None = None
        self._hooks: list[Any] = []
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.trained = 0
        if optimizer is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._device = parameters[0].device
            self._hooks.append(optimizer.register_step_pre_hook(self._before_step))
            self._hooks.append(optimizer.register_step_post_hook(self._after_step))
            self.trained = sum(p.numel() for p in parameters if p.requires_grad)
            if steps_per_epoch is not None:
                self._tally = CostTracker(parameters, steps_per_epoch)
        self._start = now(self._device)

    def evaluated(self, step: int, accuracy: Any, loss: Any = None, samples: int | None = None) -> None:
        """Say what an evaluation on the new test data found; best also before the first step, as step 0.

        Args:
            step: Optimizer steps taken so far, more than at the last evaluation.
            accuracy: Share of the test data classified correctly; a number, also as an array or tensor of one.
            loss: Mean cross-entropy there, nats.
            samples: Training samples passed so far, counting repeats.

        Raises:
            SettingError: Steps that do not grow or are not those of the optimizer, an accuracy that is no share, or a
                block that has ended.
        """
        if self._ended:
            raise SettingError("the block of resque.record has ended: call run.evaluated inside of it")
        accuracy, loss = float(accuracy), None if loss is None else float(loss)
        if step != int(step) or (self._count is not None and step != self._count):
            taken = "" if self._count is None else f", and the optimizer took {self._count}"
            raise SettingError(f"evaluated(step={step}){taken}: give the optimizer steps taken so far")
        step = int(step)
        if not 0.0 <= accuracy <= 1.0:
            raise SettingError(f"accuracy {accuracy:g}: expected a share in [0, 1], e.g. 0.9 for 90 %")
        if step < 0 or (self._rows and step <= self._rows[-1][0]):
            last = f"the last evaluation was at step {self._rows[-1][0]}" if self._rows else "steps are counted from 0"
            raise SettingError(f"evaluated(step={step}): {last}; give the optimizer steps taken so far")
        totals: tuple[float | None, ...] = (None, None, None)
        if self._tally is not None and self._steps_per_epoch:
            totals = self._tally.totals(within_epoch=step % self._steps_per_epoch != 0)
        self._samples = samples
        self._rows.append((step, accuracy, loss, self._training_s(), *totals))
        with self.evaluating():
            revision = None if self._renewing is None else self._renewing(self._curve())
        if revision is not None:
            self.revisions.append(revision)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A block of evaluation: its time is told apart and is no cost of training."""
        if self._evaluating_since is not None:
            yield  # in such a block already
            return
        self._evaluating_since = now(self._device)
        try:
            yield
        finally:
            self.evaluation_s += now(self._device) - self._evaluating_since
            self._evaluating_since = None

    def end(self, said: Forecast | None, about: Mapping[str, Any], energy: EnergyReading, grid: Grid | None) -> Update:
        """The update that the run was.

        Raises:
            SettingError: No evaluation was told.
        """
        self._ended = True
        if not self._rows:
            raise SettingError(
                "no evaluation was told: call run.evaluated(step=…, accuracy=…) after the first step or more"
            )
        if self._count is not None and self._count > self._rows[-1][0]:
            warnings.warn(
                f"{self._count - self._rows[-1][0]} steps after the last evaluation are not in the cost",
                ResqueWarning,
                stacklevel=4,
            )
        curve = self._curve()
        target = about["target_accuracy"] or curve.accuracy[-1]
        reached = curve.first_at(target) is not None
        known = curve.steps[0] == 0
        features = Features(None, curve.accuracy[0] if known else None, curve.loss[0] if known else None)
        self.update = Update(
            **{
                **about,
                "id": new_id(),
                "started_utc": self.started_utc,
                "created_utc": utc_now(),
                "target_accuracy": target,
                "reached": reached,
                "stopped_by": "target" if curve.accuracy[-1] >= target and about["target_accuracy"] else BY_USER,
                "features": features if said is None else said.features,
                "curve": curve,
                "cost": _cost(curve, self._samples, energy, grid),
                "evaluation_s": self.evaluation_s,
                "energy": energy,
                "grid": grid,
                "forecast_id": None if said is None else said.id,
                "host": describe_host(self._device),
                "revisions": tuple(self.revisions),
            }
        )
        return self.update

    def _curve(self) -> LearningCurve:
        names = "steps", "accuracy", "loss", "wall_s", "gradient_norm", "gradient_norm_last_batch", "parameter_change"
        columns: dict[str, Any] = dict(zip(names, zip(*self._rows, strict=True), strict=True))
        return LearningCurve(**columns, steps_per_epoch=self._steps_per_epoch)

    def close(self) -> None:
        """Let go of the optimizer."""
        for hook in self._hooks:
            hook.remove()

    def _before_step(self, *given: Any) -> None:
        if self._tally is not None:
            self._tally.after_backward()

    def _after_step(self, *given: Any) -> None:
        self._count = (self._count or 0) + 1
        if self._tally is not None and self._steps_per_epoch and self._count % self._steps_per_epoch == 0:
            self._tally.end_epoch()

    def _training_s(self) -> float:
        until = now(self._device) if self._evaluating_since is None else self._evaluating_since
        return until - self._start - self.evaluation_s


@contextmanager
def record(
    ledger: Ledger | str | Path,
    forecast: str | None = None,
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
    seed: int = 0,
) -> Iterator[Recording]:
    """Measure a training loop of one's own, and keep it in the ledger.

    The block is the run: its time and energy are measured, and what ``run.evaluated`` is told becomes the
    learning curve. If the block raises, nothing is written.

    Args:
        ledger: The history, or its file.
        forecast: Id of the forecast that this run settles; what it was made for is taken from there, and it is renewed
            as the run goes on (``run.revisions``).
        model: To be known again by its fingerprint, before and after.
        optimizer: With ``steps_per_epoch``, for gradient norm and parameter change.
        steps_per_epoch: Optimizer steps in a pass over the training data.
        target_accuracy: What was to be reached; None takes the accuracy of the last evaluation.
        meter: None opens the best one there is.
        grid: The electricity it runs on; None takes that of the forecast, and without one carbon is None.
        tariff: What it is paid by.
        name: Of the model, for the record.
        train_data: What it was trained on, in words or as a specification.
        test_data: What it was tested on.
        shift_type: Kind of shift.
        recipe: Its settings, in the words of :class:`resque.Recipe`; of a forecast, those that are named must agree.
        seed: Of the run.

    Raises:
        SettingError: No evaluation was told, or a forecast of another model or target.
        LedgerError: No such forecast, or it is settled already.

    Example:
        >>> import tempfile
        >>> from resque.energy.meters import ClockMeter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with record(folder + "/resque.db", meter=ClockMeter()) as run:
        ...         run.evaluated(step=0, accuracy=0.1)
        ...         run.evaluated(step=100, accuracy=0.9)  # after a hundred steps of one's own
        ...     [(update.cost.steps, update.accuracy) for update in Ledger(folder + "/resque.db").updates()]
        [(100, 0.9)]
    """
    history = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    history.check_writable()
    said = None if forecast is None else history.pending(forecast)
    about: dict[str, Any] = {
        "model": name or ("" if model is None else type(model).__name__),
        "parent": "" if model is None else fingerprint(model),
        "train_data": train_data,
        "test_data": test_data,
        "shift_type": shift_type,
        "recipe": dict(recipe or {}),
        "seed": seed,
        "target_accuracy": target_accuracy,
        "original_accuracy_before": None,
        "original_accuracy_after": None,
        "tariff": tariff,
    }
    if said is not None:
        about |= _as_forecast(said, about)
        grid = grid or said.grid
    if about["target_accuracy"] is not None:
        RetrainingJob.check_target(about["target_accuracy"])
    renewing = None if said is None else ForecastReviser.of_forecast(said, history.updates())
    with (meter or open_meter()).window() as window:
        run = Recording(optimizer, steps_per_epoch, renewing)
        try:
            yield run
        finally:
            run.close()
    about["child"] = "" if model is None else fingerprint(model)
    whole = 0 if model is None else sum(p.numel() for p in model.parameters())
    about["trainable_share"] = run.trained / whole if whole and run.trained else None
    history.add(run.end(said, about, window.reading, grid))


def _as_forecast(said: Forecast, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the forecast was made for; anything else that was named is refused."""
    names = "parent", "train_data", "test_data", "shift_type", "target_accuracy"
    for what in names:
        mine, theirs = about[what], getattr(said, what)
        if what == "parent" and said.features.task_index is not None:
            continue  # the forecast is of the model before it got its head
        if mine and mine != theirs:
            raise SettingError(f"forecast {said.id} was made for {what} {theirs}, not {mine}: make a new forecast")
    for setting, mine in about["recipe"].items():
        if setting in said.recipe and said.recipe[setting] != mine:
            theirs = said.recipe[setting]
            raise SettingError(f"forecast {said.id} was made for {setting} {theirs}, not {mine}: make a new forecast")
    ours = {setting: value for setting, value in said.recipe.items() if not setting.startswith("evaluate_")}
    return {"model": about["model"] or said.model, "recipe": ours | about["recipe"]} | {
        what: getattr(said, what) for what in names
    }


def _cost(curve: LearningCurve, samples: int | None, energy: EnergyReading, grid: Grid | None) -> Cost:
    steps, wall_s, per_epoch = curve.steps[-1], curve.wall_s[-1], curve.steps_per_epoch
    energy_kwh = energy_share(energy, wall_s)
    return Cost(
        epochs=None if per_epoch is None else steps / per_epoch,
        steps=steps,
        samples=samples,
        gradient_norm=curve.gradient_norm[-1],
        gradient_norm_last_batch=curve.gradient_norm_last_batch[-1],
        parameter_change=curve.parameter_change[-1],
        wall_s=wall_s,
        energy_kwh=energy_kwh,
        carbon_kg=grid.carbon_kg(energy_kwh) if grid else None,
    )

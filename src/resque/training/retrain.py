"""Measured retraining: train to a target accuracy, and return every cost with the learning curve."""

import copy
import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resque._processes import current_processes
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading, energy_share, join_readings
from resque.errors import SettingError
from resque.ledger.identifiers import utc_now
from resque.ledger.records import Features, LearningCurve, StepCost, Update
from resque.models.inference import device_of, eval_mode, forward
from resque.models.randomness import isolated_random_state
from resque.models.weights import check_weights, fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.cost_tracking import final_cost
from resque.training.environment import describe_host
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.probe import probe, warm_up
from resque.training.recipe import recipe_to_dict
from resque.training.reestimation import open_trainer
from resque.training.run import ReviseForecast, Run, RunProgress, RunSettings, StopRun, run_to_end

__all__ = ["retrain"]


def retrain(
    model: nn.Module,
    job: RetrainingJob,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    features: Features | None = None,
    step_cost: StepCost | None = None,
    model_name: str = "",
    forecast_id: str | None = None,
    checkpoint: Checkpoint | None = None,
    tariff: Tariff | None = None,
    on_progress: Callable[[RunProgress], None] | None = None,
    revise: ReviseForecast | None = None,
    stop: StopRun | None = None,
) -> Update:
    """Retrain a model until it reaches its target accuracy, and measure the cost.

    The model is evaluated before the first step, then every ``recipe.evaluate_every`` steps, and after each epoch. The
    run ends at the first evaluation at or above the target, by the paper's tolerance rules at the end of an epoch, with
    the last epoch, or when a limit is used up. With a fixed number of epochs, accuracy does not end it. The cost
    covers the training steps alone, and with them the pass of a head that is trained alone: it belongs to the first.

    Under torchrun all processes of the command train together, and each gets the update that the first one measured.

    Args:
        model: Model to retrain, in place.
        job: Data, target accuracy and recipe.
        meter: Meter of time and energy. The energy of the run is shared between training and evaluation by time.
        grid: Electricity grid; None leaves carbon unknown.
        features: Features known before the update; None takes accuracy and loss before the first step.
        step_cost: Probed cost of a step, for the energy of a run too short for the meter; None probes if needed.
        model_name: Name of the model in the update; empty takes the name of its class.
        forecast_id: Id of the forecast that the update settles.
        checkpoint: Settings of checkpoints; None writes none. The file stays after the run, until
            :meth:`resque.training.checkpoint.Checkpoint.remove` is called.
        tariff: Price of energy and time.
        on_progress: Callback after each evaluation.
        revise: In-run forecast update, see :class:`resque.forecasting.landmarking.ForecastReviser`; called after each
            evaluation, and timed as a part of it.
        stop: Budget of the run, see :class:`resque.forecasting.early_stopping.BudgetStop`.

    Returns:
        The update, complete whether or not the target was reached.

    Raises:
        DataError: There are fewer samples than classes, a label is not an output of the model, or an equal run with
            checkpoints in the same folder is going on.
        ModelError: The model does not accept the data, or a weight is not finite.
        SettingError: The recipe has a budget in kWh, and the meter does not measure energy.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.energy.meters import ClockMeter
        >>> from resque.models.networks import small_cnn
        >>> from resque.training.recipe import RECIPES
        >>> digits = load_data("digits@16px")
        >>> job = RetrainingJob(digits.part("train"), digits.part("test"), 0.5, RECIPES["train-adam"])
        >>> update = retrain(small_cnn(), job, meter=ClockMeter())
        >>> update.reached, update.cost.steps > 0, update.cost.energy_kwh is None
        (True, True, True)
    """
    check_weights(model)
    check_data_fits_model(model, job.train)
    check_data_fits_model(model, job.test)
    if job.recipe.replay and job.replayed is not None:
        check_data_fits_model(model, job.replayed)
    parent, accuracy_before = job.parent or fingerprint(model), job.original_accuracy
    if accuracy_before is None:
        accuracy_before = _original_accuracy(model, job)
    with nullcontext() if checkpoint is None else checkpoint.hold(parent, job):
        step_cost = _step_cost_for_budget(model, job, meter, step_cost)
        settings = RunSettings(meter, step_cost, checkpoint, on_progress, revise, stop)
        run, trainable_share, operations = _train(model, job, parent, settings)
    curve, reading, processes = run.curve, join_readings(run.readings), current_processes()
    initial = curve.accuracy[0], curve.loss[0]
    measurable = reading.methods and "unknown" not in reading.methods.values() and processes.count == 1
    if reading.energy_kwh is None and measurable and curve.steps[-1] and step_cost is None:
        try:
            step_cost = probe(model, job.trained_on, job.recipe, meter)  # a step costs the same with other weights
        except Exception as error:  # the run is worth more than its energy
            reason = " ".join(str(error).split())[:100]
            reading = dataclasses.replace(reading, note=f"{reading.note}; no probe: {reason}")
    reading, energy_kwh = _training_energy(reading, curve, step_cost)
    samples = job.samples_after(curve.steps[-1])
    flops = operations.of_run(samples, len(job.trained_on)) or None
    update = Update(
        id=run.id,
        started_utc=run.started_utc,
        created_utc=utc_now(),
        model=model_name or type(model).__name__,
        parent=parent,
        child=fingerprint(model),
        train_data=job.train.name,
        test_data=job.test.name,
        shift_type=job.effective_shift_type,
        recipe=recipe_to_dict(job.recipe),
        seed=job.seed,
        target_accuracy=job.target_accuracy,
        reached=curve.first_at(job.target_accuracy) is not None,
        stopped_by=run.stopped_by or "",
        features=(features or Features(None, *initial)).measured(*initial),
        curve=curve,
        cost=final_cost(curve, energy_kwh, grid, samples, flops),
        evaluation_s=run.evaluation_s,
        energy=reading,
        grid=grid,
        original_accuracy_before=accuracy_before,
        original_accuracy_after=_original_accuracy(model, job),
        forecast_id=forecast_id,
        host=describe_host(device_of(model)),
        trainable_share=trainable_share,
        resumed=run.resumed,
        tariff=tariff,
        from_scratch=job.from_scratch,
        digest=job.digest,
        replay_data=job.replay_data,
        revisions=tuple(run.revisions),
        pilot_steps=run.pilot_steps,
        processes=processes.count,
    )
    return processes.first(lambda: update)


def _step_cost_for_budget(
    model: nn.Module, job: RetrainingJob, meter: EnergyMeter, step_cost: StepCost | None
) -> StepCost | None:
    """Return the cost of a step, probed if a budget in kWh needs it; raise SettingError if its energy is unknown."""
    if job.recipe.max_kwh is None:
        return step_cost
    step_cost = step_cost or probe(model, job.trained_on, job.recipe, meter)
    if step_cost.energy_kwh is None:
        raise SettingError(
            "a budget in kWh needs a meter that measures energy: install resque[energy], or use max_hours"
        )
    return step_cost


@dataclass(frozen=True)
class _Operations:
    """Floating point operations per sample: of a step, and of the pass before the first one."""

    per_sample: float
    per_passed_sample: float

    def of_run(self, samples: int, passed: int) -> float:
        """Return the operations of a run of so many samples; without a step, there was no pass."""
        return self.per_sample * samples + (self.per_passed_sample * passed if samples else 0.0)


def _train(model: nn.Module, job: RetrainingJob, parent: str, settings: RunSettings) -> tuple[Run, float, _Operations]:
    """Train to the end; return the run, the trainable share, and the floating point operations per sample."""
    with isolated_random_state(device_of(model)):
        operations = _operations(copy.deepcopy(model), job)
    with isolated_random_state(device_of(model), job.seed):
        trainer = open_trainer(model, job.trained_on, job.recipe, job.seed, len(job.train))
        try:
            run = Run(model, trainer, job, settings)
            run_to_end(run, settings, settings.checkpoint.path(parent, job) if settings.checkpoint else None)
        finally:
            trainer.end()
    model.eval()
    return run, trainer.trainable_share, operations


def _operations(model: nn.Module, job: RetrainingJob) -> _Operations:
    """Take the first steps on a copy of the model, and return the floating point operations."""
    trainer, few, passed = *warm_up(model, job), 0.0
    if trainer.passes_once:
        with eval_mode(model), FlopCounterMode(display=False) as counter:
            forward(model, next(few.batches(job.recipe.batch_size, device_of(model)))[0])
        passed = counter.get_total_flops() / min(job.recipe.batch_size, len(few))
    with FlopCounterMode(display=False) as counter:
        n = trainer.rehearse()
    return _Operations(counter.get_total_flops() / n, passed)


def _training_energy(
    reading: EnergyReading, curve: LearningCurve, step_cost: StepCost | None
) -> tuple[EnergyReading, float | None]:
    """Return the energy of the training steps in kWh, and the reading with a note if a probe stands in for it."""
    steps, energy_kwh = curve.steps[-1], energy_share(reading, curve.wall_s[-1])
    if energy_kwh is not None:
        return reading, energy_kwh
    if step_cost is not None and (energy_kwh := step_cost.energy_after(steps)) is not None:
        note = f"{reading.note}: {steps} steps × probed energy"
        return dataclasses.replace(reading, note=note), energy_kwh
    return reading, 0.0 if reading.methods and steps == 0 else None


def _original_accuracy(model: nn.Module, job: RetrainingJob) -> float | None:
    return None if job.original_test is None else evaluate_dataset(model, job.original_test, current_processes())[0]

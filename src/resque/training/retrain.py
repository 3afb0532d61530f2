"""A measured update: recipe + stop rule + meter → the cost of reaching a target, with its learning curve."""

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading, energy_share, join_readings
from resque.errors import SettingError
from resque.ledger.identifiers import utc_now
from resque.ledger.records import Cost, Features, LearningCurve, StepCost, Update
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.environment import describe_host
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.probe import WARM_UP_STEPS, probe
from resque.training.recipe import recipe_to_dict
from resque.training.run import ReviseForecast, Run, RunProgress, run_to_end
from resque.training.trainer import Trainer


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
) -> Update:
    """Retrain a model until it reaches its target, and measure what that takes.

    The test accuracy is looked at before the first step and then every ``recipe.evaluate_every`` steps (or
    after each epoch); the run ends at the first look at or above the target, or by the paper's tolerance
    rule at the end of an epoch, or with the last epoch, or when a budget is used up. With a fixed number of epochs
    it goes on whatever it sees. Costs are of the training steps alone.

    Args:
        model: Trained in place.
        job: What is to be done.
        meter: Measures the run; its energy is shared between training and evaluation by time.
        grid: The electricity it runs on; without it carbon is None.
        features: What was known beforehand; None evaluates accuracy and loss alone.
        step_cost: Probed cost of a step, for the energy of a run too short for the meter; None probes then.
        model_name: For the record.
        forecast_id: The forecast that this run settles.
        checkpoint: Where the run leaves what it takes to go on after an interruption; None leaves nothing. The file
            stays after the run, until :meth:`resque.training.checkpoint.Checkpoint.remove` says that the update has
            been kept.
        tariff: What it is paid by.
        on_progress: Called after each evaluation.
        revise: Renews the forecast by the curve so far, see :class:`resque.forecasting.landmarking.ForecastReviser`;
            asked after each evaluation, as a part of it.

    Returns:
        The update, complete whether or not it reached its target.

    Raises:
        DataError: Fewer samples than classes, or labels that are no outputs of the model.
        ModelError: The model does not take the data.
        SettingError: A budget in kWh, and no meter that knows energy.

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
    check_data_fits_model(model, job.train)
    check_data_fits_model(model, job.test)
    parent, before = job.parent or fingerprint(model), _original_accuracy(model, job)
    if job.recipe.max_kwh is not None and step_cost is None:
        step_cost = probe(model, job.train, job.recipe, meter)
    if job.recipe.max_kwh is not None and (step_cost is None or step_cost.energy_kwh is None):
        raise SettingError("a budget in kWh needs a meter that knows energy: install resque[energy], or use max_hours")
    with torch.random.fork_rng():
        flops_per_step = _warm_up(copy.deepcopy(model), job)
        torch.manual_seed(job.seed)
        trainer = Trainer(model, job.train, job.recipe, job.seed)
        try:
            run = Run(model, trainer, job, step_cost, on_progress, revise)
            run_to_end(run, meter, None if checkpoint is None else checkpoint.path(parent, job), checkpoint)
        finally:
            trainer.end()
    model.eval()
    curve, energy = run.curve, join_readings(run.readings)
    if energy.energy_kwh is None and energy.methods and curve.steps[-1] and step_cost is None:
        step_cost = probe(model, job.train, job.recipe, meter)  # a step costs the same with other weights
    energy = _short_run_energy(energy, curve, step_cost)
    return Update(
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
        features=features or Features(None, curve.accuracy[0], curve.loss[0]),
        curve=curve,
        cost=_cost(curve, job, energy, step_cost, grid, flops_per_step),
        evaluation_s=run.evaluation_s,
        energy=energy,
        grid=grid,
        original_accuracy_before=before,
        original_accuracy_after=_original_accuracy(model, job),
        forecast_id=forecast_id,
        host=describe_host(device_of(model)),
        trainable_share=trainer.tuning.share,
        resumed=run.resumed,
        tariff=tariff,
        from_scratch=job.from_scratch,
        digest=job.digest,
        revisions=tuple(run.revisions),
    )


def _warm_up(model: nn.Module, job: RetrainingJob) -> float:
    """Steps on a throw-away copy: what only the first ones in a process pay for is no cost of the update.

    Returns:
        Floating point operations of one step, forward and backward.
    """
    recipe = dataclasses.replace(job.recipe, compile=False)  # compiling is paid for by the update that wants it
    trainer = Trainer(model, job.train, recipe, job.seed)
    for _ in range(WARM_UP_STEPS):
        trainer.step()
    batch = next(job.train.batches(recipe.batch_size, device_of(model)))
    with FlopCounterMode(display=False) as counter:
        trainer.forward_and_backward(*batch)
    return float(counter.get_total_flops())


def _short_run_energy(reading: EnergyReading, curve: LearningCurve, step_cost: StepCost | None) -> EnergyReading:
    """Say how the energy of a run below the meter's shortest window is known."""
    if reading.energy_kwh is not None or step_cost is None or step_cost.energy_kwh is None:
        return reading
    note = f"{reading.note}: {curve.steps[-1]} steps × probed energy"
    return dataclasses.replace(reading, note=note)


def _cost(
    curve: LearningCurve,
    job: RetrainingJob,
    energy: EnergyReading,
    step_cost: StepCost | None,
    grid: Grid | None,
    flops_per_step: float,
) -> Cost:
    steps, wall_s = curve.steps[-1], curve.wall_s[-1]
    energy_kwh = energy_share(energy, wall_s)
    if energy_kwh is None and energy.methods and steps == 0:
        energy_kwh = 0.0
    if energy_kwh is None and step_cost is not None and step_cost.energy_kwh is not None:
        energy_kwh = steps * step_cost.energy_kwh
    whole, rest = divmod(steps, job.steps_per_epoch)
    samples = whole * job.samples_per_epoch + rest * job.recipe.batch_size
    return Cost(
        epochs=steps / job.steps_per_epoch,
        steps=steps,
        samples=samples,
        gradient_norm=curve.gradient_norm[-1],
        gradient_norm_last_batch=curve.gradient_norm_last_batch[-1],
        parameter_change=curve.parameter_change[-1],
        wall_s=wall_s,
        energy_kwh=energy_kwh,
        carbon_kg=grid.carbon_kg(energy_kwh) if grid else None,
        flops=flops_per_step / min(job.recipe.batch_size, len(job.train)) * samples if flops_per_step else None,
    )


def _original_accuracy(model: nn.Module, job: RetrainingJob) -> float | None:
    if job.original_test is None:
        return None
    return evaluate_dataset(model, job.original_test)[0]

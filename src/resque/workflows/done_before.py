"""Ways of a comparison that were done before: the update that measured one, as a forecast that has come true."""

from resque.energy.reading import EnergyReading
from resque.ledger.components import COSTS, Estimate, Pilot, StepCost
from resque.ledger.records import Cost, Forecast, Update
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.training.recipe import Recipe, recipe_to_dict
from resque.types import Interval

__all__ = ["done_before", "outcome_in_words", "what_it_showed"]

_NEW_HEADS = NEW_TASK, EXTENSION


def done_before(history: Ledger, parent: str, job: RetrainingJob) -> Update | None:
    """Return the update that did a job before, whatever its seed and target, and shows whether the target is reached.

    The contents of model and data are compared, not their names. Of several updates, one of the same seed comes first,
    then the newest.

    Args:
        history: Ledger; void entries do not count.
        parent: Fingerprint of the model.
        job: The job.
    """
    updates = (each for each in history.updates(parent=parent) if _is_same(each, job))
    telling = [each for each in updates if each.reaches(job.target_accuracy) is not None]
    return max(telling, key=lambda each: (each.seed == job.seed, each.created_utc), default=None)


def _is_same(update: Update, job: RetrainingJob) -> bool:
    """Return whether an update trained the same parts on the same data by the same recipe."""
    kinds = update.shift_type, job.effective_shift_type
    recipe = {**recipe_to_dict(Recipe()), **update.recipe}  # of an earlier version: fewer settings
    is_alike = update.digest == job.digest and recipe == recipe_to_dict(job.recipe)
    return is_alike and (kinds[0] == kinds[1] or not {*kinds} & {*_NEW_HEADS})


def what_it_showed(
    update: Update, job: RetrainingJob, level: float, original_accuracy: float | None = None
) -> Forecast:
    """Return an update as the forecast of doing the same again: every cost is what was measured.

    Args:
        update: Result of :func:`done_before`.
        job: The job; the costs are those until its target.
        level: Nominal coverage of the intervals.
        original_accuracy: Accuracy on the original test data before the job; by it, those of the update are the same
            ones.
    """
    reached = bool(update.reaches(job.target_accuracy))
    cost = _cost(update, job)
    guarantee = f"measured: update {update.id}"

    def exactly(value: float) -> Estimate:
        return Estimate(value, Interval(value, value, level, guarantee), value)

    curve, share = update.curve.until(cost.steps), cost.wall_s / update.cost.wall_s if update.cost.wall_s else 1.0
    whole_kwh, before = update.whole_energy_kwh, update.original_accuracy_before
    is_kept = cost.steps == update.cost.steps and before is not None and before == original_accuracy
    energy_kwh = None if whole_kwh is None else share * whole_kwh
    reading = EnergyReading(share * update.energy.wall_s, energy_kwh, {}, {}, update.energy.meter)
    asked = (0.0, 0.0) if update.asked is None else (update.asked.wall_s, update.asked.energy_kwh)
    steps = max(cost.steps, 1)
    step_kwh = cost.energy_kwh / steps if cost.wall_s and cost.energy_kwh is not None else None
    return Forecast(
        id=update.id,
        created_utc=update.created_utc,
        model=update.model,
        parent=update.parent,
        train_data=job.train.name,
        test_data=job.test.name,
        shift_type=update.shift_type,
        recipe=recipe_to_dict(job.recipe),
        target_accuracy=job.target_accuracy,
        features=update.features,
        predictor="",
        estimates={name: exactly(value) for name in COSTS if (value := getattr(cost, name)) is not None},
        probability_reached=float(reached),
        n_history=0,
        shift_types_history=(),
        max_steps=job.max_steps,
        step_cost=StepCost(cost.wall_s / steps, step_kwh, cost.steps, reading),
        overhead=EnergyReading(*asked, {}, {}, update.energy.meter),
        grid=update.grid,
        level=level,
        pilot=Pilot(
            steps=cost.steps,
            seed=job.seed if update.seed is None else update.seed,
            identity="",
            curve=curve,
            reading=reading,
            evaluation_s=share * (update.evaluation_s or 0.0),
            stopped_by="target" if reached else update.stopped_by,
            original_accuracy=update.original_accuracy_after if is_kept else None,
            trainable_share=update.trainable_share,
        ),
        best_accuracy=exactly(max(curve.accuracy)),
        from_scratch=job.from_scratch,
    )


def outcome_in_words(update: Update, job: RetrainingJob) -> str:
    """Return what came of an update, for the row of its way."""
    target, again = job.target_accuracy, "`resque ledger void` asks anew"
    if update.reaches(target):
        return f"done already: {again}"  # one line for several ways; the table of details has their ids
    return (
        f"tried already, as update {update.id}: it ended at {update.accuracy:.3f}, below {target:g}, stopped by "
        f"{update.stopped_by}; {again}"
    )


def _cost(update: Update, job: RetrainingJob) -> Cost:
    """Return the cost until the target; the whole cost where it is not reached, or does not end the run."""
    reached = None if job.recipe.fixed_epochs is not None else update.cost_at(job.target_accuracy)
    return reached or update.cost

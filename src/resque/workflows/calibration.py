"""A history from day one: short retrainings on synthetic shifts of the user's own data, chosen to span the index.

:func:`plan` looks at every kind and level of shift with passes alone, chooses, and says what the retrainings cost at
most. :func:`run` does them, each from the same model, each in the ledger the moment it ends; killed and run again it
goes on. What such a history cannot know is how far the user's next real shift is from all synthetic ones.
"""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from resque.data.dataset import LabeledDataset
from resque.data.shifts import parse_shift
from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading
from resque.errors import ModelError, SettingError, TooFewUpdatesError
from resque.forecasting.forecaster import predict_cost
from resque.forecasting.history import ForecastQuery, starts_at_target
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.forecasting.selection import choose_predictors
from resque.indices.profile import Profile
from resque.indices.shift_features import shift_features
from resque.ledger.records import Features, StepCost, Update
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.job import RetrainingJob, evaluation_steps, is_update_of, steps_per_epoch
from resque.training.probe import forecast_overhead, probe
from resque.training.recipe import Recipe
from resque.training.retrain import retrain
from resque.training.run import RunProgress
from resque.training.stopping import MAX_EPOCHS
from resque.workflows.shift_selection import Candidate, Watch, all_shifts, candidates, select_spread

UPDATES = 12
SHORT_EPOCHS, SHORT_STEPS = 20, 1000
FEWEST_KINDS = 3
_LOSS = 0.03
_LOOKS_PER_EPOCH, _GROWTH = 10, 0.2
_OF_ORIGINAL = 2  # evaluations that say what was forgotten


@dataclass(frozen=True, eq=False)
class CalibrationRequest:
    """What is to be calibrated.

    Attributes:
        train: Data like those that the model was trained on, to be shifted and trained on.
        test: The same held out, to be shifted and tested on.
        original: Profile of the data that the model was trained on.
        target_accuracy: To be reached on the shifted test data.
        recipe: How to retrain, see :func:`short`.
        updates: How many retrainings.
        seed: Of the order of the training samples.
        model_name: For the record.
    """

    train: LabeledDataset
    test: LabeledDataset
    original: Profile
    target_accuracy: float
    recipe: Recipe
    updates: int = UPDATES
    seed: int = 0
    model_name: str = ""

    def job(self, shift: str) -> RetrainingJob:
        """The retraining for one shift, e.g. ``"gaussian:5"``."""
        change = parse_shift(shift)
        train, test = self.train.shifted(change), self.test.shifted(change)
        return RetrainingJob(train, test, self.target_accuracy, self.recipe, self.seed, self.test, change.shift_type)


@dataclass(frozen=True)
class PlannedRun:
    """One retraining of the plan.

    Attributes:
        shift: Kind and level, ``"gaussian:5"``.
        features: What passes over all of the data said.
        done: Id of the update in the ledger that is this very retraining; None where it is still to be done.
        expected_steps: By the updates of this model that the ledger holds; None where they are too few.
        max_steps: Of its longest run.
    """

    shift: str
    features: Features
    done: str | None
    expected_steps: float | None
    max_steps: int


@dataclass(frozen=True)
class CalibrationCost:
    """What retrainings take: the steps, and the looks at the test data that decide when to end.

    Attributes:
        runs: How many.
        steps: Optimizer steps, all together.
        training_s: At the probed seconds per step.
        evaluation_s: At the seconds of a pass over the clean test data.
        energy_kwh: Of both, at the probe's power; None where the meter knows none.
        carbon_kg: None without a grid.
    """

    runs: int
    steps: int
    training_s: float
    evaluation_s: float
    energy_kwh: float | None
    carbon_kg: float | None

    @property
    def wall_s(self) -> float:
        """Seconds in all."""
        return self.training_s + self.evaluation_s


@dataclass(frozen=True)
class CalibrationPlan:
    """What a calibration would do, and what that costs, before anything is trained.

    Attributes:
        request: The request that the plan answers.
        clean_accuracy: Of the model on the clean test data.
        shifts: How many shifts were looked at.
        candidates: Those that begin below the target.
        runs: The retrainings, in the order in which they are done.
        step_cost: The probe of this machine.
        at_most: What is left to be done, if no run ends before its last step.
        typical: The same by updates of this model in the ledger; None where they are too few.
        overhead: What making the plan took.
    """

    request: CalibrationRequest
    clean_accuracy: float
    shifts: int
    candidates: tuple[Candidate, ...]
    runs: tuple[PlannedRun, ...]
    step_cost: StepCost
    at_most: CalibrationCost
    typical: CalibrationCost | None
    overhead: EnergyReading


def split_for_calibration(
    data: LabeledDataset, test: LabeledDataset | None = None
) -> tuple[LabeledDataset, LabeledDataset, LabeledDataset]:
    """``(original, train, test)``: the paper's overlapping halves of what is not held out.

    Args:
        data: Data like those that the model was trained on.
        test: Data held out; None holds 30 % out.

    Example:
        >>> from resque.data.loading import load_data
        >>> [part.name for part in split_for_calibration(load_data("digits"))]
        ['digits@train@original', 'digits@train@shifted', 'digits@test']
    """
    rest = data.part("train") if test is None else data
    return rest.part("original"), rest.part("shifted"), data.part("test") if test is None else test


def shorten_recipe(recipe: Recipe, samples: int, max_epochs: int | None = None) -> Recipe:
    """A recipe for a history: short runs, looked at often enough to tell mild shifts apart.

    Changed is only what the recipe leaves at its default: 20 epochs at most, or 1,000 steps where those are more; looks
    every tenth of an epoch, and a fifth of the steps so far apart. Costs stay comparable with those of longer runs.

    Args:
        recipe: The user's.
        samples: Of the training data.
        max_epochs: Goes before both.

    Example:
        >>> found = shorten_recipe(Recipe(batch_size=32), samples=640)
        >>> found.max_epochs, found.evaluate_every, found.evaluate_growth
        (50, 2, 0.2)
    """
    per_epoch = steps_per_epoch(samples, recipe.batch_size)
    if max_epochs is None and recipe.max_epochs == MAX_EPOCHS:
        max_epochs = min(MAX_EPOCHS, max(SHORT_EPOCHS, -(-SHORT_STEPS // per_epoch)))
    recipe = dataclasses.replace(recipe, max_epochs=recipe.max_epochs if max_epochs is None else max_epochs)
    if recipe.evaluate_every is None and not recipe.evaluate_growth:
        every = max(1, per_epoch // _LOOKS_PER_EPOCH)
        recipe = dataclasses.replace(recipe, evaluate_every=every, evaluate_growth=_GROWTH)
    return recipe


def default_target(clean_accuracy: float) -> float:
    """3 % below the clean accuracy: near the top, because a curve that gets there answers for every lower target.

    Example:
        >>> default_target(0.985)
        0.955
    """
    return math.floor(1000.0 * (1.0 - _LOSS) * clean_accuracy) / 1000.0


def plan_calibration(
    model: nn.Module,
    asked: CalibrationRequest,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    history: Sequence[Update] = (),
    on_progress: Watch = lambda done, total, detail: None,
) -> CalibrationPlan:
    """Look at every shift, choose, and say what the retrainings cost.

    Args:
        model: As it is now; left as it was found.
        asked: What is to be calibrated.
        meter: Measures the probe.
        grid: The electricity that it is priced with; without it there is no carbon figure.
        history: Updates in the ledger: what is among them is not done again, and they say what is typical.
        on_progress: Called with ``(done, all, detail)``.

    Raises:
        DataError: The data hold no images, or images outside [0, 1].
        ModelError: The model knows nothing of the data.
        SettingError: Fewer updates than a forecast needs, or too few shifts begin below the target.
    """
    start = now(device_of(model))
    _check(model, asked)
    began = now(device_of(model))
    clean, _ = evaluate_dataset(model, asked.test)
    look_s = now(device_of(model)) - began
    _check_knows(clean, asked)
    found = candidates(model, asked.train, asked.test, asked.original, asked.target_accuracy, on_progress)
    runs = _chosen(model, asked, found, history, on_progress)
    passes_s = now(device_of(model)) - start
    first = asked.job(runs[0].shift)
    step_cost = probe(model, first.train, asked.recipe, meter)
    left = [run_calibration for run_calibration in runs if run_calibration.done is None]
    typical = [run_calibration.expected_steps for run_calibration in left if run_calibration.expected_steps is not None]

    def bill(steps: Sequence[float]) -> CalibrationCost:
        count = sum(_evaluations(each, first) for each in steps)
        return _bill(steps, count * look_s, step_cost, grid)

    return CalibrationPlan(
        asked,
        clean,
        len(all_shifts(asked.train)),
        tuple(found),
        runs,
        step_cost,
        at_most=bill([run_calibration.max_steps for run_calibration in left]),
        typical=bill(typical) if len(typical) == len(left) else None,
        overhead=forecast_overhead(passes_s, step_cost),
    )


def _evaluations(steps: float, job: RetrainingJob) -> int:
    return len(list(evaluation_steps(steps, job.steps_per_epoch, job.recipe))) + _OF_ORIGINAL


def run_calibration(
    model: nn.Module,
    planned: CalibrationPlan,
    ledger: Ledger,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    checkpoint: Checkpoint | None = None,
    on_progress: Watch = lambda done, total, detail: None,
) -> tuple[Update, ...]:
    """Do the retrainings of a plan, each from the same model and into the ledger as soon as it has ended.

    Args:
        model: Left as it was found; every run has a copy.
        planned: What :func:`plan` gave.
        ledger: What it holds of the plan is not done again.
        meter: Measures every run.
        grid: The electricity it runs on.
        checkpoint: Where an interrupted run goes on from; None begins such a one anew.
        on_progress: Called with ``(done, all, detail)``.

    Returns:
        The plan's updates in its order, those that were done before among them.
    """
    parent, found = fingerprint(model), []
    for number, each in enumerate(planned.runs):

        def show(at: RunProgress, number: int = number, shift: str = each.shift) -> None:
            on_progress(number, len(planned.runs), f"{shift}, step {at.step:,}, accuracy {at.accuracy:.3f}")

        job = planned.request.job(each.shift)
        update = _already(ledger.updates(), parent, job)
        if update is None:
            update = retrain(
                copy.deepcopy(model),
                job,
                meter=meter,
                grid=grid,
                features=each.features,
                step_cost=planned.step_cost,
                model_name=planned.request.model_name,
                checkpoint=checkpoint,
                on_progress=show,
            )
            ledger.add(update)
        if checkpoint is not None:
            checkpoint.remove(parent, job)
        found.append(update)
    return tuple(found)


def _check(model: nn.Module, asked: CalibrationRequest) -> None:
    if asked.updates < FEWEST_UPDATES:
        raise SettingError(f"{asked.updates} updates: a forecast needs {FEWEST_UPDATES}; ask for --updates {UPDATES}")
    RetrainingJob.check_target(asked.target_accuracy)
    all_shifts(asked.test)
    for data in (asked.train, asked.test):
        check_data_fits_model(model, data)


def _check_knows(clean_accuracy: float, asked: CalibrationRequest) -> None:
    """Refuse a model without its weights: retraining it is training from scratch, which teaches nothing here."""
    n = len(asked.test)
    share = int(torch.bincount(asked.test.labels).max()) / n
    if clean_accuracy <= share + 3.0 * math.sqrt(share * (1.0 - share) / n):
        raise ModelError(
            f"accuracy {clean_accuracy:.3f} on {asked.test.name}, and always naming the same class has {share:.3f}: "
            "name the model's trained weights with --weights"
        )


def _chosen(
    model: nn.Module,
    asked: CalibrationRequest,
    below: Sequence[Candidate],
    history: Sequence[Update],
    on_progress: Watch,
) -> tuple[PlannedRun, ...]:
    """Choose, look at all of the data, and choose again without what begins at the target there after all."""
    seen: dict[Candidate, PlannedRun] = {}
    left = list(below)
    while True:
        found = select_spread(left, asked.updates)
        _check_enough(found, left, asked)
        for done, candidate in enumerate(found):
            on_progress(done, len(found), f"passing {candidate.shift}")
            if candidate not in seen:
                seen[candidate] = _known(model, asked, candidate.shift, history)
        above = [each for each in found if starts_at_target(seen[each].features, asked.target_accuracy)]
        if not above:
            return tuple(seen[each] for each in found)
        left = [each for each in left if each not in above]


def _check_enough(found: Sequence[Candidate], left: Sequence[Candidate], asked: CalibrationRequest) -> None:
    kinds = len({candidate.shift_type for candidate in found})
    if len(found) < asked.updates or kinds < FEWEST_KINDS:
        raise SettingError(
            f"{len(left)} of {len(all_shifts(asked.train))} shifts, of {kinds} kinds, bring the accuracy below "
            f"{asked.target_accuracy:g}; wanted are {asked.updates} of at least {FEWEST_KINDS} kinds: ask for a higher "
            "--target-accuracy, or fewer --updates"
        )


def _known(model: nn.Module, asked: CalibrationRequest, shift: str, history: Sequence[Update]) -> PlannedRun:
    job, parent = asked.job(shift), fingerprint(model)
    done = _already(history, parent, job)
    features = done.features if done is not None else shift_features(model, job, asked.original)[0]
    own = [update for update in history if update.parent == parent]
    query = ForecastQuery.of(job, features, parent, asked.model_name)
    expected: float | None = None
    with contextlib.suppress(TooFewUpdatesError):
        median = predict_cost(own, "steps", query, choose_predictors(own, query)).distribution.median
        expected = math.exp(min(median, math.log(job.max_steps)))
    return PlannedRun(shift, features, None if done is None else done.id, expected, job.max_steps)


def _already(history: Iterable[Update], parent: str, job: RetrainingJob) -> Update | None:
    return next((update for update in history if is_update_of(update, parent, job)), None)


def _bill(steps: Sequence[float], evaluation_s: float, step_cost: StepCost, grid: Grid | None) -> CalibrationCost:
    total = round(math.fsum(steps))
    training_s, energy_kwh = total * step_cost.wall_s, None
    if step_cost.energy_kwh is not None:
        energy_kwh = step_cost.energy_kwh * (total + evaluation_s / step_cost.wall_s)
    carbon_kg = None if grid is None else grid.carbon_kg(energy_kwh)
    return CalibrationCost(len(steps), total, training_s, evaluation_s, energy_kwh, carbon_kg)

"""What calibration runs are asked for: data, targets, recipe and number of runs."""

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass

from resque.data.dataset import LabeledDataset
from resque.data.shifts import parse_shift
from resque.errors import SettingError
from resque.forecasting.history import ForecastQuery
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.indices.profile import Profile
from resque.ledger.records import Features, Update
from resque.training.job import RetrainingJob, is_update_of
from resque.training.recipe import Recipe
from resque.workflows.calibration_candidates import applicable_shifts
from resque.workflows.calibration_defaults import Targets, accuracy_noise

__all__ = ["SAMPLES", "UPDATES", "CalibrationRequest", "check_updates"]

UPDATES = 12
"""Default number of calibration runs."""
SAMPLES = 1000
"""Most samples of each part that the features of a candidate are computed on, before it is run."""


def check_updates(updates: int) -> None:
    """Raise SettingError for fewer runs than a forecast needs."""
    if updates < FEWEST_UPDATES:
        raise SettingError(f"{updates} updates: a forecast needs {FEWEST_UPDATES}; ask for --updates {UPDATES}")


@dataclass(frozen=True, eq=False)
class CalibrationRequest:
    """Calibration runs to plan.

    Attributes:
        train: Data like those that the model was trained on, to be shifted and trained on.
        test: Held-out data of the same kind, to be shifted and tested on.
        original: Profile of the data that the model was trained on.
        targets: Lowest and highest target that forecasts will be asked for; the runs train to the highest.
        recipe: Training recipe, see :func:`resque.workflows.calibration_defaults.shorten_recipe`.
        updates: Number of runs.
        seed: Seed of the data order.
        model_name: Name of the model in the updates.
        like: Data of the update that is to be forecast, with labels or without; None spreads over the starting gaps.
    """

    train: LabeledDataset
    test: LabeledDataset
    original: Profile
    targets: Targets
    recipe: Recipe
    updates: int = UPDATES
    seed: int = 0
    model_name: str = ""
    like: LabeledDataset | None = None

    @property
    def target_accuracy(self) -> float:
        """Target of the runs: the highest."""
        return self.targets[1]

    @property
    def below(self) -> float:
        """Accuracy below which a shift starts: the highest target, less the noise of the accuracy on the test data."""
        return self.target_accuracy - accuracy_noise(self.target_accuracy, len(self.test))

    @functools.cached_property
    def clean_job(self) -> RetrainingJob:
        """The job without a shift: step budget and evaluations of every run."""
        return RetrainingJob(self.train, self.test, self.target_accuracy, self.recipe, self.seed, replayed=self.train)

    @property
    def is_small(self) -> bool:
        """Whether the features of candidates are those of all of the data."""
        return max(len(self.train), len(self.test)) <= SAMPLES

    def job(self, shift: str, limit: int | None = None) -> RetrainingJob:
        """Return the job for one shift, e.g. ``"gaussian:5"``; with a limit, on at most so many samples."""
        change, parts = parse_shift(shift), (self.train, self.test)
        train, test = (part if limit is None else part.limited(limit) for part in parts)
        shifted = train.shifted(change), test.shifted(change)
        target, shift_type = self.target_accuracy, change.shift_type
        return RetrainingJob(*shifted, target, self.recipe, self.seed, self.test, shift_type, replayed=self.train)

    def query(self, name: str, features: Features, parent: str, target: float) -> ForecastQuery:
        """Return the forecast query for an update with these features, of a shift or of data of another name."""
        query = ForecastQuery.of(self.clean_job, features, parent, self.model_name)
        of_data = None if self.like is None else self.like.shift_type
        shift_type = name.partition(":")[0] if name in applicable_shifts(self.train) else of_data
        return dataclasses.replace(query, target_accuracy=target, shift_type=shift_type, condition=name)

    def done(self, history: Iterable[Update], parent: str) -> dict[str, Update]:
        """Return the finished runs of this request by their shift, oldest first."""
        shifts, found = set(applicable_shifts(self.train)), dict[str, Update]()
        for update in history:
            shift = update.train_data.removeprefix(f"{self.train.name}+")
            same = update.seed == self.seed and update.target_accuracy == self.target_accuracy
            if same and shift in shifts and is_update_of(update, parent, self.job(shift)):
                found.setdefault(shift, update)
        return found

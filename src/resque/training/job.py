"""Retraining job: data, target accuracy, recipe, and the steps at which a run is evaluated."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from resque.data.dataset import LabeledDataset
from resque.errors import DataError, SettingError
from resque.ledger.records import MissingLabels, Update
from resque.training.recipe import RECIPES, Recipe, recipe_to_dict

__all__ = ["RetrainingJob", "evaluation_steps", "is_update_of", "missing_labels", "steps_per_epoch"]


@dataclass(frozen=True)
class RetrainingJob:
    """A retraining to do: data, target accuracy and recipe.

    Attributes:
        train: New training data; without labels the job can be forecast, but not done.
        test: New held-out data, on which the target is to be reached; they may lack labels, too.
        target_accuracy: Accuracy to reach, in (0, 1].
        recipe: Training recipe.
        seed: Seed of the data order, and of dropout.
        original_test: Held-out original data, to measure forgetting; None leaves it unmeasured.
        shift_type: Type of shift; None takes it from the training data.
        from_scratch: Whether the model has new random weights, for a comparison with retraining.
        parent: Fingerprint of the model before it got a head for a new task; empty if it keeps its head.

    Raises:
        DataError: The two datasets number classes differently, or the test data has classes of its own.
        SettingError: The target accuracy is not in (0, 1].

    Example:
        >>> from resque.data.loading import load_data
        >>> digits = load_data("digits@16px")
        >>> job = RetrainingJob(digits.part("train"), digits.part("test"), target_accuracy=0.9)
        >>> job.steps_per_epoch, job.max_steps
        (40, 10000)
    """

    train: LabeledDataset
    test: LabeledDataset
    target_accuracy: float
    recipe: Recipe = RECIPES["retrain-adam"]
    seed: int = 0
    original_test: LabeledDataset | None = None
    shift_type: str | None = None
    from_scratch: bool = False
    parent: str = ""

    def __post_init__(self) -> None:
        self.check_target(self.target_accuracy)
        for other in filter(None, (self.test, self.original_test)):
            if self.train.class_names and other.class_names and self.train.class_names != other.class_names:
                raise DataError(
                    f"{self.train.name} and {other.name} number the classes differently: "
                    "name the same classes in both, in the same order"
                )
        unknown = sorted(set(self.test.classes) - set(self.train.classes))
        if unknown and self.train.labeled and self.test.labeled:
            raise DataError(
                f"classes {unknown} are in {self.test.name} and not in {self.train.name}: "
                "add training samples of them, or test without them"
            )

    @staticmethod
    def check_target(target_accuracy: float) -> None:
        """Raise SettingError unless 0 < target_accuracy <= 1."""
        try:
            valid = 0.0 < target_accuracy <= 1.0
        except TypeError:
            valid = False
        if not valid:
            raise SettingError(f"target accuracy {target_accuracy}: expected a share in (0, 1], e.g. 0.9 for 90 %")

    @property
    def digest(self) -> str:
        """Hash of training and test data, independent of their names."""
        return f"{self.train.digest} {self.test.digest}"

    @property
    def effective_shift_type(self) -> str | None:
        """Type of shift: the one given, or else that of the training data."""
        return self.shift_type or self.train.shift_type

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return steps_per_epoch(len(self.train), self.recipe.batch_size)

    @property
    def max_steps(self) -> int:
        """Step budget: optimizer steps in the maximum number of epochs."""
        return self.steps_per_epoch * (self.recipe.fixed_epochs or self.recipe.max_epochs)

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Steps of all evaluations of a run that is not ended earlier."""
        return tuple(evaluation_steps(self.max_steps, self.steps_per_epoch, self.recipe))

    def samples_after(self, steps: int) -> int:
        """Return the number of training samples passed in so many steps, counting repeats."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        samples_per_epoch = min(len(self.train), self.steps_per_epoch * self.recipe.batch_size)
        return epochs * samples_per_epoch + rest * self.recipe.batch_size

    def evaluation_at_or_after(self, steps: float) -> int:
        """Return the step of the first evaluation at or after so many steps, at most the step budget.

        A run that reaches its target between two evaluations ends at the later one.
        """
        if steps >= self.max_steps:
            return self.max_steps
        return deque(evaluation_steps(steps, self.steps_per_epoch, self.recipe), maxlen=1).pop()


def missing_labels(job: RetrainingJob) -> MissingLabels:
    """Return the number of samples that need a label before a job can be done.

    Example:
        >>> from resque.data.loading import load_data
        >>> digits = load_data("digits@16px")
        >>> missing_labels(RetrainingJob(digits.part("train"), digits.part("test"), target_accuracy=0.9)).total
        0
    """
    return MissingLabels(*(0 if data.labeled else len(data) for data in (job.train, job.test)))


def steps_per_epoch(n_samples: int, batch_size: int) -> int:
    """Return the optimizer steps in an epoch.

    A last batch of a single sample is left out, because batch normalization cannot train on it.

    Example:
        >>> [steps_per_epoch(n, batch_size=32) for n in (64, 65, 66)]
        [2, 2, 3]
    """
    whole, rest = divmod(n_samples, batch_size)
    return max(1, whole + (rest > 1))


def evaluation_steps(steps: float, steps_per_epoch: int, recipe: Recipe) -> Iterator[int]:
    """Iterate over the steps at which a run is evaluated, up to the first one at or after ``steps``.

    A run can stop only at an evaluation.

    Example:
        >>> list(evaluation_steps(20, 10, Recipe())), list(evaluation_steps(9, 10, Recipe(evaluate_every=4)))
        ([0, 10, 20], [0, 4, 8, 10])
    """
    step, every = 0, recipe.evaluate_every or steps_per_epoch
    yield step
    while step < steps:
        earliest = max(step + 1, math.ceil(step * (1.0 + recipe.evaluate_growth)))
        step = min(-(-earliest // every) * every, (step // steps_per_epoch + 1) * steps_per_epoch)
        yield step


def is_update_of(update: Update, parent: str, job: RetrainingJob) -> bool:
    """Return whether an update is the result of this job for the model with that fingerprint."""
    return (
        (update.parent, update.seed, update.target_accuracy) == (parent, job.seed, job.target_accuracy)
        and (update.train_data, update.test_data, update.digest) == (job.train.name, job.test.name, job.digest)
        and update.shift_type == job.effective_shift_type
        and dict(update.recipe) == recipe_to_dict(job.recipe)
    )

"""A retraining job: data, target accuracy, recipe, and the steps at which it is evaluated."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from resque.data.dataset import LabeledDataset
from resque.errors import DataError, SettingError
from resque.ledger.records import Update
from resque.training.recipe import RECIPES, Recipe, recipe_to_dict


@dataclass(frozen=True)
class RetrainingJob:
    """What is to be done: which data, to which accuracy, by which recipe.

    Attributes:
        train: The new data.
        test: New data held out, on which the target is to be reached.
        target_accuracy: In (0, 1].
        recipe: How to train.
        seed: Of the order of the samples (and of dropout).
        original_test: Original data held out, to see what is forgotten; None leaves that unmeasured.
        shift_type: Kind of shift; None takes it from the training data.
        from_scratch: The model has new random weights, to stand beside a retraining.
        parent: Fingerprint of the model before it got a head for a new task; empty where it keeps its head.
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
        if self.train.class_names and self.test.class_names and self.train.class_names != self.test.class_names:
            raise DataError(
                f"{self.train.name} and {self.test.name} do not number the same classes alike: "
                "name the same classes in both, in the same order"
            )
        unknown = sorted(set(self.test.classes) - set(self.train.classes))
        if unknown:
            raise DataError(
                f"classes {unknown} are in {self.test.name} and not in {self.train.name}: "
                "add training samples of them, or test without them"
            )

    @staticmethod
    def check_target(target_accuracy: float) -> None:
        """Refuse an accuracy that is no share."""
        if not 0.0 < target_accuracy <= 1.0:
            raise SettingError(f"target accuracy {target_accuracy:g}: expected a share in (0, 1], e.g. 0.9 for 90 %")

    @property
    def digest(self) -> str:
        """Which data these are, whatever their names."""
        return f"{self.train.digest} {self.test.digest}"

    @property
    def effective_shift_type(self) -> str | None:
        """The kind of shift, as named or as the training data tells."""
        return self.shift_type or self.train.shift_type

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return steps_per_epoch(len(self.train), self.recipe.batch_size)

    @property
    def samples_per_epoch(self) -> int:
        """Training samples in one pass: all, or all but a last one that would be a batch of its own."""
        return min(len(self.train), self.steps_per_epoch * self.recipe.batch_size)

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the longest run."""
        return self.steps_per_epoch * (self.recipe.fixed_epochs or self.recipe.max_epochs)

    def evaluation_at_or_after(self, steps: float) -> int:
        """Where a run ends that has arrived after so many steps: it is not seen before the next look."""
        if steps >= self.max_steps:
            return self.max_steps
        return deque(evaluation_steps(steps, self.steps_per_epoch, self.recipe), maxlen=1).pop()


def steps_per_epoch(n: int, batch_size: int) -> int:
    """A last batch of one sample is left out: batch normalisation cannot train on it."""
    whole, rest = divmod(n, batch_size)
    return max(1, whole + (rest > 1))


def evaluation_steps(steps: float, steps_per_epoch: int, recipe: Recipe) -> Iterator[int]:
    """Steps after which a run of at least so many looks at its test data: it stops at the last, and at no other time.

    Example:
        >>> list(evaluation_steps(20, 10, Recipe())), list(evaluation_steps(9, 10, Recipe(evaluate_every=4)))
        ([0, 10, 20], [0, 4, 8, 10])
    """
    at, every = 0, recipe.evaluate_every or steps_per_epoch
    yield at
    while at < steps:
        earliest = max(at + 1, math.ceil(at * (1.0 + recipe.evaluate_growth)))
        at = min(-(-earliest // every) * every, (at // steps_per_epoch + 1) * steps_per_epoch)
        yield at


def is_update_of(update: Update, parent: str, job: RetrainingJob) -> bool:
    """Whether an update is what this job would do to the model of that fingerprint."""
    said = update.parent, update.train_data, update.test_data, dict(update.recipe), update.seed, update.target_accuracy
    asked = parent, job.train.name, job.test.name, recipe_to_dict(job.recipe), job.seed, job.target_accuracy
    return said == asked and update.shift_type == job.effective_shift_type and update.digest == job.digest

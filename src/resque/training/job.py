"""Retraining job: data, target accuracy, recipe, and the steps at which a run is evaluated."""

import functools
from collections import deque
from dataclasses import dataclass

import torch

from resque.data.dataset import LabeledDataset
from resque.errors import DataError, SettingError
from resque.ledger.records import MissingLabels, Update
from resque.training.evaluation_steps import evaluation_steps
from resque.training.finetuning import STATISTICS
from resque.training.recipe import RECIPES, Recipe, recipe_to_dict
from resque.training.replay import count_replayed, with_replay

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
        replayed: Original training data, of which a recipe with ``replay`` mixes some in.
        parent: Fingerprint of the model before it got a head for a new task; empty if it keeps its head.
        original_accuracy: Accuracy on ``original_test`` before the head was widened; None if the model keeps its head.

    Raises:
        DataError: The two datasets number classes differently, or the test data has classes of its own.
        SettingError: The target accuracy is not in (0, 1], or a recipe with ``replay`` has no original data.

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
    replayed: LabeledDataset | None = None
    original_accuracy: float | None = None

    def __post_init__(self) -> None:
        self.check_target(self.target_accuracy)
        replayed = self.replayed if self.recipe.replay else None
        if self.recipe.replay:
            self._check_replay()
        for other in filter(None, (self.test, self.original_test, replayed)):
            named_alike = (a == b for a, b in zip(self.train.class_names, other.class_names, strict=False))
            if not all(named_alike):  # an extension names more classes than the original data
                raise DataError(
                    f"{self.train.name} and {other.name} number the classes differently: "
                    "name the same classes in both, in the same order"
                )
        replayed_classes = [] if replayed is None else replayed.classes
        unknown = sorted(set(self.test.classes) - {*self.train.classes, *replayed_classes})
        if unknown and self.train.labeled and self.test.labeled:
            raise DataError(
                f"classes {unknown} are in {self.test.name} and not in {self.train.name}: "
                "add training samples of them, replay some, or test without them"
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
        """Hash of training, test and replayed data, independent of their names."""
        sets = self.train, self.test, self.replayed if self.recipe.replay else None
        return " ".join(data.digest for data in sets if data is not None)

    @property
    def replay_data(self) -> str | None:
        """Name of the original data that are replayed; None without replay."""
        return self.replayed.name if self.recipe.replay and self.replayed is not None else None

    @functools.cached_property
    def trained_on(self) -> LabeledDataset:
        """Training data, followed by the original samples from which each epoch draws."""
        if not self.recipe.replay or self.replayed is None:
            return self.train
        return with_replay(self.train, self.replayed, self.recipe.replay, self.seed)

    @property
    def samples_per_epoch(self) -> int:
        """Samples in one pass over the new training data, with those that are replayed."""
        return len(self.train) + count_replayed(len(self.train), self.recipe.replay)

    @property
    def effective_shift_type(self) -> str | None:
        """Type of shift: the one given, or else that of the training data."""
        return self.shift_type or self.train.shift_type

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return 1 if self._is_one_pass else steps_per_epoch(self.samples_per_epoch, self.recipe.batch_size)

    @property
    def max_steps(self) -> int:
        """Step budget: optimizer steps in the maximum number of epochs."""
        return self.steps_per_epoch * self.recipe.most_epochs

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Steps of all evaluations of a run that is not ended earlier."""
        return tuple(evaluation_steps(self.max_steps, self.steps_per_epoch, self.recipe))

    def samples_after(self, steps: int) -> int:
        """Return the number of training samples passed in so many steps, counting repeats."""
        if self._is_one_pass:
            return steps * self.samples_per_epoch
        epochs, rest = divmod(steps, self.steps_per_epoch)
        samples_per_epoch = min(self.samples_per_epoch, self.steps_per_epoch * self.recipe.batch_size)
        return epochs * samples_per_epoch + rest * self.recipe.batch_size

    def _check_replay(self) -> None:
        share = f"replay={self.recipe.replay:g}"
        if self.replayed is None:
            raise SettingError(
                f"{share} mixes original data in: name them, not their profile, with --original, or leave replay out"
            )
        if self.replayed.preprocessing != self.train.preprocessing:
            raise DataError(f"{self.replayed.name} and {self.train.name} have different preprocessing: load both alike")
        one = torch.zeros(1, dtype=torch.int64)
        with_replay(self.train.take(one), self.replayed.take(one), self.recipe.replay, self.seed)

    @property
    def _is_one_pass(self) -> bool:
        return self.recipe.trains == STATISTICS

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


def is_update_of(update: Update, parent: str, job: RetrainingJob) -> bool:
    """Return whether an update is the result of this job for the model with that fingerprint."""
    return (
        (update.parent, update.seed, update.target_accuracy) == (parent, job.seed, job.target_accuracy)
        and (update.train_data, update.test_data, update.digest) == (job.train.name, job.test.name, job.digest)
        and update.shift_type == job.effective_shift_type
        and {**recipe_to_dict(Recipe()), **update.recipe} == recipe_to_dict(job.recipe)  # of an earlier version: fewer
    )

"""What is to be done, as data: the recipe of a training, and the job it is used for."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resque.data import LabelledData
from resque.errors import DataError, ModelError, SettingError
from resque.measures import MAX_EPOCHS, TOLERANCES
from resque.plain import to_plain


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: data, not code.

    Attributes:
        optimizer: ``"adam"`` or ``"sgd"``.
        learning_rate: At the start.
        weight_decay: L2 regularisation.
        momentum: Of SGD.
        batch_size: Samples per optimizer step.
        milestones: Epochs after which the learning rate is divided by ten.
        evaluate_every: Steps between evaluations; None evaluates after each epoch.
        max_epochs: The longest run.
        tolerances: When a run that comes close may end, see :func:`resque.measures.stop_epoch`.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    momentum: float = 0.9
    batch_size: int = 32
    milestones: tuple[int, ...] = (40, 70, 90)
    evaluate_every: int | None = None
    max_epochs: int = MAX_EPOCHS
    tolerances: tuple[tuple[float, int], ...] = TOLERANCES

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise SettingError(f"optimizer {self.optimizer!r}: use 'adam' or 'sgd'")
        for name in ("learning_rate", "batch_size", "max_epochs"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise SettingError(f"evaluate_every is {self.evaluate_every}; expected at least 1 step")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer for a model's parameters."""
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            raise ModelError("the model has no parameter that requires a gradient: there is nothing to retrain")
        if self.optimizer == "adam":
            return torch.optim.Adam(trainable, lr=self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(trainable, lr=self.learning_rate, weight_decay=self.weight_decay, momentum=self.momentum)


RECIPES = {
    "retrain-adam": Recipe(),
    "retrain-sgd": Recipe(optimizer="sgd", learning_rate=1e-3),
    "train-adam": Recipe(learning_rate=1e-3, weight_decay=1e-4, milestones=()),
    "train-sgd": Recipe(optimizer="sgd", learning_rate=1e-2, weight_decay=1e-4, milestones=(70,)),
}
"""The paper's recipes by name, without its augmentation."""


def named_recipe(name: str, evaluate_every: int | None = None, max_epochs: int | None = None) -> Recipe:
    """A recipe by name, with its evaluation interval and longest run where they are given."""
    if name not in RECIPES:
        raise SettingError(f"unknown recipe {name!r}: use one of {', '.join(RECIPES)}")
    given: dict[str, Any] = {"evaluate_every": evaluate_every, "max_epochs": max_epochs}
    return dataclasses.replace(RECIPES[name], **{key: value for key, value in given.items() if value is not None})


@dataclass(frozen=True)
class Retraining:
    """What is to be done: which data, to which accuracy, by which recipe.

    Attributes:
        train: The new data.
        test: New data held out, on which the target is to be reached.
        target_accuracy: In (0, 1].
        recipe: How to train.
        seed: Of the order of the samples (and of dropout).
        original_test: Original data held out, to see what is forgotten; None leaves that unmeasured.
        kind: Kind of shift; None takes it from the training data.
    """

    train: LabelledData
    test: LabelledData
    target_accuracy: float
    recipe: Recipe = RECIPES["retrain-adam"]
    seed: int = 0
    original_test: LabelledData | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        self.check_target(self.target_accuracy)
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
    def shift_kind(self) -> str | None:
        """The kind of shift, as named or as the training data tells."""
        return self.kind or self.train.kind

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
        return self.steps_per_epoch * self.recipe.max_epochs


def steps_per_epoch(n: int, batch_size: int) -> int:
    """A last batch of one sample is left out: batch normalisation cannot train on it."""
    whole, rest = divmod(n, batch_size)
    return max(1, whole + (rest > 1))


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings as the ledger keeps them: lists for tuples."""
    return to_plain(recipe)

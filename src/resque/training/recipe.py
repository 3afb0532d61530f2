"""Training recipe: the settings of a training as data, by name, from a file or from ``SETTING=VALUE`` pairs."""

import dataclasses
import math
import numbers
import operator
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from resque._toml import parse_toml, read_toml, shorten_value
from resque.data.augmentation import PAPER, check_augmentation
from resque.errors import ModelError, SettingError
from resque.ledger.serialization import to_dict
from resque.training.finetuning import STATISTICS, check_scope
from resque.training.stopping import MAX_EPOCHS, TOLERANCES

__all__ = ["RECIPES", "Recipe", "named_recipe", "recipe_to_dict"]

_CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("steps", "cosine"),
    "precision": ("float32", "bfloat16"),
}
_POSITIVE = ("learning_rate", "batch_size", "max_epochs", "fixed_epochs", "max_hours", "max_kwh")
_MILESTONES = "epochs from 1 on, e.g. milestones=40+70"
_FUSED = ("cpu", "cuda")
_LARGEST_COUNT = 2**31


def _are_tolerances(values: Any) -> bool:
    try:
        return all(0.0 <= distance < math.inf and epochs >= 1 for distance, epochs in values)
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes:
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        learning_rate: Learning rate at the start.
        weight_decay: L2 regularization.
        momentum: Momentum of SGD.
        batch_size: Samples per optimizer step.
        milestones: Epochs after which the learning rate is divided by ten.
        schedule: ``"steps"`` (at the milestones), or ``"cosine"`` (to zero over the maximum number of epochs).
        augmentation: Names of :data:`resque.data.augmentation.AUGMENTATIONS`; empty for unchanged data.
        precision: ``"float32"``, or ``"bfloat16"`` (autocast; weights stay float32).
        channels_last: Whether convolutions use the channels-last memory format, which is usually faster.
        compile: Whether the model is compiled first; the time it takes is part of the cost.
        trains: ``"all"`` parameters, the ``"head"`` alone, ``"lora"`` (adapters and the head), ``"norm-scales"`` (those
            of normalization layers), or ``"norm"``: no gradient steps, the statistics of batch normalization are
            estimated anew in one pass without labels, which counts as one step and one epoch.
        rank: Rank of the adapters.
        replay: Share of original data in an epoch, in [0, 1), for the update of a shift. An epoch is still one pass
            over the new data: at 0.2 it has a quarter more samples.
        evaluate_every: Steps between evaluations, in addition to one after each epoch; None for that one alone.
        evaluate_growth: Least gap to the next evaluation, as a share of the steps taken so far. At 0.1, costs are known
            to about 10 %, whether a run takes 20 steps or 20,000.
        max_epochs: Maximum number of epochs.
        fixed_epochs: Exact number of epochs, whatever the accuracy; None stops by the rules.
        max_hours: Budget of training time, in hours; None for no budget.
        max_kwh: Budget of training energy, in kWh; None for no budget.
        tolerances: Rules that end a run close to its target, see :func:`resque.training.stopping.stop_epoch`.

    Raises:
        SettingError: A setting is out of range.

    Example:
        >>> Recipe(optimizer="sgd", learning_rate=0.01).batch_size
        32
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    momentum: float = 0.9
    batch_size: int = 32
    milestones: tuple[int, ...] = (40, 70, 90)
    schedule: str = "steps"
    augmentation: tuple[str, ...] = ()
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    trains: str = "all"
    rank: int = 8
    replay: float = 0.0
    evaluate_every: int | None = None
    evaluate_growth: float = 0.0
    max_epochs: int = MAX_EPOCHS
    fixed_epochs: int | None = None
    max_hours: float | None = None
    max_kwh: float | None = None
    tolerances: tuple[tuple[float, int], ...] = TOLERANCES

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(f"{name} {getattr(self, name)!r}: use one of {', '.join(choices)}")
        for each in dataclasses.fields(self):
            self._check_number(each.name, each.type)
        check_augmentation(self.augmentation)
        check_scope(self.trains, self.rank)
        if not (self.weight_decay >= 0.0 and 0.0 <= self.momentum < 1.0):
            raise SettingError(
                f"weight_decay {self.weight_decay} and momentum {self.momentum}: expected 0 or more, and 0 to below 1"
            )
        if not 0.0 <= self.replay < 1.0:
            raise SettingError(f"replay is {self.replay}; expected a share of 0 to below 1, e.g. 0.2")
        if self.trains == STATISTICS and self.fixed_epochs not in (None, 1):
            raise SettingError(f"fixed_epochs {self.fixed_epochs}: trains=norm passes the data once; leave it out")
        if not all(isinstance(epoch, int) and epoch > 0 for epoch in self.milestones):
            raise SettingError(f"milestones {self.milestones}: expected {_MILESTONES}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingError(f"{name} is {value}; expected more than 0")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise SettingError(f"evaluate_every is {self.evaluate_every}; expected at least 1 step")
        if self.evaluate_growth < 0.0:
            raise SettingError(f"evaluate_growth is {self.evaluate_growth}; expected 0 or more, e.g. 0.1")
        if not _are_tolerances(self.tolerances):
            raise SettingError(
                f"tolerances {shorten_value(self.tolerances)}: expected pairs of a distance and epochs: [[0.01, 50]]"
            )

    def _check_number(self, name: str, hint: Any) -> None:
        """Take a number of any library as Python's own; raise SettingError unless it is finite and of its type."""
        value: Any = getattr(self, name)
        kinds = typing.get_args(hint) or (hint,)
        if typing.get_origin(hint) is tuple or (value is None and type(None) in kinds):
            return
        if not {int, float} & set(kinds):
            return
        whole = int in kinds
        kind: Any = numbers.Integral if whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            raise SettingError(f"{name} is {shorten_value(value)}; expected a {'whole ' * whole}number")
        try:
            number: Any = operator.index(value) if whole else float(value)
        except OverflowError:
            number = math.inf
        if not abs(number) < (_LARGEST_COUNT if whole else math.inf):  # refuses NaN, too
            expected = f"a number below {_LARGEST_COUNT:,}" if whole else "a finite number"
            raise SettingError(f"{name} is {shorten_value(value)}; expected {expected}")
        object.__setattr__(self, name, number)

    @property
    def most_epochs(self) -> int:
        """Epochs of a run that nothing ends earlier."""
        return 1 if self.trains == STATISTICS else self.fixed_epochs or self.max_epochs

    def from_scratch(self) -> "Recipe":
        """Return the recipe for random weights: all parameters, at the paper's learning rate for that, without replay.

        Example:
            >>> Recipe(trains="head").from_scratch().learning_rate
            0.001
        """
        base = RECIPES["train-sgd" if self.optimizer == "sgd" else "train-adam"]
        names = "learning_rate", "weight_decay", "milestones"
        return dataclasses.replace(self, trains="all", replay=0.0, **{name: getattr(base, name) for name in names})

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of a model's trainable parameters.

        Raises:
            ModelError: No parameter requires a gradient.
        """
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            raise ModelError("the model has no parameter that requires a gradient: there is nothing to retrain")
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        common["fused"] = all(p.device.type in _FUSED and p.is_floating_point() for p in trainable)
        if self.optimizer == "sgd":
            return torch.optim.SGD(trainable, momentum=self.momentum, **common)
        return (torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam)(trainable, **common)

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the learning rate schedule, which advances once per epoch."""
        if self.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.most_epochs)
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), gamma=0.1)


RECIPES = {
    "retrain-adam": Recipe(),
    "retrain-sgd": Recipe(optimizer="sgd", learning_rate=1e-3),
    "train-adam": Recipe(learning_rate=1e-3, weight_decay=1e-4, milestones=()),
    "train-sgd": Recipe(optimizer="sgd", learning_rate=1e-2, weight_decay=1e-4, milestones=(70,)),
}
"""Recipes of the paper by name, without its augmentation (``augmentation=paper``): a model in use may have none."""


def named_recipe(spec: str, evaluate_every: int | None = None, max_epochs: int | None = None) -> Recipe:
    """Return a recipe by name or from a file, with some of its settings changed.

    Args:
        spec: ``NAME``, or ``FILE.toml`` with settings, followed by comma-separated settings:
            ``retrain-adam,batch_size=64``. Augmentations and milestones are joined with ``+``; ``paper`` stands for the
            paper's augmentations.
        evaluate_every: Setting of that name; overrides the recipe's.
        max_epochs: Setting of that name; overrides the recipe's.

    Raises:
        SettingError: The recipe or a setting does not exist, or a value is not valid.

    Example:
        >>> named_recipe("retrain-sgd,batch_size=64,augmentation=flip+crop").augmentation
        ('flip', 'crop')
    """
    name, *changes = spec.split(",")
    settings: dict[str, Any] = {}
    if name.endswith(".toml"):
        settings |= read_toml(Path(name), "recipe")
        name = shorten_value(settings.pop("base", "retrain-adam"))
    if name not in RECIPES:
        raise SettingError(f"unknown recipe {name!r}: use one of {', '.join(RECIPES)}, or a FILE.toml of settings")
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise SettingError(f"recipe setting {change!r}: write SETTING=VALUE, e.g. batch_size=64")
        settings[key] = _parse_value(value)
    options = {"evaluate_every": evaluate_every, "max_epochs": max_epochs}
    settings |= {key: value for key, value in options.items() if value is not None}
    return dataclasses.replace(RECIPES[name], **{key: _convert(key, value) for key, value in settings.items()})


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe as the ledger stores them, with lists instead of tuples.

    Example:
        >>> recipe_to_dict(Recipe())["milestones"]
        [40, 70, 90]
    """
    return to_dict(recipe)


def _parse_value(text: str) -> Any:
    """Parse a TOML value; return anything else as it is."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _convert(key: str, value: Any) -> Any:
    """Convert a setting to its type; raise SettingError if it does not exist or the value does not fit."""
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Recipe)}
    if key not in types:
        raise SettingError(f"a recipe has no setting {key!r}: use one of {', '.join(types)}")
    if key == "augmentation" and isinstance(value, str):
        value = PAPER if value == "paper" else _split(value)
    elif key == "milestones" and isinstance(value, str | int):
        value = [_parse_value(epoch) for epoch in _split(str(value))]
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # 64.0 is a whole number, too
    try:
        return msgspec.convert(value, types[key])
    except (msgspec.ValidationError, OverflowError) as error:
        expected = _MILESTONES if key == "milestones" else _describe(types[key])
        raise SettingError(f"recipe setting {key}={shorten_value(value)}: expected {expected}") from error


def _split(value: str) -> list[str]:
    return [] if value in ("", "none") else value.split("+")


def _describe(hint: Any) -> str:
    """Describe the values of a type, for an error message."""
    if typing.get_origin(hint) is tuple:
        return "a list; write it in a FILE.toml"
    words = {bool: "true or false", str: "a word", int: "a whole number", float: "a number"}
    return next(word for kind, word in words.items() if kind is hint or kind in typing.get_args(hint))

"""What is to be done, as data: the recipe of a training, and the job it is used for."""

import dataclasses
import math
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resque.data.augmentation import PAPER, check_augmentation
from resque.errors import ModelError, SettingError
from resque.ledger.serialization import from_dict, to_dict
from resque.training.finetuning import check_scope
from resque.training.stopping import MAX_EPOCHS, TOLERANCES

_KINDS: dict[Any, str] = {bool: "true or false", str: "a word", int: "a whole number", float: "a number"}
_FUSED = ("cpu", "cuda")
_CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("steps", "cosine"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: data, not code.

    Attributes:
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        learning_rate: At the start.
        weight_decay: L2 regularisation.
        momentum: Of SGD.
        batch_size: Samples per optimizer step.
        milestones: Epochs after which the learning rate is divided by ten.
        schedule: ``"steps"`` (the milestones), or ``"cosine"`` to zero over the longest run.
        augmentation: Names of :data:`resque.data.augmentation.AUGMENTATIONS`; none for data as they are.
        precision: ``"float32"``, or ``"bfloat16"`` (autocast; weights stay float32).
        channels_last: Convolutions keep the channels of a pixel together in memory: as a rule faster.
        compile: The model is compiled first, which the update pays for.
        trains: ``"all"`` parameters, the ``"head"`` alone, or ``"lora"`` (adapters and the head).
        rank: Of the adapters.
        evaluate_every: Steps between evaluations, which come at its multiples and after each epoch; None evaluates
            after each epoch alone.
        evaluate_growth: The gap to the next evaluation is at least this share of the steps taken so far: at 0.1 a
            cost is known to about 10 %, whether it is 20 steps or 20,000.
        max_epochs: The longest run.
        fixed_epochs: Exactly this many epochs, whatever the accuracy; None stops by the rules.
        max_hours: Budget of training time; None for none.
        max_kwh: Budget of training energy; None for none.
        tolerances: When a run that comes close may end, see :func:`resque.training.stopping.stop_epoch`.
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
    evaluate_every: int | None = None
    evaluate_growth: float = 0.0
    max_epochs: int = MAX_EPOCHS
    fixed_epochs: int | None = None
    max_hours: float | None = None
    max_kwh: float | None = None
    tolerances: tuple[tuple[float, int], ...] = TOLERANCES

    def __post_init__(self) -> None:
        for name, offered in _CHOICES.items():
            if getattr(self, name) not in offered:
                raise SettingError(f"{name} {getattr(self, name)!r}: use one of {', '.join(offered)}")
        check_augmentation(self.augmentation)
        check_scope(self.trains, self.rank)
        if not (self.weight_decay >= 0.0 and 0.0 <= self.momentum < 1.0):
            raise SettingError(
                f"weight_decay {self.weight_decay} and momentum {self.momentum}: expected 0 or more, and 0 to below 1"
            )
        if not all(isinstance(epoch, int) and epoch > 0 for epoch in self.milestones):
            raise SettingError(f"milestones {self.milestones}: expected epochs from 1 on, e.g. milestones=40+70")
        for name in ("learning_rate", "batch_size", "max_epochs", "fixed_epochs", "max_hours", "max_kwh"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingError(f"{name} is {value}; expected more than 0")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise SettingError(f"evaluate_every is {self.evaluate_every}; expected at least 1 step")
        if not 0.0 <= self.evaluate_growth < math.inf:
            raise SettingError(f"evaluate_growth is {self.evaluate_growth}; expected 0 or more, e.g. 0.1")

    def from_scratch(self) -> "Recipe":
        """The same for a model with random weights: all of it, at the rates that the paper trains with."""
        base = RECIPES["train-sgd" if self.optimizer == "sgd" else "train-adam"]
        names = "learning_rate", "weight_decay", "milestones"
        return dataclasses.replace(self, trains="all", **{name: getattr(base, name) for name in names})

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer for a model's parameters."""
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            raise ModelError("the model has no parameter that requires a gradient: there is nothing to retrain")
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        common["fused"] = all(p.device.type in _FUSED and p.is_floating_point() for p in trainable)
        if self.optimizer == "sgd":
            return torch.optim.SGD(trainable, momentum=self.momentum, **common)
        form = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return form(trainable, **common)

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the learning rate, one step an epoch."""
        if self.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.fixed_epochs or self.max_epochs)
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), gamma=0.1)


RECIPES = {
    "retrain-adam": Recipe(),
    "retrain-sgd": Recipe(optimizer="sgd", learning_rate=1e-3),
    "train-adam": Recipe(learning_rate=1e-3, weight_decay=1e-4, milestones=()),
    "train-sgd": Recipe(optimizer="sgd", learning_rate=1e-2, weight_decay=1e-4, milestones=(70,)),
}
"""The paper's recipes by name; its augmentation is ``augmentation=paper``, because a production model may have none."""


def named_recipe(spec: str, evaluate_every: int | None = None, max_epochs: int | None = None) -> Recipe:
    """A recipe by name or from a file, with some of its settings changed.

    Args:
        spec: ``NAME``, or ``FILE.toml`` of settings; then any of them, after commas: ``retrain-adam,batch_size=64``.
            Several augmentations or milestones have ``+`` between them; ``paper`` stands for the paper's augmentations.
        evaluate_every: Goes before the recipe's.
        max_epochs: Goes before the recipe's.

    Raises:
        SettingError: No such recipe or setting, or a value that it cannot have.

    Example:
        >>> named_recipe("retrain-sgd,batch_size=64,augmentation=flip+crop").augmentation
        ('flip', 'crop')
    """
    name, *changes = spec.split(",")
    settings: dict[str, Any] = {}
    if name.endswith(".toml"):
        settings |= _from_toml(Path(name))
        name = str(settings.pop("base", "retrain-adam"))
    if name not in RECIPES:
        raise SettingError(f"unknown recipe {name!r}: use one of {', '.join(RECIPES)}, or a FILE.toml of settings")
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise SettingError(f"recipe setting {change!r}: write SETTING=VALUE, e.g. batch_size=64")
        settings[key] = _parsed(value)
    settings |= {"evaluate_every": evaluate_every} if evaluate_every is not None else {}
    settings |= {"max_epochs": max_epochs} if max_epochs is not None else {}
    try:
        return from_dict(Recipe, to_dict(RECIPES[name]) | {key: _typed(key, value) for key, value in settings.items()})
    except TypeError as error:
        raise SettingError(f"recipe {spec!r} has a setting of the wrong kind: {error}") from error


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {error}") from error


def _parsed(value: str) -> Any:
    """A value as TOML has it; anything else is a word."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _typed(key: str, value: Any) -> Any:
    """A setting's value in its own form; a name or a kind that there is not is refused."""
    hints = typing.get_type_hints(Recipe)
    if key not in hints:
        raise SettingError(f"a recipe has no setting {key!r}: use one of {', '.join(hints)}")
    if key == "augmentation" and isinstance(value, str):
        return () if value in ("", "none") else PAPER if value == "paper" else tuple(value.split("+"))
    if key == "milestones" and isinstance(value, str | int):
        return tuple(_parsed(epoch) for epoch in str(value).split("+")) if value not in ("", "none") else ()
    if typing.get_origin(hints[key]) is tuple:
        if not isinstance(value, list | tuple):
            raise SettingError(f"recipe setting {key}={value}: expected a list; write it in a FILE.toml")
        return value
    wanted = [kind for kind in (typing.get_args(hints[key]) or (hints[key],)) if kind in _KINDS]
    if not wanted or type(value) is wanted[0]:
        return value
    if type(value) in (int, float) and wanted[0] in (int, float) and wanted[0](value) == value:
        return wanted[0](value)
    raise SettingError(f"recipe setting {key}={value}: expected {_KINDS[wanted[0]]}")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings as the ledger keeps them: lists for tuples."""
    return to_dict(recipe)

"""Compare a custom training loop with a forecast's recipe: optimizer, learning rate, batch size, what is trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from resque.errors import ModelError
from resque.forecasting.evaluation.matching import differing_settings
from resque.ledger.records import Forecast
from resque.models.layers import head_name

__all__ = ["other_batch_size", "other_recipe", "settings_in_use"]

_OPTIMIZERS = ("Adam", "AdamW", "SGD")


def settings_in_use(optimizer: torch.optim.Optimizer | None, model: nn.Module | None) -> dict[str, Any]:
    """Return the settings of a recipe that an optimizer shows; with the model, also what is trained.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> settings_in_use(torch.optim.SGD(model[2].parameters(), lr=0.1), model)
        {'optimizer': 'sgd', 'learning_rate': 0.1, 'trains': 'head'}
        >>> groups = [{"params": model[2].parameters(), "lr": 0.1}, {"params": model[0].parameters(), "lr": 0.01}]
        >>> settings_in_use(torch.optim.SGD(groups), None)
        {'optimizer': 'sgd', 'learning_rate': [0.01, 0.1]}
    """
    if optimizer is None:
        return {}
    names = [base.__name__ for base in type(optimizer).__mro__]
    found: dict[str, Any] = {"optimizer": next((n for n in names if n in _OPTIMIZERS), names[0]).lower()}
    rates = {float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups if "lr" in group}
    if rates:
        found["learning_rate"] = rates.pop() if len(rates) == 1 else sorted(rates)
    if model is not None:
        found["trains"] = _trained_part(optimizer, model)
    return found


def _trained_part(optimizer: torch.optim.Optimizer, model: nn.Module) -> str:
    """Return what the optimizer trains: ``all``, ``head``, ``lora``, or ``part``."""
    given = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    parameters = dict(model.named_parameters())
    trained = {name for name, parameter in parameters.items() if id(parameter) in given}
    if any("lora_" in name for name in trained):
        return "lora"
    if len(trained) == len(parameters):
        return "all"
    try:
        head = head_name(model)
    except ModelError:
        return "part"
    return "head" if trained == {name for name in parameters if name.startswith(f"{head}.")} else "part"


def other_recipe(forecast: Forecast, *used: Mapping[str, Any]) -> str:
    """Return in which settings a loop differs from a forecast's recipe, in words; empty if in none.

    Args:
        forecast: The forecast.
        used: Settings of the loop; when it is evaluated is its own affair.
    """
    recipe = {name: value for name, value in forecast.recipe.items() if not name.startswith("evaluate_")}
    differing: dict[str, tuple[Any, Any]] = {}
    for settings in used:
        differing = differing_settings(recipe, settings) | differing
    return ", ".join(f"{name} {expected}, not {given}" for name, (expected, given) in differing.items())


def other_batch_size(forecast: Forecast, samples: float | None, steps: int, steps_per_epoch: int | None) -> str:
    """Return how the batches of a loop differ from a forecast's, in words; empty if they may be the same.

    Args:
        forecast: The forecast.
        samples: Training samples passed; None if unknown.
        steps: Optimizer steps that passed them.
        steps_per_epoch: Optimizer steps in an epoch; None if unknown.
    """
    size, in_data = forecast.recipe.get("batch_size"), forecast.features.samples
    if not size:
        return ""
    if in_data and steps_per_epoch and steps_per_epoch not in (max(in_data // size, 1), -(-in_data // size)):
        return f"batch_size {size}, not about {in_data / steps_per_epoch:.3g}"
    if samples is not None and steps:
        # the last batch of an epoch may be a small one; of unknown data, an epoch has two batches at least
        in_epoch = -(-in_data // size) if in_data else steps_per_epoch or 2
        if samples > size * steps or samples * in_epoch < (in_data or size * (in_epoch - 1) + 1) * steps:
            return f"batch_size {size}, not about {samples / steps:.3g}"
    return ""

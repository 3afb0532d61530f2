"""The ways in which a model may be updated: what is trained, and how."""

import dataclasses
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from resque.errors import ModelError
from resque.forecasting.comparison import SCRATCH
from resque.models.batchnorm import has_running_statistics
from resque.models.layers import dense_names, head_name
from resque.training.finetuning import STATISTICS
from resque.training.recipe import RECIPES, Recipe

__all__ = ["ALL", "REPLAY", "SCRATCH", "Way", "ways_to_extend", "ways_to_learn", "ways_to_update"]

HEAD, LORA, ALL = "head", "lora", "all"
"""Rungs: the trained part of a model; beside them the statistics of normalization."""
REPLAY = 0.2
"""Share of old data where the recipe names none."""
_RATES = 10.0, 0.1  # times the recipe's
_FASTEST = 1e-2  # learning rate


@dataclass(frozen=True)
class Way:
    """A way to update a model.

    Attributes:
        rung: Trained part of the model.
        name: Description for people.
        recipe: Recipe of the training.
        needs_labels: Whether it needs labels of the training data.
    """

    rung: str
    name: str
    recipe: Recipe
    needs_labels: bool = True


def ways_to_update(
    model: nn.Module, recipe: Recipe, with_original: bool = False, with_scratch: bool = True
) -> Iterator[Way]:
    """Yield the ways to update a model, the cheapest first; what its layers do not allow is left out.

    Args:
        model: Model as it is now.
        recipe: Recipe that trains all layers; its ``replay`` is the share of old data where these are mixed in.
        with_original: Whether there are labeled original data to be mixed in.
        with_scratch: Whether new weights can be trained instead.

    Example:
        >>> from resque.models.networks import small_cnn
        >>> [way.name for way in ways_to_update(small_cnn(), Recipe())][:3]
        ['Re-estimate normalization', 'Retrain the head', 'Retrain all layers']
    """
    share, recipe = recipe.replay or REPLAY, dataclasses.replace(recipe, replay=0.0)
    plain, whole = (dataclasses.replace(recipe, **changed) for changed in ({"augmentation": ()}, {"trains": "all"}))
    if has_running_statistics(model):
        yield Way(
            STATISTICS, "Re-estimate normalization", dataclasses.replace(plain, trains=STATISTICS), needs_labels=False
        )
    if _has_head(model):
        yield Way(HEAD, "Retrain the head", dataclasses.replace(plain, trains=HEAD))
    yield Way(ALL, "Retrain all layers", whole)
    if with_original:
        yield Way(ALL, "All layers, with old data", dataclasses.replace(whole, replay=share))
    for factor in _RATES:
        if (rate := recipe.learning_rate * factor) <= _FASTEST:
            yield Way(ALL, f"All layers, {factor:g} × rate", dataclasses.replace(whole, learning_rate=rate))
    if _has_head(model) and len(dense_names(model)) > 1 and importlib.util.find_spec("peft"):
        yield Way(LORA, "Train adapters (LoRA)", dataclasses.replace(recipe, trains=LORA))
    if with_scratch:
        kept = "batch_size", "evaluate_every", "evaluate_growth", "max_epochs", "fixed_epochs"
        base = RECIPES[f"train-{recipe.optimizer.removesuffix('w')}"]
        scratch = dataclasses.replace(base, **{name: getattr(recipe, name) for name in kept})
        yield Way(SCRATCH, "Train from scratch", scratch)


def ways_to_learn(ways: Iterable[Way], is_untrained: bool) -> Iterator[Way]:
    """Yield those of the ways by which a new task can be learned.

    A new head must be trained, so that normalization alone is none. A model without trained weights has nothing to
    reuse: to train it is to train from scratch, whatever its index is.

    Args:
        ways: Ways to update the model.
        is_untrained: Whether its weights are random.
    """
    return (way for way in ways if way.rung == SCRATCH or not (is_untrained or way.rung == STATISTICS))


def ways_to_extend(ways: Iterable[Way], share: float, share_of_all: float, is_plain: bool) -> Iterator[Way]:
    """Yield the ways by which further classes can be learned: with old data mixed in, and the main ones without them.

    Args:
        ways: Ways to learn a new task.
        share: Share of old data that is mixed in; 0 if there are none, so that each way does without them.
        share_of_all: Share that all of the old data are; from scratch needs them all.
        is_plain: Whether a way without old data can reach the target.

    Example:
        >>> ways = [Way(ALL, "Retrain all layers", Recipe()), Way(SCRATCH, "Train from scratch", Recipe())]
        >>> [(way.name, way.recipe.replay) for way in ways_to_extend(ways, 0.2, 0.5, is_plain=True)][1:]
        [('Retrain all layers, with old data', 0.2), ('Train from scratch, with old data', 0.5)]
        >>> [way.name for way in ways_to_extend(ways, 0.0, 0.0, is_plain=True)]
        ['Retrain all layers']
    """
    for way in ways:
        is_main = "rate" not in way.name
        if is_plain and way.rung != SCRATCH and (is_main or not share):
            yield way
        if share:
            recipe = dataclasses.replace(way.recipe, replay=share_of_all if way.rung == SCRATCH else share)
            yield dataclasses.replace(way, name=f"{way.name}, with old data", recipe=recipe)


def _has_head(model: nn.Module) -> bool:
    """Return whether a model has a head, and other parameters beside it."""
    try:
        head = head_name(model)
    except ModelError:
        return False
    return any(not name.startswith(f"{head}.") for name, _ in model.named_parameters())

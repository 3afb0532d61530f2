"""Parts of the decision line: what to do, what it costs, how likely it suffices, what is free, what it loses."""

from collections.abc import Mapping
from typing import Any

from resque._format import format_about, format_price, format_probability
from resque.energy.price import Tariff
from resque.ledger.components import Estimate, Features, Pilot

__all__ = [
    "EXTRAPOLATION", "FORGETTING", "action", "costs_in_words", "free_in_words", "loss_in_words", "outcome_in_words",
    "remedy_in_words", "trained_part", "without_advice",
]  # fmt: skip

EXTRAPOLATION = "extrapolation"
"""Beginning of a reason not to rely on a forecast: the history holds nothing like the update."""
FORGETTING = 0.02 + 1e-9
"""Loss of accuracy on the original data that is worth a word: two points, whatever the rounding."""
_ACTIONS = {
    "all": "Retrain all layers",
    "head": "Retrain the head",
    "lora": "Train adapters (LoRA)",
    "norm": "Re-estimate normalization",
    "norm-scales": "Train the scales of normalization",
}
_PARTS = {"lora": "LoRA", "norm-scales": "scales"}


def trained_part(recipe: Mapping[str, Any], from_scratch: bool = False) -> str:
    """Return what a recipe trains, in a word or two; ``+old`` where original data are mixed in.

    Example:
        >>> trained_part({}), trained_part({"trains": "lora", "replay": 0.2}), trained_part({}, from_scratch=True)
        ('all', 'LoRA+old', 'scratch')
    """
    trains = str(recipe.get("trains", "all"))
    part = "scratch" if from_scratch else _PARTS.get(trains, trains)
    return f"{part}+old" if recipe.get("replay") else part


def action(recipe: Mapping[str, Any], from_scratch: bool = False) -> str:
    """Return the name of the way that a recipe is, as a request, in the words of a comparison.

    Example:
        >>> action({}, from_scratch=True)
        'Train from scratch'
        >>> action({"trains": "head"}), action({"replay": 0.2})
        ('Retrain the head', 'Retrain all layers, with old data')
    """
    trains = str(recipe.get("trains", "all"))
    name = "Train from scratch" if from_scratch else _ACTIONS.get(trains, f"Train {trains}")
    return f"{name}, with old data" if recipe.get("replay") else name


def costs_in_words(estimates: Mapping[str, Estimate], price: Estimate | None, tariff: Tariff | None) -> str:
    """Return about how long, how much energy and what money: ``about 2 min, 0.6 Wh, 0.04 EUR``."""
    costs = [format_about(cost, estimates[cost].value) for cost in ("wall_s", "energy_kwh") if cost in estimates]
    if price is not None and tariff is not None:
        costs.append(format_price(float(f"{price.value:.2g}"), tariff.currency))
    return f"about {', '.join(costs)}" if costs else "at unknown cost"


def outcome_in_words(probability: float, target_accuracy: float, pilot: Pilot | None) -> str:
    """Return how likely the target is reached, or what was measured where the run has ended."""
    if pilot is not None and pilot.stopped_by is not None:
        return f"its pilot ended at accuracy {pilot.accuracy:.3g}; {target_accuracy:g} was asked for"
    return f"{format_probability(probability)} likely to reach {target_accuracy:g}"


def free_in_words(features: Features, recipe: Mapping[str, Any]) -> str:
    """Return what is free and what it gives; empty where it is unknown or no gain, or what the recipe does itself."""
    accuracy = features.free_accuracy
    if accuracy is None or accuracy <= (features.accuracy or 0.0) or recipe.get("trains") == "norm":
        return ""
    return f"Re-estimating normalization (trains=norm) is free and gives {accuracy:.2g}."


def loss_in_words(lost: float | None, recipe: Mapping[str, Any], pilot: Pilot | None = None) -> str:
    """Return what it would lose on the original data, and the remedy; empty where that is unknown or little.

    What a pilot has measured goes before what earlier updates lost.

    Example:
        >>> loss_in_words(0.19, {})
        'It would lose about 19 points on the old data: mix some in with replay=0.2.'
        >>> loss_in_words(0.01, {}), loss_in_words(None, {})
        ('', '')
    """
    if pilot is not None and pilot.original_accuracy is not None:
        return f"On the old data its accuracy was {pilot.original_accuracy:.2f} at the end of its pilot."
    if lost is None or lost <= FORGETTING:
        return ""
    return f"It would lose about {100.0 * lost:.2g} points on the old data: {remedy_in_words(recipe)}."


def remedy_in_words(recipe: Mapping[str, Any]) -> str:
    """Return what helps a way that loses accuracy on the old data.

    Example:
        >>> remedy_in_words({"trains": "head"}), remedy_in_words({"trains": "norm"})
        ('mix some in with replay=0.2', 'use it on the new data alone')
    """
    if recipe.get("trains") == "norm":
        return "use it on the new data alone"
    return "a larger share of replay mixes more in" if recipe.get("replay") else "mix some in with replay=0.2"


def without_advice(reason: str) -> str:
    """Return a reason without what to do about it, which stands last, after a colon.

    Args:
        reason: Reason against the reliability of a forecast.

    Example:
        >>> without_advice("extrapolation: by index it is harder than all own updates: try `--pilot 100`")
        'extrapolation: by index it is harder than all own updates'
    """
    return reason.rpartition(": ")[0] or reason

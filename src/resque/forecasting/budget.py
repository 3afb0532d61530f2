"""Compare a forecast with a budget.

Each cost is compared by its one-sided upper prediction bound at the confidence of the forecast. An unreliable forecast
gives no decision, even if it exceeds the budget.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from resque._display import Display, Displayable
from resque._format import COST_NAMES, format_probability
from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.forecasting.costs import price_estimate
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.ledger.records import Estimate, Forecast

__all__ = ["BEYOND", "UNSURE", "VERDICTS", "WITHIN", "Budget", "Decision", "decide", "exit_code"]

WITHIN, BEYOND, UNSURE = 0, 3, 4
VERDICTS = {WITHIN: "within budget", BEYOND: "beyond budget", UNSURE: "not reliable enough to decide"}
"""Exit codes of the gate, and each in words."""
_LIMITS = {
    "max_kwh": ("energy_kwh", 1.0, "kWh"),
    "max_kg": ("carbon_kg", 1.0, "kg CO2e"),
    "max_hours": ("wall_s", 3600.0, "h"),
    "max_epochs": ("epochs", 1.0, "epochs"),
}
_ADVICE = {
    "energy_kwh": "no meter measured energy; run `resque doctor` to see which meters this machine has",
    "carbon_kg": "name a region with --country or --intensity",
    "price": "give --price-per-kwh or --price-per-hour",
}


@dataclass(frozen=True)
class Budget:
    """Limits on the costs of an update; None for no limit.

    Attributes:
        max_kwh: Energy of the training, in kWh.
        max_kg: Emissions of the training, in kg CO2e.
        max_hours: Training time, in hours.
        max_epochs: Number of epochs.
        max_price: Price of the training, in the tariff's currency.
        tariff: Tariff for the price.

    Example:
        >>> Budget(max_kwh=0.5).is_given, Budget().is_given
        (True, False)
    """

    max_kwh: float | None = None
    max_kg: float | None = None
    max_hours: float | None = None
    max_epochs: float | None = None
    max_price: float | None = None
    tariff: Tariff = field(default_factory=Tariff)

    def __post_init__(self) -> None:
        for name in (*_LIMITS, "max_price"):
            limit = getattr(self, name)
            if limit is not None and not (isinstance(limit, int | float) and 0.0 <= limit < math.inf):
                raise SettingError(f"budget {name} is {limit!r}: expected a number from 0 on")
        if self.max_epochs is not None and self.max_epochs != int(self.max_epochs):
            raise SettingError(f"budget max_epochs is {self.max_epochs}: expected a whole number")

    @property
    def is_given(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in (*_LIMITS, "max_price"))


@dataclass(frozen=True)
class Decision(Displayable):
    """Decision of the budget gate.

    Attributes:
        code: Exit code: 0 within budget, 3 beyond it, 4 not reliable enough to decide.
        reasons: Reasons for a code other than 0, one sentence each.
        held: Compared costs as ``(cost, upper prediction bound, budget, unit)``.
    """

    code: int
    reasons: tuple[str, ...]
    held: tuple[tuple[str, float, float, str], ...]

    @property
    def verdict(self) -> str:
        """Exit code in words."""
        exceeded = any(bound > limit for _, bound, limit, _ in self.held)
        return "target too unlikely" if self.code == BEYOND and not exceeded else VERDICTS[self.code]

    def _display(self) -> Display:
        rows = [(_name(cost), f"{bound:.3g} {unit}", f"{limit:g} {unit}") for cost, bound, limit, unit in self.held]
        return Display(f"Budget decision: {self.verdict}", ("cost", "upper bound", "budget"), rows, self.reasons)


def decide(forecast: Forecast, budget: Budget) -> Decision:
    """Compare a forecast with a budget.

    Args:
        forecast: Forecast; its level is the confidence.
        budget: Limits.
    """
    compared, missing = [], []
    for option, cost, limit, bound, unit in _comparisons(forecast, budget):
        if bound is None:
            advice = _advice(forecast, cost, budget)
            missing.append(f"{option} is given, but the forecast has no {_name(cost)}: {advice}")
        else:
            compared.append((cost, bound, limit, unit))
    if unreliable := (*forecast.reliability_issues, *missing):
        return Decision(UNSURE, unreliable, tuple(compared))
    reasons = [
        f"the upper bound on {_name(cost)} at {forecast.level:.0%} confidence is {bound:.3g} {unit}; the budget is "
        f"{limit:g}"
        for cost, bound, limit, unit in compared
        if bound > limit * (1.0 + 1e-9)
    ]
    if forecast.probability_reached < forecast.level:
        reasons.append(
            f"the probability of reaching accuracy {forecast.target_accuracy:g} within {forecast.max_steps:,} steps is "
            f"{format_probability(forecast.probability_reached)}, below {forecast.level:.0%}"
        )
    return Decision(BEYOND if reasons else WITHIN, tuple(reasons), tuple(compared))


def exit_code(forecast: Forecast, decision: Decision | None) -> int:
    """Return the exit code of a decision; without a budget, 4 if neither a pilot nor enough own updates support it."""
    if decision is not None:
        return decision.code
    at_target = not forecast.alternatives
    by_pilot = forecast.pilot is not None and not forecast.reliability_issues
    return WITHIN if at_target or by_pilot or forecast.n_history >= FEWEST_UPDATES else UNSURE


def _comparisons(forecast: Forecast, budget: Budget) -> Iterator[tuple[str, str, float, float | None, str]]:
    """Yield ``(option, cost, budget, upper prediction bound, unit)`` for each limit."""
    for name, (cost, scale, unit) in _LIMITS.items():
        limit, bound = getattr(budget, name), _upper(forecast.estimates.get(cost))
        if limit is not None:
            yield f"--{name.replace('_', '-')}", cost, limit, None if bound is None else bound / scale, unit
    if budget.max_price is not None:
        price = price_estimate(forecast.estimates, budget.tariff)
        yield "--max-price", "price", budget.max_price, _upper(price), budget.tariff.currency


def _upper(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.upper


def _advice(forecast: Forecast, cost: str, budget: Budget) -> str:
    """Return what to do about a missing cost."""
    needs_energy = cost != "price" or budget.tariff.per_kwh
    return _ADVICE["energy_kwh" if needs_energy and "energy_kwh" not in forecast.estimates else cost]


def _name(cost: str) -> str:
    return COST_NAMES.get(cost, cost)

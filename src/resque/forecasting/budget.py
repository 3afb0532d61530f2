"""Budgets held against a forecast: go on, stop, or nobody can tell.

A cost is held against its budget by the value that it stays below with the forecast's confidence, one-sided. What is
not reliable enough to decide goes before what is too dear.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from resque._display import Display, Displayable
from resque._format import COST_NAMES, format_probability
from resque.energy.price import Tariff
from resque.forecasting.costs import price_estimate
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.ledger.records import Forecast

WITHIN, BEYOND, UNSURE = 0, 3, 4
_NEEDS = {
    "energy_kwh": "no meter told the energy of a step (`resque doctor` says which this machine has)",
    "carbon_kg": "name a region with --country or --intensity",
    "price": "give --price-per-kwh or --price-per-hour",
}
VERDICTS = {WITHIN: "within budget", BEYOND: "beyond budget", UNSURE: "not reliable enough to decide"}
_COSTS = {
    "max_kwh": ("energy_kwh", 1.0, "kWh"),
    "max_kg": ("carbon_kg", 1.0, "kg CO2e"),
    "max_hours": ("wall_s", 3600.0, "h"),
    "max_epochs": ("epochs", 1.0, "epochs"),
}


@dataclass(frozen=True)
class Budget:
    """What an update may cost; None for no limit.

    Attributes:
        max_kwh: Energy of its training.
        max_kg: Its emissions, kg CO2e.
        max_hours: Time of its training.
        max_epochs: Epochs; the run ends there, so it is the chance of arriving by then that counts.
        max_price: In the tariff's currency.
        tariff: What it is paid by.
    """

    max_kwh: float | None = None
    max_kg: float | None = None
    max_hours: float | None = None
    max_epochs: float | None = None
    max_price: float | None = None
    tariff: Tariff = field(default_factory=Tariff)

    @property
    def is_given(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in (*_COSTS, "max_price"))


@dataclass(frozen=True)
class Decision(Displayable):
    """What the gate says.

    Attributes:
        code: 0 within budget, 3 beyond it, 4 not reliable enough to decide.
        reasons: Why not 0; one sentence each.
        held: What was held against what: ``(cost, its one-sided value, budget, unit)``.
    """

    code: int
    reasons: tuple[str, ...]
    held: tuple[tuple[str, float, float, str], ...]

    @property
    def verdict(self) -> str:
        """The code in words."""
        return VERDICTS[self.code]

    def _display(self) -> Display:
        return Display(
            f"Budget decision: {self.verdict}",
            ("cost", "upper bound", "budget"),
            [
                (COST_NAMES.get(cost, cost), f"{value:.3g} {unit}", f"{limit:g} {unit}")
                for cost, value, limit, unit in self.held
            ],
            self.reasons,
        )


def decide(made: Forecast, budget: Budget) -> Decision:
    """Hold a forecast against a budget.

    Args:
        made: The forecast; its level is the confidence.
        budget: The limits.
    """
    held, missing = [], []
    for name, cost, limit, value, unit in _compared(made, budget):
        if value is None:
            missing.append(f"{name} is given and the forecast has no {_said(cost)}: {_need(made, cost, budget)}")
        else:
            held.append((cost, value, limit, unit))
    reliability_issues = (*made.reliability_issues, *missing)
    if reliability_issues:
        return Decision(UNSURE, reliability_issues, tuple(held))
    reasons = [
        f"{_said(cost)} stays below {value:.3g} {unit} with {made.level:.0%} confidence; the budget is {limit:g}"
        for cost, value, limit, unit in held
        if value > limit * (1.0 + 1e-9)
    ]
    if made.probability_reached < made.level:
        reasons.append(
            f"the chance of reaching accuracy {made.target_accuracy:g} within {made.max_steps:,} steps is "
            f"{format_probability(made.probability_reached)}, below {made.level:.0%}"
        )
    return Decision(BEYOND if reasons else WITHIN, tuple(reasons), tuple(held))


def _compared(made: Forecast, budget: Budget) -> Iterator[tuple[str, str, float, float | None, str]]:
    """``(option, cost, budget, one-sided value, unit)`` of each limit that is given."""
    for name, (cost, scale, unit) in _COSTS.items():
        limit = getattr(budget, name)
        if limit is not None:
            upper = _upper(made, cost)
            yield f"--{name.replace('_', '-')}", cost, limit, None if upper is None else upper / scale, unit
    if budget.max_price is not None:
        paid = price_estimate(made.estimates, budget.tariff)
        yield "--max-price", "price", budget.max_price, None if paid is None else paid.upper, budget.tariff.currency


def _need(made: Forecast, cost: str, budget: Budget) -> str:
    by_energy = cost != "price" or budget.tariff.per_kwh
    return _NEEDS["energy_kwh" if by_energy and "energy_kwh" not in made.estimates else cost]


def _said(cost: str) -> str:
    return COST_NAMES.get(cost, cost)


def exit_code(made: Forecast, decision: Decision | None) -> int:
    """The exit code: the decision's; without a budget only what rests on too few own updates is told by one."""
    if decision is not None:
        return decision.code
    nothing_to_do = not made.alternatives
    return WITHIN if nothing_to_do or made.n_history >= FEWEST_UPDATES else UNSURE


def _upper(made: Forecast, cost: str) -> float | None:
    estimate = made.estimates.get(cost)
    return None if estimate is None else estimate.upper

"""The decision of the budget gate as Markdown, for the job summary of a CI run."""

from resque._format import (
    COST_NAMES,
    NOT_MEASURED,
    format_estimate,
    format_interval,
    format_price,
    printable,
)
from resque.forecasting.budget import UNSURE, VERDICTS, Decision
from resque.ledger.records import Estimate, Forecast

__all__ = ["decision_markdown", "undecided_markdown"]

_HEADING = "### Update forecast: "


def undecided_markdown(reason: str) -> str:
    """Return the summary of a run for which no forecast could be computed.

    Example:
        >>> print(undecided_markdown("3 updates in the ledger, 8 are needed").splitlines()[2])
        - 3 updates in the ledger, 8 are needed
    """
    return f"{_HEADING}{VERDICTS[UNSURE]}\n\n- {printable(reason)}\n"


def decision_markdown(
    forecast: Forecast,
    decision: Decision,
    price: Estimate | None = None,
    currency: str = "",
    price_of_labels: float | None = None,
) -> str:
    """Return the decision with every forecast cost, its upper bound, its budget, and the reasons.

    Args:
        forecast: The forecast that the decision is about.
        decision: Result of :func:`resque.forecasting.budget.decide`.
        price: Forecast price of training, evaluation and asking once; None without a tariff.
        currency: Currency of the price.
        price_of_labels: Price of the missing labels; None if they have none.
    """
    budgets = {cost: budget for cost, (_, budget) in decision.amounts.items()}
    rows = [
        (COST_NAMES[c], *format_estimate(c, e.value, e.interval, e.upper), budgets.get(c, ""))
        for c, e in forecast.estimates.items()
    ]
    if price is not None:
        median, upper = format_price(price.value, currency), format_price(price.upper, currency)
        interval = format_interval("", price.value, price.interval)
        budget = budgets.get("price", "") if price_of_labels is None else ""
        rows.append(("price", median, interval, upper, budget))
    if price_of_labels is not None:
        labels = format_price(price_of_labels, currency)
        rows.append(("price of labels", labels, NOT_MEASURED, labels, ""))
        rows += [
            ("price in all", NOT_MEASURED, NOT_MEASURED, format_price(bound, unit), budgets[cost])
            for cost, bound, _, unit in decision.held
            if cost == "price"
        ]
    level = f"{forecast.level:.0%}"
    return "\n".join(
        [
            f"{_HEADING}{decision.verdict}",
            "",
            f"`{printable(forecast.train_data)}` to accuracy {forecast.target_accuracy:g}; probability of reaching it "
            f"{forecast.chance}; forecast `{forecast.id}`"
            f"{f', after a {forecast.pilot.summary}' if forecast.pilot else ''}.",
            "",
            f"| cost | forecast | {level} interval | {level} upper bound | budget |",
            "|---|--:|--:|--:|--:|",
            *(f"| {printable(' | '.join(row))} |" for row in rows),
            "",
            *(f"- {printable(reason)}" for reason in decision.reasons),
            "",
        ]
    )

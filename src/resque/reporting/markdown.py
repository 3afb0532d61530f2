"""The decision of a budget gate as Markdown, for the step summary of a CI job."""

from resque._format import COST_NAMES, format_estimate, format_interval, format_price, format_probability
from resque.forecasting.budget import UNSURE, VERDICTS, Decision
from resque.ledger.records import Estimate, Forecast

_HEADING = "### Update forecast: "


def undecided_markdown(reason: str) -> str:
    """The summary where no forecast could be made."""
    return f"{_HEADING}{VERDICTS[UNSURE]}\n\n- {reason}\n"


def decision_markdown(made: Forecast, decision: Decision, paid: Estimate | None = None, currency: str = "") -> str:
    """The decision as Markdown, for a CI job's step summary."""
    lines = [
        f"{_HEADING}{decision.verdict}",
        "",
        f"`{made.train_data}` to accuracy {made.target_accuracy:g}; chance of reaching it "
        f"{format_probability(made.probability_reached)}; forecast `{made.id}`.",
        "",
        f"| cost | forecast | {made.level:.0%} interval | stays below ({made.level:.0%}) | budget |",
        "|---|---|---|---|---|",
    ]
    budgets = {cost: f"{limit:g} {unit}" for cost, _, limit, unit in decision.held}
    for cost, estimate in made.estimates.items():
        cells = format_estimate(cost, estimate.value, estimate.interval, estimate.upper)
        lines.append(f"| {COST_NAMES[cost]} | {' | '.join(cells)} | {budgets.get(cost, '')} |")
    if paid is not None:
        cells = (
            format_price(paid.value, currency),
            format_interval("", paid.value, paid.interval),
            format_price(paid.upper, currency),
        )
        lines.append(f"| price of training | {' | '.join(cells)} | {budgets.get('price', '')} |")
    return "\n".join([*lines, "", *(f"- {reason}" for reason in decision.reasons), ""])

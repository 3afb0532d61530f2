"""The life of a model: original training, every update, every question, and what is left of a yearly budget.

Nothing is counted twice. A pilot that an update continued is a part of that update; a pilot that none continued is a
part of its question. A total names how many of its entries are known, and is None where none is.
"""

import dataclasses
import datetime
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED, format_column, format_cost, format_count, format_number
from resque._plain import Serializable
from resque.energy.grid import Grid
from resque.energy.price import Spending, Tariff, price_of
from resque.forecasting.model_lines import Entry, began_untrained, model_lines
from resque.ledger.records import Forecast, Question, Update

__all__ = ["ORIGINAL", "QUESTIONS", "SCRATCH", "UPDATES", "Life", "Part", "Total", "lives"]

ORIGINAL, UPDATES, SCRATCH, QUESTIONS = "original training", "updates", "from scratch", "questions"
"""Parts of a life: the training that made the root, updates of a trained model, trainings from new weights beside
them, and forecasts with their pilots and what comparisons took beside them."""
_PARTS = ORIGINAL, UPDATES, SCRATCH, QUESTIONS
_YEAR_DAYS = 365
_WHOLE = "evaluation is in these sums; `resque ledger list` has the training alone"
_ONE_FOR_EACH_WAY = (
    "questions: a comparison counts one for each way, or one if it stored nothing new or was interrupted"
)
_NO_ORIGINAL = "the original training is not in the ledger, so not in these sums"


@dataclass(frozen=True)
class Total(Serializable):
    """A sum that tells how much of it is known.

    Attributes:
        value: Sum of what is known; None if nothing is.
        known: Number of known terms.
        of: Number of all terms.

    Example:
        >>> Total.of_values([1.0, None, 2.5])
        Total(value=3.5, known=2, of=3)
    """

    value: float | None
    known: int
    of: int

    @classmethod
    def of_values(cls, values: Iterable[float | None]) -> "Total":
        """Return the sum of values, of which some may be unknown."""
        every = list(values)
        known = [value for value in every if value is not None]
        return cls(math.fsum(known) if known or not every else None, len(known), len(every))

    @classmethod
    def joined(cls, totals: Iterable["Total"]) -> "Total":
        """Return the sum of sums.

        Example:
            >>> Total.joined([Total(3.5, 2, 3), Total(None, 0, 1)])
            Total(value=3.5, known=2, of=4)
        """
        every = list(totals)
        known, of = sum(total.known for total in every), sum(total.of for total in every)
        value = math.fsum(total.value for total in every if total.value is not None)
        return cls(value if known or not of else None, known, of)

    @property
    def is_complete(self) -> bool:
        """Whether every term is known."""
        return self.known == self.of


@dataclass(frozen=True)
class Part(Serializable):
    """What a part of a life took.

    Attributes:
        n: Number of entries.
        wall_s: Machine time in seconds; None for an original training that is not in the ledger.
        energy_kwh: Energy.
        carbon_kg: Emissions, kg CO2e.
        prices: Currency → price; each counts all entries of the part.
    """

    n: int
    wall_s: float | None
    energy_kwh: Total
    carbon_kg: Total
    prices: dict[str, Total]


@dataclass(frozen=True)
class Life(Displayable):
    """The life of a model line: a root model and all that descends from it.

    Attributes:
        root: Fingerprint of the root model.
        model: Name of the model.
        parts: Name of a part → what it took: original training, updates, trainings from scratch beside
            them, and questions.
        total: All of them together.
        reuse_kwh: Energy of all updates of a trained model, those that missed their target too, and of all questions.
        scratch_kwh: Energy of a training from scratch for each update that arrived; None where it is unknown.
        spent_kwh: Energy of the last 365 days.
        yearly_kwh: Budget of a year, which all model lines of the ledger share; None without one.
        notes: Basis of the figures.
        all_spent_kwh: Energy of the last 365 days of all lines; None if there is no other.
    """

    root: str
    model: str
    parts: dict[str, Part]
    total: Part
    reuse_kwh: Total
    scratch_kwh: float | None
    spent_kwh: Total
    yearly_kwh: float | None = None
    notes: tuple[str, ...] = ()
    all_spent_kwh: Total | None = None
    arrived: int = 0
    """Number of updates that reached their target."""

    @property
    def left_kwh(self) -> float | None:
        """What all lines leave of the yearly budget at most; None without a budget or where nothing is known."""
        spent = self.all_spent_kwh or self.spent_kwh
        return None if self.yearly_kwh is None or spent.value is None else self.yearly_kwh - spent.value

    @property
    def sentence(self) -> str:
        """The life in a sentence or two."""
        total = self.total
        costs = [*_cells("energy_kwh", [total.energy_kwh]), *_cells("carbon_kg", [total.carbon_kg], "CO2e")]
        costs += [_cells("price", [price], currency)[0] for currency, price in total.prices.items()]
        text = f"So far {', '.join(cost for cost in costs if not cost.startswith(NOT_MEASURED)) or 'unknown costs'}."
        left = self.left_kwh
        if left is None or self.yearly_kwh is None:
            return text
        most = "" if (self.all_spent_kwh or self.spent_kwh).is_complete else "at most "
        budget, share = format_cost("energy_kwh", self.yearly_kwh), self._share()
        if left < 0.0:
            return f"{text} The year's budget of {budget} is exceeded by {format_cost('energy_kwh', -left)}{share}."
        return f"{text} Of the year's budget of {budget}, {most}{format_cost('energy_kwh', left)} is left{share}."

    def _share(self) -> str:
        """Return what this line took of a budget that several share; empty for one line."""
        if self.all_spent_kwh is None:
            return ""
        spent, yearly = self.spent_kwh, self.yearly_kwh
        if spent.value is None:
            return " by all model lines; what this one took is unknown"
        least = "" if spent.is_complete else "at least "
        percent = f" ({spent.value / yearly:.0%})" if yearly else ""
        return f" by all model lines; this one took {least}{format_cost('energy_kwh', spent.value)}{percent}"

    def _display(self) -> Display:
        named = [*self.parts.items(), ("all", self.total)]
        columns = [
            format_column("wall_s", [part.wall_s for _, part in named]),
            _cells("energy_kwh", [part.energy_kwh for _, part in named]),
            _cells("carbon_kg", [part.carbon_kg for _, part in named]),
            *(_cells("price", [part.prices[currency] for _, part in named]) for currency in self.total.prices),
        ]
        cells = zip(named, *columns, strict=True)
        rows = [(name, f"{part.n:,}", *costs) for (name, part), *costs in cells if part.n or name != SCRATCH]
        return Display(
            f"{self.model}, from {self.root[:8] or 'an unknown model'}: {self.sentence}",
            ("part", "n", "time", "energy", "CO2e", *(f"price, {currency}" for currency in self.total.prices)),
            rows,
            [*self._reuse(), *self.notes, *([_WHOLE] if self.parts[UPDATES].n else [])],
        )

    def _reuse(self) -> list[str]:
        """Return the comparison of reuse with training from scratch, where both are known."""
        if not self.scratch_kwh or not self.reuse_kwh.value:
            return []
        n, factor = self.parts[UPDATES].n, format_number(self.scratch_kwh / self.reuse_kwh.value)
        (reuse,), scratch = _cells("energy_kwh", [self.reuse_kwh]), format_cost("energy_kwh", self.scratch_kwh)
        updates, trainings = format_count(n, "update"), format_count(self.arrived, "training")
        return [
            f"reuse took {reuse}, for {updates} ({self.arrived} arrived) and all questions; {trainings} from scratch "
            f"would take {scratch}, {factor} times as much"
        ]


def _cells(cost: str, totals: Sequence[Total], unit: str = "") -> list[str]:
    """Return sums in one unit, each with how much of it is known."""
    texts = [f"{text} {unit}".rstrip() for text in format_column(cost, [total.value for total in totals])]
    return [
        text if total.is_complete or total.value is None else f"{text} ({total.known} of {total.of} known)"
        for text, total in zip(texts, totals, strict=True)
    ]


@dataclass(frozen=True)
class _Entry:
    """An entry of a life: an update or a question."""

    part: str
    created_utc: str
    spending: Spending
    grid: Grid | None
    tariff: Tariff | None

    @property
    def carbon_kg(self) -> float | None:
        return None if self.grid is None else self.grid.carbon_kg(self.spending.energy_kwh)

    @property
    def price(self) -> float | None:
        return None if self.tariff is None else price_of(self.tariff, [self.spending])


def lives(
    updates: Sequence[Update],
    forecasts: Sequence[Forecast],
    questions: Sequence[Question] = (),
    *,
    yearly_kwh: float | None = None,
    tariff: Tariff | None = None,
    today_utc: str = "",
) -> list[Life]:
    """Return the life of each model line, the one with the newest entry last.

    Args:
        updates: All updates that are not void.
        forecasts: All forecasts that are not void.
        questions: What was asked without a forecast.
        yearly_kwh: Energy budget of a year for all lines together; None for none.
        tariff: Prices of entries that have none of their own.
        today_utc: End of the year that the budget is for, ISO 8601; empty takes the newest entry's.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> (life,) = lives(bundled_updates()[:1], [])
        >>> {name: part.n for name, part in life.parts.items()}
        {'original training': 0, 'updates': 1, 'from scratch': 0, 'questions': 0}
    """
    settled = {update.forecast_id: update for update in reversed(updates) if update.forecast_id is not None}
    every: list[Entry] = [*updates, *forecasts, *questions]
    today = today_utc or max((entry.created_utc for entry in every), default="")
    settings, untrained = (yearly_kwh, tariff, today), began_untrained(updates, forecasts)
    lines = model_lines(updates, forecasts, untrained, questions)
    found = [_life(root, line, settled, untrained, settings) for root, line in lines.items()]
    spent = Total.joined(life.spent_kwh for life in found) if len(found) > 1 else None
    return [dataclasses.replace(life, all_spent_kwh=spent) for life in found]


def _life(
    root: str,
    line: Sequence[Entry],
    settled: Mapping[str, Update],
    untrained: frozenset[str],
    settings: tuple[float | None, Tariff | None, str],
) -> Life:
    yearly_kwh, tariff, today = settings
    updates = [each for each in line if isinstance(each, Update)]
    forecasts = [each for each in line if isinstance(each, Forecast)]
    part_of = {
        each.id: UPDATES if each.id not in untrained else ORIGINAL if each.child == root else SCRATCH
        for each in updates
    }  # fmt: skip
    asked = [each for each in line if not isinstance(each, Update)]
    entries = [*_of_updates(updates, part_of, tariff), *_of_questions(asked, settled, tariff)]
    currencies = sorted({entry.tariff.currency for entry in entries if entry.tariff is not None})
    arrived = sum(update.reached for update in updates if update.id not in untrained)
    parts = {name: _sum([each for each in entries if each.part == name], currencies) for name in _PARTS}
    if not parts[ORIGINAL].n:  # it took something, but nobody knows what
        unknown = Total(None, 0, 0)
        parts[ORIGINAL] = Part(0, None, unknown, unknown, dict.fromkeys(currencies, unknown))
    scratch_kwh, note = _from_scratch([each for each in updates if each.id in untrained], forecasts)
    notes = [
        _ONE_FOR_EACH_WAY if len(forecasts) > 1 else "",
        _continued(forecasts, settled),
        note if arrived else "",
        "" if parts[ORIGINAL].n else _NO_ORIGINAL,
    ]
    return Life(
        root=root,
        model=next((each.model for each in reversed(line) if each.model), ""),
        parts=parts,
        total=_sum(entries, currencies),
        reuse_kwh=Total.joined(parts[name].energy_kwh for name in (UPDATES, QUESTIONS)),
        scratch_kwh=None if scratch_kwh is None else scratch_kwh * arrived,
        arrived=arrived,
        spent_kwh=_in_year(entries, today),
        yearly_kwh=yearly_kwh,
        notes=tuple(filter(None, notes)),
    )


def _of_updates(updates: Sequence[Update], part_of: Mapping[str, str], tariff: Tariff | None) -> Iterator[_Entry]:
    for update in updates:
        priced = update.tariff or tariff
        yield _Entry(part_of[update.id], update.created_utc, update.spending, update.grid, priced)


def _of_questions(
    asked: Sequence[Forecast | Question], settled: Mapping[str, Update], tariff: Tariff | None
) -> Iterator[_Entry]:
    """Yield what each question took; a pilot that an update continued is a part of that update."""
    for each in asked:
        update = settled.get(each.id)
        continued = update is not None and bool(update.pilot_steps)
        spending = each.spending if isinstance(each, Question) else each.asking(continued=continued)
        priced = each.tariff or (None if update is None else update.tariff) or tariff
        yield _Entry(QUESTIONS, each.created_utc, spending, each.grid, priced)


def _continued(forecasts: Sequence[Forecast], settled: Mapping[str, Update]) -> str:
    """Return how much of what asking took counts with updates; empty if nothing does."""
    moved = [
        (each.asking(continued=False), each.asking(continued=True))
        for each in forecasts
        if each.id in settled and settled[each.id].pilot_steps and each.pilot is not None
    ]
    if not moved:
        return ""
    wall_s = format_cost("wall_s", math.fsum(whole.wall_s - rest.wall_s for whole, rest in moved))
    return f"pilots that updates continued ({len(moved)}, {wall_s}) are counted with those updates, not as questions"


def _sum(entries: Sequence[_Entry], currencies: Sequence[str]) -> Part:
    prices = {}
    for currency in currencies:
        own = [each for each in entries if each.tariff is None or each.tariff.currency == currency]
        prices[currency] = Total.of_values(each.price for each in own)
    return Part(
        n=len(entries),
        wall_s=math.fsum(each.spending.wall_s for each in entries),
        energy_kwh=Total.of_values(each.spending.energy_kwh for each in entries),
        carbon_kg=Total.of_values(each.carbon_kg for each in entries),
        prices=prices,
    )


def _from_scratch(updates: Sequence[Update], forecasts: Sequence[Forecast]) -> tuple[float | None, str]:
    """Return the mean energy of a training from new weights, and how it is known.

    Args:
        updates: Trainings from new weights.
        forecasts: Forecasts, for where none of them arrived.
    """
    measured = [update.whole_energy_kwh for update in updates if update.reached]
    known = [kwh for kwh in measured if kwh is not None]
    if known:
        return statistics.fmean(known), f"from scratch: the mean of {len(known)} measured, of any data and target"
    asked = [
        each.estimates["energy_kwh"].value for each in forecasts if each.from_scratch and "energy_kwh" in each.estimates
    ]
    return (statistics.fmean(asked), f"from scratch: the mean of {len(asked)} forecast") if asked else (None, "")


def _in_year(entries: Sequence[_Entry], today_utc: str) -> Total:
    """Return the energy of the 365 days before a time; an entry without a date counts."""
    today = _time(today_utc)

    def is_older(entry: _Entry) -> bool:
        created = _time(entry.created_utc)
        return today is not None and created is not None and (today - created).days >= _YEAR_DAYS

    return Total.of_values(entry.spending.energy_kwh for entry in entries if not is_older(entry))


def _time(text: str) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)

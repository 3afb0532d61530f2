"""Compare the ways to a target accuracy, and choose the cheapest one that suffices."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resque._display import Display, Displayable
from resque._format import (
    NOT_MEASURED,
    format_column,
    format_cost,
    format_list,
    format_number,
    format_price,
    format_probability,
    shorten_names,
)
from resque._plain import Serializable
from resque.energy.reading import EnergyReading
from resque.forecasting.break_even import BreakEven
from resque.forecasting.scored_models import ScoredModel
from resque.ledger.components import MEASURED
from resque.ledger.decision import EXTRAPOLATION, FORGETTING
from resque.ledger.records import Estimate

__all__ = ["BY_HISTORY", "BY_PILOT", "NOTHING", "SCRATCH", "Comparison", "Option", "choose"]

NOTHING, SCRATCH = "nothing", "scratch"
"""Rungs of an option that trains nothing, and of one that trains new weights."""

BY_PILOT, BY_HISTORY = "pilot", "history"
"""How an option is known that was not measured to its end: by its first steps, or by earlier updates."""
_LOST = {MEASURED: "It loses", BY_PILOT: "By the end of its pilot it has lost", BY_HISTORY: "It would lose about"}
_NAMED = 3  # ways with one remark in common
_ALIKE = 1.001  # prices of asking in one comparison, up to rounding
_COMPARED = "price", "energy_kwh", "wall_s"


@dataclass(frozen=True)
class Option(Serializable):
    """One way to the target.

    Attributes:
        id: Id of its forecast in the ledger, for ``resque retrain --forecast ID``, or of the update that did it before;
            for what needs none, its rung.
        rung: Trained part of the model: ``"nothing"``, ``"norm"``, ``"head"``, ``"lora"``, ``"all"`` or ``"scratch"``.
        name: Description for people.
        model: Model that it starts from.
        recipe: Settings of the recipe; empty where nothing is trained.
        chance: Probability of reaching the target.
        estimates: Name of a cost → its forecast, or what was measured. The price is there with a tariff.
        accuracy: Accuracy on the new test data when it ends, which is at the target or at the step budget; None if
            unknown.
        how_known: ``"measured"``, ``"pilot"`` or ``"history"``.
        labels: Number of labeled training samples that it needs.
        original_accuracy: Accuracy on the original test data afterwards, or after the pilot; None if unknown.
        original_known: Source of that accuracy: ``"measured"``, ``"pilot"`` or ``"history"``; None if it is unknown.
        trainable_share: Share of the parameters that are trained; None if unknown.
        note: Further remark, such as the reason for which it was dropped; may be empty.
        license_price: Price of the license of its model.
        update_id: Id of the update that did it before, and measured it; None if there is none.
        doubt: Reason not to rely on its chance; empty if there is none. A doubted option is the best one only if no
            other suffices.
        asking_price: Part of its price that asking took. It is spent whichever way is taken, and decides nothing.
        fees: Price of its labels, where labels have one, and of its license. They are paid beside the price, which is
            that of training, evaluation and asking as everywhere.
    """

    id: str
    rung: str
    name: str
    model: str
    recipe: Mapping[str, Any]
    chance: float
    estimates: Mapping[str, Estimate]
    accuracy: Estimate | None
    how_known: str
    labels: int = 0
    original_accuracy: float | None = None
    trainable_share: float | None = None
    note: str = ""
    license_price: float = 0.0
    original_known: str | None = None
    update_id: str | None = None
    doubt: str = ""
    asking_price: float = 0.0
    fees: float = 0.0

    @property
    def is_extrapolated(self) -> bool:
        """Whether its chance is of a kind of update that its history does not hold."""
        return self.doubt.startswith(EXTRAPOLATION)

    @property
    def nearness(self) -> tuple[float, float]:
        """How near it comes to the target: its chance in whole percent, then its accuracy."""
        return round(self.chance, 2), -1.0 if self.accuracy is None else self.accuracy.value

    def kept(self, digits: int = 2) -> str:
        """Return the accuracy on the original data in words; ``~`` where it is not measured at the end."""
        if self.original_accuracy is None:
            return NOT_MEASURED
        return f"{'~' if self.original_known in (BY_HISTORY, BY_PILOT) else ''}{self.original_accuracy:.{digits}f}"

    def cost(self, name: str) -> float | None:
        """Return the median of a cost; None if it is unknown."""
        return self.estimates[name].value if name in self.estimates else None

    def ahead(self, name: str) -> Estimate:
        """Return a known cost as ways are compared by it: the price without asking, which is spent, and with fees."""
        estimate = self.estimates[name]
        return estimate.map(lambda amount: amount - self.asking_price + self.fees) if name == "price" else estimate


@dataclass(frozen=True)
class Comparison(Displayable):
    """The ways to a target beside each other, and which one to take.

    Attributes:
        model: Model that is compared; several are separated by commas.
        train_data: New training data.
        target_accuracy: Target accuracy on the new test data.
        options: The ways, the recommended ones first, then those that suffice by their cost, then the others by chance.
        best: Id of the cheapest option that is likely enough to reach the target; None if there is none.
        ties: Ids of options that may cost as little as the best: their intervals hold each other's medians.
        nearest: Id of the option that comes nearest where none suffices; None otherwise.
        by: Name of the cost that decides: the price, else energy, else time.
        level: Smallest chance that suffices, and nominal coverage of the intervals.
        asking: Time and energy of the comparison itself.
        currency: Currency of the price.
        original_accuracy: Accuracy on the original test data before anything is done, of several models that of the
            best way's or else of the nearest's; None if unknown.
        notes: Remarks for the reader.
        first_round: Scores of each of several models from forward passes; empty for one.
        break_even: Prices at which another option becomes the cheapest.
    """

    model: str
    train_data: str
    target_accuracy: float
    options: tuple[Option, ...]
    best: str | None
    ties: tuple[str, ...]
    nearest: str | None
    by: str
    level: float
    asking: EnergyReading
    currency: str = "EUR"
    original_accuracy: float | None = None
    notes: tuple[str, ...] = ()
    first_round: tuple[ScoredModel, ...] = ()
    break_even: tuple[BreakEven, ...] = ()

    def option(self, option_id: str) -> Option:
        """Return an option by its id."""
        return next(option for option in self.options if option.id == option_id)

    @property
    def recommendation(self) -> str:
        """What to do, and why, in a sentence or two."""
        if self.best is None:
            return self._nothing_suffices()
        best = self.option(self.best)
        if best.rung == NOTHING:
            model = self.short_names[best.model] if self.has_several_models else "the model"
            return f"Do nothing: {model} is at the target already ({_accuracy(best)})."
        sentences = [f"{self.name_of(best)}: {self._costs(best)}, {self._arrival(best)}."]
        sentences += [f"Update {best.update_id} did it already."] if best.update_id else []
        pilot = ": allow a pilot by `--max-minutes`" if best.how_known == BY_HISTORY else ""
        sentences += [f"Do not rely on it: {best.doubt}{pilot}."] if best.doubt else []
        names = [self.name_of(self.option(tie)) for tie in self.ties]
        if names:
            sentences.append(f"It is a tie with {format_list(names)}: they may cost as little.")
        flips = [self._flip(each) for each in self.break_even]
        return " ".join([*sentences, *self._forgetting(best), *self._free_ways(best), *flips])

    @functools.cached_property
    def short_names(self) -> Mapping[str, str]:
        """Name of each model → the one of tables and sentences."""
        return shorten_names(self._models)

    @property
    def _models(self) -> list[str]:
        return [*(option.model for option in self.options), *(scored.model for scored in self.first_round)]

    @property
    def _has_fees(self) -> bool:
        return any(option.fees for option in self.options)

    @property
    def has_several_models(self) -> bool:
        """Whether models are compared, and not the ways of one alone."""
        return len(self.first_round) > 1

    def name_of(self, option: Option) -> str:
        """Return the name of an option, with its model where there are several."""
        return f"{option.name} ({self.short_names[option.model]})" if self.has_several_models else option.name

    def _flip(self, point: BreakEven) -> str:
        price, other = format_price(point.at, self.currency), self.name_of(self.option(point.then))
        what = "per label" if point.of == "label" else f"for the license of {self.short_names[point.model]}"
        return f"{'From' if point.above else 'Below'} {price} {what}{' on' if point.above else ''}, {other} is cheaper."

    def _nothing_suffices(self) -> str:
        if self.nearest is None:
            return f"No way to accuracy {self.target_accuracy:g} was found."
        near = self.option(self.nearest)
        likely = f"{_probability(near)} likely to get there{' (in doubt)' if near.doubt else ''}"
        how = "was measured" if near.how_known == MEASURED else "is expected of it"
        accuracy = "" if near.accuracy is None else f", and accuracy {near.accuracy.value:.2f} {how}"
        return (
            f"Nothing is at least {self.level:.0%} likely to reach accuracy {self.target_accuracy:g}. "
            f"Nearest comes “{self.name_of(near)}”: {likely}{accuracy}."
        )

    def _costs(self, option: Option) -> str:
        costs = [
            format_price(value, self.currency) if cost == "price" else format_cost(cost, value)
            for cost in ("wall_s", "energy_kwh", "price")
            if (value := option.cost(cost)) is not None and (value or cost != "price" or not option.fees)
        ]
        fees = f", and {format_price(option.fees, self.currency)} for {self._paid(option)}" if option.fees else ""
        return f"about {', '.join(costs)}{fees}" if costs else f"at unknown cost{fees}"

    def _paid(self, option: Option) -> str:
        """Return what the fees of an option are for."""
        labels = f"{option.labels:,} labels" if option.fees > option.license_price else ""
        return " and ".join(filter(None, (labels, "the license" if option.license_price else "")))

    def _arrival(self, option: Option) -> str:
        if option.how_known == MEASURED:
            return f"and accuracy {_accuracy(option)} was measured"
        return f"{format_probability(option.chance)} likely to reach {self.target_accuracy:g}"

    def _free_ways(self, best: Option) -> list[str]:
        """Say what is nearly free and does not suffice; the best way may be nearly free itself."""
        free = [
            option
            for option in self.options
            if option.how_known == MEASURED and option.id != best.id and option.labels == 0
        ]
        improved = max(free, key=lambda option: option.accuracy.value if option.accuracy else 0.0, default=None)
        if not best.labels or improved is None or improved.rung == NOTHING or improved.accuracy is None:
            return []
        return [f"{self.name_of(improved)} needs no labels and gives {improved.accuracy.value:.2f}."]

    def _forgetting(self, best: Option) -> list[str]:
        """Say what the best way loses of the original accuracy, and which way keeps the most."""
        before, after = self.original_accuracy, best.original_accuracy
        if before is None or after is None or before - after <= FORGETTING:
            return []
        points = format_number(round(100.0 * (before - after)))
        lost = f"{_LOST[best.original_known or MEASURED]} {points} points on the original data"
        own = [option for option in self.options if option.model == best.model and option.id != best.id]
        mixed = [each for each in own if each.recipe.get("replay") and each.chance >= self.level]
        known = [option for option in mixed if (option.original_accuracy or 0.0) - after > FORGETTING]
        if known:
            keeping = max(known, key=lambda option: option.original_accuracy or 0.0)
            keeps = "would keep" if keeping.original_known == BY_HISTORY else "keeps"
            so_far = " at the end of its pilot" if keeping.original_known == BY_PILOT else ""
            return [f"{lost}: “{self.name_of(keeping)}” {keeps} {keeping.kept()}{so_far}."]
        if best.rung == "norm":
            return [f"{lost}: use it on the new data alone."]
        more = "a larger share of replay mixes more in" if best.recipe.get("replay") else "mix some in with replay=0.2"
        return [f"{lost}: {more}."]

    def _display(self) -> Display:
        title = f"{self.recommendation}"
        model = ("model",) if self.has_several_models else ()
        kept = () if self.original_accuracy is None else ("on old",)
        by_price = self.by == "price"
        is_full = bool(model and kept) or bool(by_price and self._has_fees and (model or kept))
        steps = () if is_full else ("steps",)  # for which 80 columns have no room
        last = (self.currency, *(["fees"] if self._has_fees else [])) if by_price else ("energy",)
        columns = ("way", *model, "accuracy", *kept, "chance", *steps, "time", *last, "known by")
        shown = (*steps, "wall_s", self.by if by_price else "energy_kwh")
        cells = [format_column(cost, [option.cost(cost) for option in self.options]) for cost in shown]
        if by_price and self._has_fees:
            cells.append(format_column("price", [option.fees for option in self.options]))
        costs = zip(*cells, strict=True)
        rows = [self._row(*each) for each in zip(self.options, costs, strict=True)]
        lines = list(self._remarks())
        lines += [f"{self.short_names[each.model]}: {each.note}" for each in self.first_round if each.note]
        if {MEASURED} < {option.how_known for option in self.options if option.recipe}:
            lines.append("accuracy: at the end, which is the target where it is reached; measured, or expected")
        asking = [option.asking_price for option in self.options if option.recipe]
        if by_price and max(asking, default=0.0) > _ALIKE * min(asking, default=0.0):
            lines.append("each price holds what it took to ask for that way, once; only what is still to come decides")
        if by_price and self._has_fees:
            lines.append("fees: labels and license, as if they had still to be bought; they decide with the price")
        told = {option.original_known for option in self.options}
        if self.original_accuracy is not None and told & {BY_HISTORY, BY_PILOT}:
            lines.append("~ on the old data after the pilot, or as earlier updates lead to expect, the lower of both")
        asked = ", ".join(
            format_cost(c, v)
            for c, v in (("wall_s", self.asking.wall_s), ("energy_kwh", self.asking.energy_kwh))
            if v is not None
        )
        lines += [*self.notes, f"asking took {asked}, pilots included"]
        return Display(title, columns, rows, lines, text_columns=1 + len(model))

    def _remarks(self) -> Iterator[str]:
        """Yield the remarks on options, and the doubts; one that many share is said once."""
        said = [(option.note, option) for option in self.options] + [(option.doubt, option) for option in self.options]
        for note in dict.fromkeys(text for text, _ in said if text):
            names = [self.name_of(option) for text, option in said if text == note]
            names = [f"“{name}”" for name in names] if any("," in name for name in names) else names
            yield f"{format_list(names) if len(names) <= _NAMED else f'{len(names)} of the ways'}: {note}"

    def _row(self, option: Option, costs: Sequence[str]) -> tuple[str, ...]:
        mark = "→ " if option.id == self.best else "= " if option.id in self.ties else ""
        model = (self.short_names[option.model],) if self.has_several_models else ()
        kept = () if self.original_accuracy is None else (option.kept(),)
        known = _accuracy(option), *kept, _chance(option), *costs, option.how_known
        return mark + option.name, *model, *known


def choose(options: Sequence[Option], level: float) -> tuple[str | None, tuple[str, ...], str | None, str]:
    """Choose the cheapest option that suffices.

    An option suffices if its chance is at least the level; one that is in doubt, only if no other does, and an
    extrapolated one after those, the last one without a pilot. The cost that decides is the first of price, energy and
    time that all options know which suffice, and in which they differ; at the same cost the next one decides. What
    asking took is left out of the price: options that were asked for at different times have different shares of it.

    Args:
        options: The options.
        level: Smallest chance that suffices.

    Returns:
        Id of the best option or None, ids of its ties, id of the nearest option if none suffices, and the cost.

    Example:
        >>> from resque.types import Interval
        >>> def option(id, seconds, chance):
        ...     cost = Estimate(seconds, Interval(0.8 * seconds, 1.3 * seconds, 0.8, ""))
        ...     return Option(id, "all", id, "m", "", chance, {"wall_s": cost}, None, BY_PILOT)
        >>> choose([option("a", 60.0, 0.9), option("b", 10.0, 0.5), option("c", 70.0, 0.95)], level=0.8)
        ('a', ('c',), None, 'wall_s')
    """
    likely = [option for option in options if option.chance >= level]
    known = [option for option in likely if not option.is_extrapolated]
    tried = [option for option in likely if option.how_known != BY_HISTORY]
    enough = [option for option in known if not option.doubt] or known or tried or likely
    compared = enough or options
    shared = [name for name in _COMPARED if all(name in option.estimates for option in compared)]
    differing = [name for name in shared if len({option.ahead(name).value for option in compared}) > 1]
    by = next(iter([*differing, *shared]), _COMPARED[-1])
    if not enough:
        nearest = max(options, key=lambda option: option.nearness, default=None)
        return None, (), None if nearest is None else nearest.id, by
    priced = [option for option in enough if by in option.estimates]
    deciding = _COMPARED[_COMPARED.index(by) :]

    def rank(option: Option) -> tuple[float, ...]:
        return *(option.ahead(name).value if name in option.estimates else 0.0 for name in deciding), -option.chance

    best = min(priced or enough, key=rank)
    ties = tuple(option.id for option in priced if option is not best and _may_be_equal(option, best, deciding))
    return best.id, ties, None, by


def _may_be_equal(one: Option, other: Option, costs: Sequence[str]) -> bool:
    """Return whether the interval of each cost holds the median of the other, in the first cost that differs."""
    shared = [name for name in costs if name in one.estimates and name in other.estimates]
    by = next((name for name in shared if one.ahead(name).value != other.ahead(name).value), shared[0])
    first, second = one.ahead(by), other.ahead(by)
    return first.value in second.interval and second.value in first.interval


def _chance(option: Option) -> str:
    return f"{_probability(option)}{'?' if option.doubt else ''}"


def _probability(option: Option) -> str:
    return format_probability(option.chance, option.how_known == MEASURED)


def _accuracy(option: Option) -> str:
    return NOT_MEASURED if option.accuracy is None else f"{option.accuracy.value:.3f}"

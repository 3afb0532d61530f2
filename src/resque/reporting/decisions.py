"""Questions of a report: the open ones with the ways to their target, and the one that was decided last."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from resque._display import Display, describe
from resque._format import NOT_MEASURED, format_column, format_number, format_price
from resque.data.spec import shorten_data
from resque.forecasting.comparison import Comparison, Option
from resque.forecasting.evaluation.settlement import PRICE, comparable_cost
from resque.forecasting.options import stored_comparison
from resque.ledger.components import MEASURED
from resque.ledger.decision import remedy_in_words
from resque.ledger.records import Forecast, Update

__all__ = ["Question", "decided_last", "open_questions", "still_open"]

_Key = tuple[str, str, str, float]
_Pairs = Sequence[tuple[Forecast, Update]]


@dataclass(frozen=True)
class Question:
    """How a model gets to a target accuracy on new data, as a report shows it.

    Attributes:
        title: Target and data.
        sentence: Decision, or what came of it.
        notes: What else is to be known of it.
        table: Its ways beside each other; None for one alone.
    """

    title: str
    sentence: str
    notes: Sequence[str]
    table: Display | None


def still_open(pending: Sequence[Forecast], updates: Sequence[Update]) -> list[Forecast]:
    """Return the pending forecasts whose question no update has answered, by another way.

    Args:
        pending: Pending forecasts.
        updates: Updates; one that reached its target answers all questions of its model, data and that target or a
            lower one before it, and later ones where the same model had the same accuracy before: the data have not
            changed.
    """
    reached: dict[tuple[object, ...], list[Update]] = {}
    for update in (update for update in updates if update.reached):
        reached.setdefault(_key(update)[:-1], []).append(update)
    answering = [
        (each, [u for u in reached.get(_key(each)[:-1], ()) if u.target_accuracy >= each.target_accuracy])
        for each in pending
    ]
    again = {
        _key(each)
        for each, enough in answering
        if any((u.parent, u.features.accuracy) == (each.parent, each.features.accuracy) for u in enough)
    }
    return [
        each
        for each, enough in answering
        if _key(each) not in again and all(each.created_utc >= update.created_utc for update in enough)
    ]


def open_questions(
    pending: Sequence[Forecast], settled: _Pairs, names: Mapping[str, str], carry_out: Callable[[str], str]
) -> Iterator[Question]:
    """Yield the open questions, the newest first.

    Args:
        pending: Open forecasts, oldest first.
        settled: Forecasts with the updates that settled them.
        names: Id of each forecast → name of its way.
        carry_out: Function from the id of a forecast to the command that carries it out.
    """
    questions: dict[_Key, list[Forecast]] = {}
    for each in pending:
        questions[_key(each)] = [*questions.pop(_key(each), []), each]
    for key, asked in reversed(questions.items()):
        of_question = [pair for pair in settled if _key(pair[0]) == key]
        failed = [(f, u) for f, u in of_question if u.reaches(f.target_accuracy) is False]
        tried = [
            f"{names[forecast.id]} was tried: {update.peak_accuracy:.3f} at best, below {key[-1]:g} "
            f"(forecast {forecast.id} gave it {forecast.chance})."
            for forecast, update in failed
        ]
        done = {_way(forecast) for forecast, _ in failed}
        ways = [each for way, each in _by_way(asked).items() if way not in done]
        yield _open_question(ways or asked[-1:], tried, of_question, names, carry_out)


def _open_question(
    ways: Sequence[Forecast],
    tried: Sequence[str],
    settled: _Pairs,
    names: Mapping[str, str],
    carry_out: Callable[[str], str],
) -> Question:
    last = ways[-1]
    of_model = f"model {last.model}"
    if len(ways) == 1:
        is_to_do = last.estimates["steps"].value > 0.0  # else the model is at the target
        carried_out = [f"`{carry_out(last.id)}` carries it out."] if is_to_do else []
        notes = [of_model, *last.reliability_issues, *carried_out]
        return Question(_title(last), " ".join([*tried, last.decision]), notes, None)
    comparison = stored_comparison(ways, names, _accuracy_before(ways, [update for _, update in settled]))
    best = next((way.id for way in ways if way.id == comparison.best), None)
    notes = [of_model, *([] if best is None else [f"`{carry_out(best)}` carries it out."])]
    sentence = " ".join([*tried, comparison.recommendation, *_kept_in_words(comparison)])
    return Question(_title(last), sentence, notes, _ways_display(comparison))


def _kept_in_words(comparison: Comparison) -> list[str]:
    """Say what the best way keeps where the accuracy before is unknown, so that the loss is, too."""
    if comparison.best is None or comparison.original_accuracy is not None:
        return []
    best = comparison.option(comparison.best)
    if best.original_accuracy is None:
        return []
    when = "" if best.original_known == MEASURED else " at the end of its pilot"
    kept = f"On the old data its accuracy was {best.original_accuracy:.2f}{when}"
    return [f"{kept}; if that is too low, {remedy_in_words(best.recipe)}."]


def _ways_display(comparison: Comparison) -> Display:
    """Describe the ways as the terminal does, with accuracy on old data, prices and ids where they are known."""
    shown, options = describe(comparison), comparison.options
    columns, cells = list(shown.columns), [list(column) for column in zip(*shown.rows, strict=True)]
    lines = [line for line in shown.lines if line]
    if "on old" not in columns and any(option.original_accuracy is not None for option in options):
        at = columns.index("chance")
        columns.insert(at, "on old")
        cells.insert(at, [option.kept() for option in options])
        lines.append("~ on the old data after the pilot")
    if comparison.by != "price" and any("price" in option.estimates for option in options):
        at = columns.index("known by")
        columns.insert(at, "price")
        cells.insert(at, [format_price(option.cost("price"), comparison.currency) for option in options])
    columns.append("forecast")
    cells.append([option.id if option.recipe else NOT_MEASURED for option in options])
    marks = [("→ ", "→ recommended"), ("= ", "= may cost as little")]
    legend = [text for mark, text in marks if any(name.startswith(mark) for name in cells[0])]
    legend += ["? the chance is not reliable enough for a decision"] if any(each.doubt for each in options) else []
    return Display("", columns, list(zip(*cells, strict=True)), ["; ".join(legend), *lines] if legend else lines)


def decided_last(pending: Sequence[Forecast], settled: _Pairs, names: Mapping[str, str]) -> Question | None:
    """Return the question of several ways that was decided last: what was said, and what came of it.

    Args:
        pending: Forecasts that are not settled, oldest first, with those whose question another way has answered.
        settled: Forecasts with the updates that settled them.
        names: Id of each forecast or update → name of its way.
    """
    open_keys = {_key(each) for each in still_open(pending, [update for _, update in settled])}
    for forecast, _ in sorted(settled, key=lambda pair: pair[1].created_utc, reverse=True):
        key = _key(forecast)
        if key in open_keys:
            continue
        done = sorted((pair for pair in settled if _key(pair[0]) == key), key=lambda pair: pair[1].created_utc)
        ways = _by_way([each for each in pending if _key(each) == key]) | _by_way([each for each, _ in done])
        if len(ways) > 1:
            return _decided_question(list(ways.values()), {each.id: update for each, update in done}, names)
    return None


def _decided_question(ways: Sequence[Forecast], done: Mapping[str, Update], names: Mapping[str, str]) -> Question:
    updates = list(done.values())
    comparison = stored_comparison(ways, names, _accuracy_before(ways, updates))
    came = {way.id: done[way.id] for way in ways if way.id in done}
    last = max(came, key=lambda way_id: (came[way_id].reached, came[way_id].created_utc))
    update = came[last]
    cells = [format_column(cost, [getattr(update.cost, cost)])[0] for cost in ("wall_s", "energy_kwh")]
    took = " and ".join(cell for cell in cells if cell != NOT_MEASURED)
    outcome = "the target was reached" if update.reached else f"the target was missed (stopped by {update.stopped_by})"
    sentence = f"{names[last]} was carried out: {outcome}, accuracy {update.accuracy:.3f}, in {took}."
    others = f"{len(came)} of {len(ways)} ways {'was' if len(came) == 1 else 'were'} carried out."
    notes = [f"model {ways[-1].model}; update {update.id}", others, f"Said before: {comparison.recommendation}"]
    return Question(_title(ways[-1]), sentence, notes, _outcomes_display(comparison, ways, came))


def _outcomes_display(comparison: Comparison, ways: Sequence[Forecast], came: Mapping[str, Update]) -> Display:
    """Describe what was said of each way, and what came of those that were carried out."""
    of_id = {way.id: way for way in ways}
    options = [option for option in comparison.options if option.id in of_id]
    done = [came.get(option.id) for option in options]
    columns = ["way", "chance", "outcome", "accuracy", "on old"]
    rows = [
        [
            option.name,
            f"{of_id[option.id].chance}{'?' if option.doubt else ''}",
            *_outcome(option, update),
        ]
        for option, update in zip(options, done, strict=True)
    ]
    n = len(options)
    for cost, name in (("wall_s", "time"), ("energy_kwh", "energy"), (PRICE, f"price [{comparison.currency}]")):
        said = [option.cost(cost) for option in options]
        found = [
            None if u is None else comparable_cost(of_id[o.id], u, cost) for o, u in zip(options, done, strict=True)
        ]
        if all(value is None for value in said):
            continue
        values = [*said, *found]
        prices = [NOT_MEASURED if value is None else format_number(value) for value in values]
        texts = prices if cost == PRICE else format_column(cost, values)
        columns += [f"{name}, forecast", "measured"]
        for row, *pair in zip(rows, texts, texts[n:], strict=False):
            row += pair
    doubted = any(option.doubt for option in options)
    lines = ["? the chance was not reliable enough for a decision"] if doubted else []
    return Display("", columns, rows, [*lines, "accuracy, and on old data: measured after the update, or while asking"])


def _outcome(option: Option, update: Update | None) -> tuple[str, str, str]:
    """Return whether a way reached its target, its accuracy, and that on old data, where they were measured."""
    if update is not None:
        after = update.original_accuracy_after
        kept = NOT_MEASURED if after is None else f"{after:.2f}"
        return "reached" if update.reached else "missed", f"{update.accuracy:.3f}", kept
    if option.how_known != MEASURED or option.accuracy is None:
        return NOT_MEASURED, NOT_MEASURED, NOT_MEASURED
    return "reached" if option.chance >= 1.0 else "missed", f"{option.accuracy.value:.3f}", option.kept()


def _title(forecast: Forecast) -> str:
    return f"accuracy {forecast.target_accuracy:g} on {shorten_data(forecast.train_data)}"


def _accuracy_before(ways: Sequence[Forecast], updates: Sequence[Update]) -> float | None:
    """Return the accuracy on the original data before an update of the model; None if no update measured it."""
    parents = {way.parent for way in ways}
    known = [u.original_accuracy_before for u in updates if u.parent in parents and not u.from_scratch]
    return next((each for each in reversed(known) if each is not None), None)


def _by_way(forecasts: Sequence[Forecast]) -> dict[str, Forecast]:
    """Return the newest forecast of each way."""
    return {_way(each): each for each in forecasts}


def _way(forecast: Forecast) -> str:
    return json.dumps([forecast.from_scratch, dict(forecast.recipe)], sort_keys=True)


def _key(record: Forecast | Update) -> _Key:
    return record.model, record.train_data, record.test_data, record.target_accuracy

"""Page of ``which_model.py``: how well each score ordered the candidates of a new task, by what each really took."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis import markdown, number
from ranking import CHANCE, FORECAST, SIZE, TASK_INDEX, judged
from resque._format import format_probability
from resque.ledger.decision import EXTRAPOLATION
from resque.workflows.engine import Row

SCORES = "LogME", "H-score", "k-NN accuracy"
OF_WAY = {
    "Retrain the head": "head",
    "Retrain all layers": "all layers",
    "All layers, 10 × rate": "10 × rate",
    "Train from scratch": "from scratch",
}
"""Name of a way in a comparison → its name in the runs; other ways were not run."""
NOTE = """Ten candidates, three of them pre-trained on ImageNet, for each of a few new tasks; one seed. Examples, not a
study: no interval is given, because the tasks are too few for one.

* **Truth.** Head, all layers, all layers at ten times the rate, and from scratch (small networks) were run to their
  ends. A candidate costs what the cheapest of its ways that arrived took, by energy. One that never arrived counts as
  the dearest: all that its dearest way took, and no less than the dearest candidate that arrived. A tenth of the rate
  was not run, and no ImageNet network was trained from scratch.
* **Energy** is that of the training, by resque's default meter ({methods}). It is by processor time, so
  other work on the machine does not make it dearer. A run that is too short for the meter counts its processor seconds,
  at the kWh per second of the other runs of its task.
* **Steps** of a head are over stored features and cost nearly nothing; those of a large network cost more than those of
  a small one. So steps and energy disagree here.
* **Forecast**: of each candidate alone, on the first day, from bundled updates, without pilots; of the ways that were
  run, the one that comes first. Ways that are at least 80 % likely go by their energy, those that resque calls
  extrapolated after the others; then the rest by their chance.
* **Weighted Kendall's τ**: 1 is the true order, 0 chance; the cheapest places weigh most. **Regret** of the first
  choice: what it took over what the best one took, less one. Models that share the first place share the choice."""
HEAD = (
    "ranked by", "τ, steps", "τ, kWh", "regret, steps", "regret, kWh", "first choice", "it arrives",
)  # fmt: skip
CANDIDATES = (
    "candidate", "LogME", "H-score", "k-NN", "index", "parameters", "kept", "forecast: way", "chance", "Wh",
    "truth: cheapest way", "steps", "Wh",
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What a candidate really took.

    Attributes:
        way: Its cheapest way that arrived; empty if none did.
        steps: Steps of that way, or what counts where none arrived.
        kwh: Energy of that way, or what counts where none arrived.
        best: Highest accuracy of all its ways.
    """

    way: str
    steps: float
    kwh: float
    best: float


def energies(runs: Sequence[Row]) -> dict[str, float]:
    """Return the energy of each run, by its key."""
    rates = [run["kwh"] / run["processor_s"] for run in runs if run["kwh"]]
    rate = statistics.median(rates) if rates else math.nan
    return {run["key"]: run["kwh"] or rate * run["processor_s"] for run in runs}


def truths(runs: Sequence[Row]) -> dict[str, Truth]:
    """Return what each candidate really took."""
    kwh, found, names = energies(runs), dict[str, Truth](), dict.fromkeys(run["model"] for run in runs)
    of_model = {name: [run for run in runs if run["model"] == name] for name in names}
    for name, own in of_model.items():
        arrived = [run for run in own if run["reached"]]
        if arrived:
            first = min(arrived, key=lambda run: kwh[run["key"]])
            best = max(run["best"] for run in own)
            found[name] = Truth(first["way"], float(first["steps"]), kwh[first["key"]], best)
    most_steps = max((each.steps for each in found.values()), default=0.0)
    most_kwh = max((each.kwh for each in found.values()), default=0.0)
    for name in [name for name in names if name not in found]:
        own = of_model[name]
        steps = max(most_steps, *(float(run["steps"]) for run in own))
        energy = max(most_kwh, *(kwh[run["key"]] for run in own))
        found[name] = Truth("", steps, energy, max(run["best"] for run in own))
    return {name: found[name] for name in names}


def place(way: Row, level: float) -> tuple[int, float]:
    """Return what sorts a way among all that were forecast."""
    if way["chance"] < level:
        return 2, -way["chance"]
    return int(way["doubt"].startswith(EXTRAPOLATION)), way["kwh"]


def first_ways(forecasts: Sequence[Row], runs: Sequence[Row]) -> dict[str, Row]:
    """Return by candidate the way that its forecast puts first, of those that were run."""
    known = {(run["model"], run["way"]) for run in runs}
    return {
        row["model"]: min(
            (way for way in row["ways"] if (row["model"], OF_WAY.get(way["way"])) in known),
            key=lambda way: place(way, row["level"]),
        )
        for row in forecasts
    }


def predicted(asked: Row, ways: Mapping[str, Row], level: float) -> dict[str, dict[str, float]]:
    """Return by the name of a score what it predicts of each candidate; the smallest is its first choice."""
    places = {name: place(way, level) for name, way in ways.items()}
    order = sorted({*places.values()})
    scores: Mapping[str, Row] = asked["scores"]
    return {
        FORECAST: {name: float(order.index(each)) for name, each in places.items()},
        **{score: {name: -each[score] for name, each in scores.items()} for score in SCORES},
        TASK_INDEX: {name: each["index"] for name, each in scores.items()},
        SIZE: {name: each["static_cost"] for name, each in scores.items()},
        CHANCE: dict.fromkeys(scores, 0.0),
    }


def rankings(costs: Mapping[str, Mapping[str, float]], truth: Mapping[str, Truth]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one task: how well each score ordered its candidates."""
    steps, kwh = [each.steps for each in truth.values()], [each.kwh for each in truth.values()]
    for score, known in costs.items():
        values = [known[name] for name in truth]
        by_steps, by_kwh = judged(steps, values), judged(kwh, values)
        first = [name for name in truth if known[name] == min(values)]
        arrives = sum(bool(truth[name].way) for name in first)
        yield (
            score, *(f"{each[0]:.2f}" if math.isfinite(each[0]) else "–" for each in (by_steps, by_kwh)),
            f"{by_steps[1]:.2f}", f"{by_kwh[1]:.2f}", first[0] if len(first) == 1 else f"{len(first)} of {len(truth)}",
            f"{arrives} of {len(first)}" if len(first) > 1 else "yes" if arrives else "no",
        )  # fmt: skip


def lines(asked: Row, ways: Mapping[str, Row], truth: Mapping[str, Truth]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each candidate, the cheapest first."""
    for name, true in sorted(truth.items(), key=lambda item: (not item[1].way, item[1].kwh, -item[1].best)):
        score, way = asked["scores"][name], ways[name]
        cost = (true.way, f"{true.steps:.0f}", wh(true.kwh)) if true.way else (f"no, {true.best:.3f}", "–", "–")
        yield (
            name, *(f"{score[each]:.2f}" for each in (*SCORES, "index")), f"{score['parameters']:,}",
            "yes" if score["is_kept"] else "no", way["way"], format_probability(way["chance"]), wh(way["kwh"]), *cost,
        )  # fmt: skip


def sentence(asked: Row, runs: Sequence[Row], truth: Mapping[str, Truth]) -> str:
    """Return what the comparison with pilots said, and what came of it."""
    best, took = asked["best"], f"Asked with pilots, in {asked['asking_s']:.0f} s,"
    if best is None:
        return f"{took} the comparison of the kept candidates named no way."
    likely = format_probability(best["chance"])
    said = f"{took} the comparison named “{best['way']}” of {best['model']} ({likely} likely)."
    kwh, cheapest = energies(runs), min(each.kwh for each in truth.values())
    run = next((r for r in runs if (r["model"], r["way"]) == (best["model"], OF_WAY.get(best["way"]))), None)
    if run is None:
        return f"{said} That way was not run."
    if not run["reached"]:
        return f"{said} It did not arrive: {run['best']:.3f} in {run['steps']} steps."
    regret = kwh[run["key"]] / cheapest - 1.0
    return (
        f"{said} It arrived in {run['steps']} steps, {number(1000.0 * kwh[run['key']])} Wh: a regret of {regret:.2f}."
    )


def wh(kwh: float) -> str:
    """Return an energy in watt-hours."""
    return number(1000.0 * kwh)


def judged_rows(rows: Sequence[Row]) -> tuple[Row, list[Row], dict[str, Row], dict[str, Truth], list[tuple[str, ...]]]:
    """Return of one task: the comparison, its runs, first ways, truth, and the lines that judge the rankings."""
    known = [row for row in rows if "error" not in row]
    asked = next(row for row in known if row["is"] == "asked")
    forecasts, runs = ([row for row in known if row["is"] == kind] for kind in ("forecast", "run"))
    truth, ways = truths(runs), first_ways(forecasts, runs)
    costs = predicted(asked, ways, forecasts[0]["level"])
    return asked, runs, ways, truth, [*rankings(costs, truth)] if any(each.way for each in truth.values()) else []


def section(task: str, rows: Sequence[Row]) -> str:
    """Return the section of one task."""
    asked, runs, ways, truth, ranked = judged_rows(rows)
    settings = (
        f"Target {asked['target']:g}, {asked['samples']:,} samples, at most {asked['epochs']} epochs; {len(truth)} "
        f"candidates, of which {sum(bool(each.way) for each in truth.values())} have a way that arrives. "
        f"{sum('error' in row for row in rows)} rows failed."
    )
    parts = [f"## {task}", settings, markdown(CANDIDATES, lines(asked, ways, truth))]
    parts += [markdown(HEAD, ranked), sentence(asked, runs, truth)] if ranked else []
    return "\n\n".join(parts)


def summary(found: Mapping[str, Sequence[Row]]) -> str:
    """Return the tasks beside each other, each cell with one value per task."""
    of_task = {task: ranked for task, rows in found.items() if (ranked := judged_rows(rows)[-1])}
    shown = [place for place, title in enumerate(HEAD) if title != "first choice"]
    table = [
        (of_score[0][0], *(" / ".join(line[place] for line in of_score) for place in shown[1:]))
        for of_score in zip(*of_task.values(), strict=True)
    ]
    head = [HEAD[place] for place in shown]
    return f"## All tasks\n\nEach cell: {' / '.join(of_task)}.\n\n{markdown(head, table)}"


def page(found: Mapping[str, Sequence[Row]]) -> str:
    """Return the page."""
    methods = {
        ", ".join(f"{part} {how}" for part, how in row["methods"].items())
        for rows in found.values()
        for row in rows
        if row.get("is") == "run"
    }
    head = f"# Ranking pre-trained networks for a new task\n\n{NOTE.format(methods='; '.join(sorted(methods)))}"
    return "\n\n".join([head, summary(found), *(section(task, rows) for task, rows in found.items())]) + "\n"

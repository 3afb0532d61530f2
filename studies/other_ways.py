"""Judge forecasts of other ways than all layers at the usual rate, on the first day: no own updates, and no pilot.

Each run is forecast from the bundled updates of other networks without its shift type or task: once from those that
train all layers at the usual rate alone, as before other ways were bundled, and once from all of them.

    python studies/other_ways.py --preset ways --existing
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial

import numpy as np

from analysis import Run, markdown, successful_runs
from bundled_history import scratch_update, shift_update, task_update, without_folders
from in_run import kinds, kinds_of, targets_of
from presets import PRESETS, TASKS, ShiftStudy, TaskStudy
from publish import Rows, publish
from resque.forecasting.curve_history import CurveHistory, evaluations_until
from resque.forecasting.history import ForecastQuery, relative_rate, update_group
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Update

HEAD = (
    "network",
    "way",
    "bundled",
    "n",
    "reached",
    "mean chance",
    "Brier",
    "factor of steps",
    "best accuracy, forecast less measured",
)
Asked = tuple[Update, Sequence[float], Callable[[Update], bool]]
"""A run, the targets that are asked for, and whether its history may hold an update."""
USUAL, ALL = "all layers alone", "all ways"
NOTE = """Forecasts before any step, from bundled updates of other networks, and of other shift types or tasks; three
targets each. Shifts are of one original model, tasks of one for each source. Brier: mean squared difference of chance
and outcome. Factor of steps: median multiplicative error of the runs that arrived. The last column is a median."""


def is_usual(update: Update) -> bool:
    """Return whether an update trains all layers of a trained model, at the usual rate."""
    return update.recipe["trains"] == "all" and not update.from_scratch and not relative_rate(update_group(update))


def of_shifts(runs: Sequence[Update], targets: Sequence[float]) -> list[Asked]:
    """Return the runs for shifts with their targets, and what their histories may hold."""

    def is_other(update: Update, model: str, left_out: Set[str]) -> bool:
        return update.model != model and not kinds_of(update) & left_out

    return [(run, targets, partial(is_other, model=run.model, left_out=kinds(str(run.shift_type)))) for run in runs]


def of_tasks(study: TaskStudy, runs: Sequence[Run]) -> list[Asked]:
    """Return the runs for new tasks with their targets, and what their histories may hold.

    All layers learned tasks in one network alone, so that its history holds those.
    """

    def is_other(update: Update, task: str) -> bool:
        return not update.train_data.startswith(task) and (update.model != study.model or is_usual(update))

    return [
        (task_update(study, run), study.cutoffs[name], partial(is_other, task=without_folders(TASKS[name][0])))
        for run in runs
        for name in [run.row["target"]]
    ]


def judged(asked: Sequence[Asked], bundled: Sequence[Update]) -> Iterator[tuple[float, bool, float, float | None]]:
    """Yield chance, whether it was reached, the error of the best accuracy, and the log error of the steps."""
    for run, targets, is_other in asked:
        known = [*filter(is_other, bundled)]
        for target in targets:
            if run.curve.accuracy[0] >= target:
                continue
            query, reached = ForecastQuery.of_update(run, target, run.cost.steps), run.cost_at(target)
            curve = CurveHistory([], query, known).start(query)
            paths = None if curve is None else curve.predict([*evaluations_until(query.max_steps)])
            assert paths is not None
            error = None if reached is None else math.log(paths.median_if_reached(target) / reached.steps)
            best = paths.best_accuracy(0.5) - max(run.curve.accuracy)
            yield paths.probability_reached(target), reached is not None, best, error


def lines(network: str, way: str, asked: Sequence[Asked]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one way of one network."""
    for name, bundled in ((USUAL, [*filter(is_usual, bundled_updates())]), (ALL, bundled_updates())):
        chances, reached, best, errors = zip(*judged(asked, bundled), strict=True)
        known = [abs(error) for error in errors if error is not None]
        chance, outcome = np.array(chances), np.array(reached, dtype=float)
        yield (
            network, way, name, f"{len(chances)}", f"{outcome.mean():.2f}", f"{chance.mean():.2f}",
            f"{((chance - outcome) ** 2).mean():.3f}", f"{math.exp(statistics.median(known)):.2f}" if known else "–",
            f"{statistics.median(best):+.3f}",
        )  # fmt: skip


def of_scratch(study: ShiftStudy, rows: Rows, trained: Sequence[Run]) -> list[Update]:
    """Return the trainings from scratch of a study, with what a forecast of them knows."""
    of_shift = {(run.seed, *run.group[1:]): shift_update(run) for run in trained}
    runs = successful_runs(rows[f"{study.originals}-scratch"])
    return [scratch_update(run, of_shift[run.seed, *run.group[1:]]) for run in runs]


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the page."""
    found: list[tuple[str, ...]] = []
    for study in PRESETS[preset].shifts:
        if not rows.get(study.name):
            continue
        runs = successful_runs(rows[study.name])
        updates = [shift_update(run) for run in runs]
        way, targets = study.name.removeprefix(f"{study.originals}-"), targets_of(study.targets, updates)
        found += lines(study.originals, way, of_shifts([each for each in updates if each.cost.steps], targets))
        if study.scratch:
            found += lines(study.originals, "scratch", of_shifts(of_scratch(study, rows, runs), targets))
    for tasks in PRESETS[preset].tasks:
        if rows.get(tasks.name):
            _, network, way = tasks.name.split("-")
            found += lines(network, f"{way}, new task", of_tasks(tasks, successful_runs(rows[tasks.name])))
    return {"other-ways": f"# Other ways to update a model\n\n{NOTE}\n\n{markdown(HEAD, found)}\n"}


if __name__ == "__main__":
    publish(__doc__, make)

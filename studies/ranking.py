"""Rank the original models that could learn a new task, before training, and judge the order by what each run took.

python studies/ranking.py --preset cpu --existing
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from analysis import TARGET_NAMES, Run, markdown, successful_runs
from bundled_history import task_update
from presets import PRESETS, TaskStudy
from publish import Rows, publish
from resque.forecasting.evaluation.folds import TrainingFolds
from resque.forecasting.history import ForecastQuery, starts_at_target
from resque.ledger.records import Update

LEVEL, DRAWS = 0.8, 2000
FORECAST, TASK_INDEX, SIZE, CHANCE = "forecast", "task index", "parameters × samples", "any model"
SCORES = "LogME", "H-score", "k-NN accuracy", "LEEP"
NOTE = """For each task and seed: the models of one network, trained on the other tasks, and one without training. The
forecast is made with the whole task left out of the history; scores need no history. A run that probably does not reach
the cutoff is forecast to last to its end.

* Weighted Kendall's τ: 1 is the true order, 0 chance; the cheapest places weigh most (hyperbolic weights).
* Regret of the first choice: its optimizer steps over those of the best model, less one; the mean, and the median. A
  run that did not reach the cutoff counts all its steps. All models are one network, so steps, time and energy have the
  same regret.
* Best chosen: how often the first choice was the best model. Models that share the first place share the choice."""
HEAD = (
    "cutoff",
    "ranked by",
    "n",
    "weighted τ [90 %, by task]",
    "regret of the first choice [90 %]",
    "median",
    "best chosen",
)


def predicted(study: TaskStudy, runs: Sequence[Run], cutoff: int) -> dict[str, dict[str, float]]:
    """Return by name the predicted cost of each run, by its id; scores count negatively."""
    updates = {run.update.id: task_update(study, run) for run in runs}
    longest = max(update.cost.steps for update in updates.values())
    found: dict[str, dict[str, float]] = {
        FORECAST: {},
        TASK_INDEX: {},
        SIZE: {},
        CHANCE: {},
        **{name: {} for name in SCORES},
    }
    for task in dict.fromkeys(run.row["target"] for run in runs):
        rest = TrainingFolds([updates[run.update.id] for run in runs if run.row["target"] != task], (), LEVEL)
        for run in runs:
            if run.row["target"] != task:
                continue
            name, update = run.update.id, updates[run.update.id]
            scored = rest.score(update, ForecastQuery.of_update(update, study.cutoffs[task][cutoff], longest))
            if scored is not None:
                share = scored.probability_reached or 0.0
                found[FORECAST][name] = share * math.exp(scored.forecast) + (1.0 - share) * longest
            found[TASK_INDEX][name] = update.features.task_index or 0.0
            found[SIZE][name], found[CHANCE][name] = float(run.row["parameters"] * run.row["n"]), 0.0
            for score in SCORES:
                found[score][name] = -run.row["baselines_before"][score][0]
    return {name: costs for name, costs in found.items() if len(costs) == len(runs)}


def judged(truth: Sequence[float], costs: Sequence[float]) -> tuple[float, float, float]:
    """Return weighted τ (NaN where costs or steps do not differ), regret of the first choice, and whether it is best.

    Models that share the first place share the choice: the mean of their regrets counts.
    """
    steps, values = np.array(truth), np.array(costs)
    differ = min(np.ptp(values), np.ptp(steps)) > 0.0
    tau = float(stats.weightedtau(-steps, -values).statistic) if differ else math.nan
    first = steps[values == values.min()] / steps.min()
    return tau, float(first.mean() - 1.0), float((first == 1.0).mean())


def steps_to(update: Update, target: float) -> float:
    """Return the optimizer steps of a run to a target; all its steps if it did not reach the target."""
    return float((update.cost_at(target) or update.cost).steps)


def interval(values: Mapping[str, Sequence[float]]) -> str:
    """Return the mean with a 90 % interval from a bootstrap of whole tasks."""
    groups = [known for each in values.values() if (known := np.array(each)[~np.isnan(each)]).size]
    if not groups:
        return "–"
    generator = np.random.default_rng(0)
    draws = generator.integers(len(groups), size=(DRAWS, len(groups)))
    means = [np.concatenate([groups[i] for i in draw]).mean() for draw in draws]
    low, high = np.quantile(means, [0.05, 0.95])
    return f"{np.concatenate(groups).mean():.2f} [{low:.2f}, {high:.2f}]"


def lines(study: TaskStudy, runs: Sequence[Run], cutoff: int) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one cutoff."""
    by_name = predicted(study, runs, cutoff)
    groups = dict.fromkeys((run.row["target"], run.seed) for run in runs)
    for name, costs in by_name.items():
        taus: dict[str, list[float]] = {}
        regrets: dict[str, list[float]] = {}
        best = []
        for task, seed in groups:
            target = study.cutoffs[task][cutoff]
            some = [run for run in runs if (run.row["target"], run.seed) == (task, seed)]
            some = [run for run in some if not starts_at_target(run.update.features, target)]
            if all(run.update.cost_at(target) is None for run in some):
                continue
            truth = [steps_to(run.update, target) for run in some]
            tau, regret, chosen = judged(truth, [costs[run.update.id] for run in some])
            taus.setdefault(task, []).append(tau)
            regrets.setdefault(task, []).append(regret)
            best.append(chosen)
        flat = [each for some in regrets.values() for each in some]
        yield (
            TARGET_NAMES[cutoff], name, f"{len(best)}", interval(taus), interval(regrets),
            f"{statistics.median(flat):.2f}", f"{sum(best):.0f}",
        )  # fmt: skip


def make(preset: str, rows: Rows) -> dict[str, str]:
    """Make the page."""
    parts = [f"# Ranking the models that could learn a new task\n\n{NOTE}"]
    for study in PRESETS[preset].tasks:
        runs = successful_runs(rows[study.name])
        table = [line for cutoff in range(len(TARGET_NAMES)) for line in lines(study, runs, cutoff)]
        parts.append(f"## {study.name}, {len(runs)} runs\n\n{markdown(HEAD, table)}")
    return {"ranking": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")

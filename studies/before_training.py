"""Compare ways to forecast an update before it starts, on shift types that the history does not have.

Each way forecasts the runs of each shift type from 12 updates of the same original model under other shift types, and
from bundled updates of other networks without that type. A fair choice between the ways uses rows that do not judge it:
shift types are split into two halves, the way with the smaller mean interval score on one half is judged on the other.

    python studies/before_training.py --preset kinds --existing
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis import markdown, successful_runs
from bundled_history import shift_update
from in_run import LEVEL, cells, histories, targets_of
from presets import PRESETS, ShiftStudy
from publish import Rows, publish
from resque.forecasting import curve_history, curve_shape, learning_curves
from resque.forecasting.curve_history import UpdateCurve
from resque.forecasting.evaluation import folds
from resque.forecasting.evaluation.folds import TrainingFolds, score_distribution, score_forecast
from resque.forecasting.evaluation.metrics import ScoredForecast, evaluate_predictor
from resque.forecasting.history import ForecastQuery
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Update

HEAD = (
    "forecast by", "n", "median factor", "within 2×", "Brier (base rate)", "80 % covered [90 %]", "width",
    "covered, all", "score",
)  # fmt: skip
NOTE = """n: runs that reached the target / all that began below it, over three targets. Median factor, share within 2×,
covered and width are of those that reached it. Brier: Brier score of the probability of reaching the target; base rate:
that of the share that reached it, known only afterwards. Covered: coverage of nominal 80 % intervals, with a 90 %
interval from a bootstrap of whole shift types. Width: upper over lower end, median. Covered, all: also of runs that did
not reach the target, whose steps are a lower bound. Score: mean interval score of log steps, smaller is better. The
last line of each table is the fair one: chosen on one half of the shift types, judged on the other."""
SETS = (
    ("adapted gap", "accuracy gap", "adapted refit", "adapted k-NN"),
    ("adapted gap", "accuracy gap", "adapted k-NN"),
    ("index", "accuracy gap", "k-NN accuracy", "LogME"),
    ("adapted gap",),
    ("accuracy gap",),
    ("index",),
)
CONSTANT = "constant median of the history"
SHIPPED = "learning curves with both milestones (shipped)"
LEVELS = (0.5, 0.8, 0.9, 0.95)
LEVEL_HEAD = ("intervals of the shipped forecast, nominal", "covered [90 %]", "covered, all", "width")


@dataclass(frozen=True)
class Way:
    """A way to forecast with learning curves.

    Attributes:
        milestones: Names of the milestones that reweight the paths.
        drift: Deviation of the drift.
        share: Share of the paths within an interval, as a function of its nominal coverage.
    """

    milestones: tuple[str, ...] = ("early", "best")
    drift: float = curve_shape.DRIFT
    share: Callable[[float], float] = curve_history.central_share

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Forecast this way within the block."""
        init, drift, share = UpdateCurve.__init__, curve_shape.DRIFT, curve_history.central_share

        def changed(curve: UpdateCurve, *arguments: object) -> None:
            init(curve, *arguments)  # type: ignore[arg-type]
            curve._early = curve._early if "early" in self.milestones else None
            curve._best = curve._best if "best" in self.milestones else None

        UpdateCurve.__init__ = changed  # type: ignore[method-assign]
        curve_shape.DRIFT = learning_curves.DRIFT = self.drift
        folds.central_share = self.share
        try:
            yield
        finally:
            UpdateCurve.__init__ = init  # type: ignore[method-assign]
            curve_shape.DRIFT = learning_curves.DRIFT = drift
            folds.central_share = share


WAYS = {
    SHIPPED: Way(),
    "with intervals of 80 % of the paths": Way(share=float),
    "with a drift of 0.02": Way(drift=0.02),
    "with a drift of 0.005": Way(drift=0.005),
    "without the early milestone": Way(("best",)),
    "without the best accuracy": Way(("early",)),
    "without milestones": Way(()),
}


def scored(
    runs: Sequence[Update], targets: Sequence[float], own: list[Update], bundled: list[Update]
) -> Iterator[tuple[str, ScoredForecast]]:
    """Yield name and score of each way's forecast of some runs."""
    queries = [
        (run, ForecastQuery.of_update(run, target, run.cost.steps))
        for run in runs
        for target in targets
        if run.curve.accuracy[0] < target and run.cost.steps
    ]
    history = TrainingFolds(own, bundled, LEVEL)
    for run, query in queries:
        for names in SETS:
            distribution = history.predict(query, names)
            if distribution is not None:
                yield f"mixed model of {', '.join(names)}", score_distribution(distribution, run, query, LEVEL)
        if (median := history.median(query)) is not None:
            yield CONSTANT, score_forecast(run, query, median)
    for name, way in WAYS.items():
        with way.used():
            history = TrainingFolds(own, bundled, LEVEL)
            for run, query in queries:
                if (score := history.score(run, query)) is not None:
                    yield name, score
            for history.level in LEVELS if name == SHIPPED else ():  # the simulated paths are kept
                for run, query in queries:
                    if (score := history.score(run, query)) is not None:
                        yield level_name(history.level), score


def level_name(level: float) -> str:
    """Return the name of the shipped forecast's intervals at a nominal coverage."""
    return f"{level:.0%}"


def chosen_fairly(scores: Mapping[str, list[ScoredForecast]]) -> tuple[str, list[ScoredForecast]]:
    """Return the ways that each half of the shift types chooses, and their scores on the other half."""
    kinds = sorted({str(score.shift_type) for each in scores.values() for score in each})
    names, judged = [], []
    for half in (kinds[::2], kinds[1::2]):
        mean = {
            name: math.fsum(score.score(LEVEL) for score in each if score.shift_type in half) / len(each)
            for name, each in scores.items()
            if all(score.interval is not None for score in each)
        }
        best = min(mean, key=lambda name: mean[name])
        names.append(best)
        judged += [score for score in scores[best] if score.shift_type not in half]
    return " / ".join(dict.fromkeys(names)), judged


def line(name: str, scores: Sequence[ScoredForecast]) -> tuple[str, ...]:
    """Return the line of one way."""
    report = evaluate_predictor(name, scores, LEVEL)
    score = "–" if report.interval_score is None else f"{report.interval_score:.2f}"
    return name, *cells(name, scores), score


def studies_of_shifts(preset: str, rows: Rows) -> Iterator[tuple[ShiftStudy, list[Update], list[Update]]]:
    """Yield each study of shifts with rows, its updates, and the bundled updates of other networks."""
    bundled = [each for each in bundled_updates() if each.features.task_index is None and each.cost.steps]
    for study in PRESETS[preset].shifts:
        if not study.originals and rows.get(study.name):
            updates = [shift_update(run) for run in successful_runs(rows[study.name])]
            yield study, updates, [each for each in bundled if each.model != study.model]


def level_line(level: float, scores: Sequence[ScoredForecast]) -> tuple[str, ...]:
    """Return the line of one nominal coverage."""
    *_, covered, width, all_runs = cells(level_name(level), scores)
    return level_name(level), covered, all_runs, width


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the page."""
    parts = [f"# Ways to forecast before an update\n\n{NOTE}"]
    for study, updates, others in studies_of_shifts(preset, rows):
        scores: dict[str, list[ScoredForecast]] = {}
        for kind in dict.fromkeys(str(update.shift_type) for update in updates):
            for runs, own, bundled in histories(updates, others, kind, with_own=True):
                for name, score in scored(runs, targets_of(study.targets, runs), own, bundled):
                    scores.setdefault(name, []).append(score)
        levels = [level_line(level, scores.pop(level_name(level))) for level in LEVELS]
        ways, judged = chosen_fairly(scores)
        lines = [line(name, each) for name, each in sorted(scores.items(), key=order)]
        lines.append(line(f"**chosen by halves**: {ways}", judged))
        tables = f"{markdown(HEAD, lines)}\n\n{markdown(LEVEL_HEAD, levels)}"
        parts.append(f"## {study.name}, {len(updates)} runs\n\n{tables}")
    return {"before-training": "\n\n".join(parts) + "\n"}


def order(item: tuple[str, list[ScoredForecast]]) -> int:
    """Return the place of a way in the table: learning curves first."""
    return [*WAYS, *(f"mixed model of {', '.join(names)}" for names in SETS), CONSTANT].index(item[0])


if __name__ == "__main__":
    publish(__doc__, make, "shifts")

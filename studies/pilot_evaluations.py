"""Judge how many evaluations a pilot needs: forecasts from the same first steps, evaluated more or less often.

As in ``in_run.py``, shift types are left out in turn, and runs are forecast from bundled updates alone.

    python studies/pilot_evaluations.py --preset kinds --existing
"""

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from analysis import markdown, successful_runs
from bundled_history import shift_update
from in_run import LEVEL, histories, targets_of
from presets import PRESETS
from publish import Rows, publish
from resque.forecasting.evaluation.folds import TrainingFolds
from resque.forecasting.history import ForecastQuery
from resque.forecasting.landmarking import known_evaluations, revise_forecast
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import LearningCurve, Update

EVALUATED = (5, 10, 20, 30, 40, 50, 60, 70, 85, 100), (5, 15, 30, 60, 100), (10, 30, 60, 100), (20, 50, 100), (40, 100)
"""Percents of a pilot's steps at which it is evaluated; each takes the nearest evaluation of the run."""
PILOTS = 50, 200
HEAD = "network", "steps of the pilot", "evaluations", "n", "arrived", "Brier", "factor of steps", "80 % covered"
NOTE = """Runs that were not over by then, over three targets, without own updates. Factor of steps: median
multiplicative error of the runs that arrived; covered: of these."""
Scored = tuple[float, bool, float | None, bool]


def thinned(curve: LearningCurve, percents: Sequence[int]) -> LearningCurve:
    """Return the first evaluation of a curve, and those nearest to some percents of its steps."""
    steps = np.array(curve.steps)
    kept = sorted({0, *(int(np.abs(steps - steps[-1] * percent / 100).argmin()) for percent in percents)})
    names = (field.name for field in dataclasses.fields(curve) if field.name != "steps_per_epoch")
    return dataclasses.replace(curve, **{name: tuple(getattr(curve, name)[place] for place in kept) for name in names})


def scores(updates: Sequence[Update], targets: Sequence[float], model: str) -> Mapping[tuple[int, int], list[Scored]]:
    """Return by pilot and number of evaluations: chance, whether it arrived, log error, and whether it was covered."""
    found = defaultdict[tuple[int, int], list[Scored]](list)
    others = [update for update in bundled_updates() if update.model != model]
    for held_out in sorted({str(update.shift_type) for update in updates}):
        for runs, own, bundled in histories(updates, others, held_out, with_own=False):
            folds = TrainingFolds(own, bundled, LEVEL)
            for run, target in ((run, target) for run in runs for target in targets if run.cost.steps):
                reached, query = run.cost_at(target), ForecastQuery.of_update(run, target, run.cost.steps)
                end = (reached or run.cost).steps
                if run.curve.accuracy[0] >= target:
                    continue
                for pilot, percents in ((pilot, each) for pilot in PILOTS if pilot < end for each in EVALUATED):
                    curve, evaluations = (
                        thinned(run.curve.until(pilot), percents),
                        known_evaluations(run, query.max_steps),
                    )
                    revision = revise_forecast(folds.curve(query), query, curve, LEVEL, evaluations)
                    assert revision is not None
                    error = None if reached is None else abs(math.log(revision.steps.value / end))
                    score = revision.probability_reached, reached is not None, error, end in revision.steps.interval
                    found[pilot, len(percents)].append(score)
    return found


def lines(network: str, found: Mapping[tuple[int, int], list[Scored]]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one network."""
    for (pilot, evaluations), each in sorted(found.items()):
        brier = statistics.fmean((chance - arrived) ** 2 for chance, arrived, _, _ in each)
        arrived = [(error, is_covered) for _, _, error, is_covered in each if error is not None]
        factor = math.exp(statistics.median(error for error, _ in arrived))
        covered = statistics.fmean(is_covered for _, is_covered in arrived)
        yield (
            network, f"{pilot}", f"{evaluations}", f"{len(each)}", f"{len(arrived)}", f"{brier:.3f}", f"{factor:.2f}",
            f"{covered:.0%}",
        )  # fmt: skip


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the page."""
    found: list[tuple[str, ...]] = []
    for study in PRESETS[preset].shifts:
        updates = [shift_update(run) for run in successful_runs(rows[study.name])]
        found += lines(study.name, scores(updates, targets_of(study.targets, updates), study.model))
    return {"pilot-evaluations": f"# How many evaluations a pilot needs\n\n{NOTE}\n\n{markdown(HEAD, found)}\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")

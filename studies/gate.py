"""Judge the budget gate: which updates it lets through, before they start and after a pilot.

Shift types are left out as in ``in_run.py``. An update is affordable if it reached its target within the budget. Each
is decided from 12 updates of the same original model under other shift types with the bundled ones, and after a pilot
of 100 steps from the bundled ones alone, too. Updates over within the pilot are counted as what they were.

    python studies/gate.py --preset kinds --existing
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis import markdown, successful_runs
from bundled_history import shift_update
from in_run import LEVEL, histories, targets_of
from presets import PRESETS
from publish import Rows, publish
from resque import Forecast
from resque.energy.reading import EnergyReading
from resque.forecasting.budget import BEYOND, UNSURE, WITHIN, Budget, decide
from resque.forecasting.curve_history import CurveHistory, central_share, total_steps
from resque.forecasting.evaluation.metrics import cluster_bootstrap_interval
from resque.forecasting.history import ForecastQuery, history_rows
from resque.forecasting.landmarking import known_evaluations, revise_forecast
from resque.forecasting.reliability import unreliability_reasons
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, StepCost, Update
from resque.types import Interval

BUDGETS = (200, 400)
PILOT = 100
BEFORE, AFTER, ALONE = "before", f"after {PILOT} steps", f"after {PILOT} steps, bundled updates alone"
HEAD = (
    "budget", "decided", "affordable", "go", "beyond", "exit 4", "not affordable", "go [90 %]", "beyond", "exit 4",
    "exit 4 in all",
)  # fmt: skip
NOTE = f"""Budget: optimizer steps. Decided at {LEVEL:.0%} confidence. Go, beyond and exit 4 (not reliable enough) are
shares of the updates that were, and were not, affordable, over three targets. The interval is a bootstrap of whole
shift types. Updates that began at their target are left out."""


class Decided(NamedTuple):
    """A decision about one update.

    Attributes:
        budget: Optimizer steps.
        when: Time and basis of the decision.
        shift_type: Shift type of the update.
        affordable: Whether it reached its target within the budget.
        code: Exit code.
    """

    budget: int
    when: str
    shift_type: str
    affordable: bool
    code: int


def decisions(
    runs: Sequence[Update], targets: Sequence[float], own: list[Update], bundled: list[Update]
) -> Iterator[Decided]:
    """Yield the decisions about some runs of one original model."""
    known: dict[str, CurveHistory] = {}
    for run in runs:
        for target in targets:
            if run.curve.accuracy[0] >= target or not run.cost.steps:
                continue
            query = ForecastQuery.of_update(run, target, run.cost.steps)
            if not known:
                known = {BEFORE: CurveHistory(own, query, bundled), ALONE: CurveHistory([], query, bundled)}
                known[AFTER] = known[BEFORE]
            for when, history in known.items():
                yield from _decisions(run, query, own, history, when)


def _decisions(
    run: Update, query: ForecastQuery, own: list[Update], history: CurveHistory, when: str
) -> Iterator[Decided]:
    """Yield the decisions about one run to one target, one for each budget."""
    target, at_target = query.target_accuracy, run.cost_at(query.target_accuracy)
    end = (at_target or run.cost).steps or 0
    issues: tuple[str, ...] = ()
    if when != BEFORE and end <= PILOT:
        at = float(end)
        steps, probability = Estimate(at, Interval(at, at, LEVEL, ""), at), float(at_target is not None)
    elif when == BEFORE:
        curve, evaluations = history.start(query), [at for at in known_evaluations(run, query.max_steps) or [] if at]
        paths = None if curve is None else curve.predict(evaluations)
        if paths is None:
            return
        steps = total_steps(paths, target, evaluations, LEVEL, "", central_share(LEVEL))
        probability = paths.probability_reached(target)
        rows = [*history_rows(own, query, ())]
        issues = unreliability_reasons(rows, own, query, "a pilot")
    else:
        evaluations = known_evaluations(run, query.max_steps) or []
        revision = revise_forecast(history.start(query), query, run.curve.until(PILOT), LEVEL, evaluations)
        if revision is None:
            return
        steps, probability = revision.steps, revision.probability_reached
    for budget in BUDGETS:
        forecast = _forecast(run, query, steps, probability, issues)
        code = decide(forecast, Budget(max_hours=budget / 3600.0)).code
        yield Decided(budget, when, str(run.shift_type), at_target is not None and end <= budget, code)


def _forecast(
    run: Update, query: ForecastQuery, steps: Estimate, probability: float, issues: tuple[str, ...]
) -> Forecast:
    """Return a forecast of a run whose steps take one second each."""
    return Forecast(
        id=run.id,
        created_utc=run.created_utc,
        model=run.model,
        parent=run.parent,
        train_data=run.train_data,
        test_data=run.test_data,
        shift_type=run.shift_type,
        recipe=run.recipe,
        target_accuracy=query.target_accuracy,
        features=run.features,
        predictor="",
        estimates={"wall_s": steps},
        probability_reached=probability,
        n_history=0,
        shift_types_history=(),
        max_steps=query.max_steps,
        step_cost=StepCost(1.0, None, 1, EnergyReading(1.0, None, {}, {}, "")),
        overhead=EnergyReading(0.0, None, {}, {}, ""),
        grid=None,
        reliability_issues=issues,
    )


def line(budget: int, when: str, decided: Sequence[Decided]) -> tuple[str, ...]:
    """Return the line of one budget."""
    cells = [f"{budget} steps", when]
    for affordable in (True, False):
        group = [each for each in decided if each.affordable is affordable]
        shares = [np.mean([each.code == code for each in group]) for code in (WITHIN, BEYOND, UNSURE)]
        text = [f"{share:.0%}" for share in shares]
        if not affordable:
            went = np.array([each.code == WITHIN for each in group])
            interval = cluster_bootstrap_interval(went, [each.shift_type for each in group])
            text[0] = f"{shares[0]:.1%}" + ("" if interval is None else f" [{interval.low:.1%}, {interval.high:.1%}]")
        cells += [str(len(group)), *text]
    return *cells, f"{np.mean([each.code == UNSURE for each in decided]):.0%}"


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the page."""
    parts = [f"# What the budget gate lets through\n\n{NOTE}"]
    shipped = [u for u in bundled_updates() if u.cost.steps and u.features.task_index is None]
    for study in PRESETS[preset].shifts:
        if study.originals or not rows.get(study.name):
            continue
        updates = [shift_update(run) for run in successful_runs(rows[study.name])]
        others = [update for update in shipped if update.model != study.model]
        decided = [
            each
            for kind in dict.fromkeys(str(update.shift_type) for update in updates)
            for runs, own, bundled in histories(updates, others, kind, with_own=True)
            for each in decisions(runs, targets_of(study.targets, runs), own, bundled)
        ]
        lines = [
            line(budget, when, [each for each in decided if (each.budget, each.when) == (budget, when)])
            for budget in BUDGETS
            for when in (BEFORE, AFTER, ALONE)
        ]
        parts.append(f"## {study.name}, {len(updates)} runs\n\n{markdown(HEAD, lines)}")
    return {"gate": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")

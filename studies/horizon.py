"""Judge chances of runs that are longer than all of the history: how far may a learning curve be extrapolated?

All earlier runs are cut at a step, and runs of at least three times as many steps are forecast, as in ``in_run.py``.
The forecast as it is stands beside one whose accuracy no longer grows after so many times the cut.

    python studies/horizon.py --preset kinds --existing
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from analysis import markdown
from before_training import studies_of_shifts
from in_run import LEVEL, histories, targets_of
from publish import Rows, publish
from resque.forecasting.curve_history import evaluations_until
from resque.forecasting.evaluation.folds import TrainingFolds
from resque.forecasting.history import ForecastQuery
from resque.forecasting.landmarking import known_evaluations
from resque.ledger.records import Update

CUT, LANDMARKS, EVERY_NTH = 150, (0, 100), 3
GROWTH = {"as it is": np.inf, "no growth after twice the cut": 2.0, "no growth after the cut": 1.0}
HEAD = (
    "network",
    "after",
    "growth",
    "n",
    "arrived",
    "mean chance",
    "Brier (base rate)",
    "of chances from 80 % arrived",
)
NOTE = f"""All earlier runs are cut at step {CUT}. Every third shift type; runs of at least {3 * CUT} steps, or that
reached the target; three targets. Arrived: share of the runs that reached the target."""


def cut(update: Update) -> Update:
    """Return a run as it would be had it been stopped at the cut."""
    if update.cost.steps <= CUT:
        return update
    curve = update.curve.until(CUT)
    cost = dataclasses.replace(update.cost, steps=curve.steps[-1], epochs=None)
    return dataclasses.replace(update, curve=curve, cost=cost, reached=False, stopped_by="max epochs")


def chances(
    runs: Sequence[Update], targets: Sequence[float], own: Sequence[Update], bundled: Sequence[Update]
) -> Iterator[tuple[int, str, float, bool]]:
    """Yield landmark, kind of growth, chance, and whether the target was reached."""
    folds = TrainingFolds([cut(update) for update in own], [cut(update) for update in bundled], LEVEL)
    for run in runs:
        for target in targets:
            query, end = ForecastQuery.of_update(run, target, run.cost.steps), run.cost_at(target)
            if run.curve.accuracy[0] >= target or not run.cost.steps or not (end or run.cost.steps >= 3 * CUT):
                continue
            known = known_evaluations(run, query.max_steps) or [*evaluations_until(query.max_steps)]
            curve = folds.curve(query)
            for landmark in LANDMARKS:
                so_far = run.curve.until(landmark) if landmark else None
                now = 0 if so_far is None else so_far.steps[-1]
                ahead = sorted({min(step, query.max_steps) for step in known if step > now})
                if curve is None or not ahead or (end or run.cost).steps <= landmark:
                    continue
                paths = curve.predict(ahead, so_far)
                assert paths is not None
                for name, factor in GROWTH.items():
                    last = max(0, int(np.searchsorted(paths.steps, factor * CUT, side="right")) - 1)
                    yield landmark, name, float(paths.weights[paths.best[:, last] >= target].sum()), end is not None


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the page."""
    lines = []
    for study, updates, others in studies_of_shifts(preset, rows):
        found: dict[tuple[int, str], list[tuple[float, bool]]] = {}
        for kind in [*dict.fromkeys(str(update.shift_type) for update in updates)][::EVERY_NTH]:
            for runs, own, bundled in histories(updates, others, kind, with_own=True):
                for landmark, name, chance, reached in chances(runs, targets_of(study.targets, runs), own, bundled):
                    found.setdefault((landmark, name), []).append((chance, reached))
        for (landmark, name), pairs in sorted(
            found.items(), key=lambda item: (item[0][0], [*GROWTH].index(item[0][1]))
        ):
            chance, reached = np.array(pairs, dtype=float).T
            share, sure = reached.mean(), reached[chance >= LEVEL]
            lines.append(
                (study.name, f"{landmark} steps" if landmark else "–", name, f"{len(pairs)}", f"{share:.2f}",
                 f"{chance.mean():.2f}", f"{((chance - reached) ** 2).mean():.3f} ({share * (1 - share):.3f})",
                 f"{int(sure.sum())} of {len(sure)}")
            )  # fmt: skip
    return {"horizon": f"# Beyond the longest run of the history\n\n{NOTE}\n\n{markdown(HEAD, lines)}\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")

"""Write the bundled history of the package, ``src/resque/ledger/bundled.jsonl``, from the rows of the studies.

Each line is one update, as a ledger stores it, with the predictors that forecasts use. Updates that began above their
target are left out. Other ways to update the same original models, such as the head alone or another learning rate,
tell how far such a way gets; so do trainings from scratch, which are used for their like alone.

Their times are left out: the machine was busy with others of them. Curves are thinned to evaluations whose steps grow
by a factor of 1.5, and the last, without losses. Numbers have four digits. Energy is kept as one sum; it was measured,
and is never used for another machine.

    python studies/bundled_history.py --presets cpu kinds ways
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

from analysis import TASK_INDEX, Run, successful_runs
from presets import PRESETS, TASK_STUDY, TaskStudy
from publish import Rows
from resque.forecasting.curve_history import from_scratch_features
from resque.ledger.records import Update
from resque.ledger.serialization import to_dict
from resque.training.new_task import NEW_TASK
from runs import RESULTS, existing_rows
from shift_rows import round_floats

BUNDLED = Path("src/resque/ledger/bundled.jsonl")
USED = "cpu", "kinds", "ways"
"""Presets whose rows are bundled."""
STEP_RATIO = 1.5
DIGITS = 4
BASELINES_USED = ("k-NN accuracy", "shrunk H-score", "LogME")  # by predictors of forecasts
CANDIDATES_USED = {
    "adapted accuracy": "accuracy, adapted",
    "adapted k-NN": "k-NN accuracy, adapted",
    "adapted refit": "refit accuracy, adapted",
}
"""Score that forecasts use → candidate predictor of the rows that have them."""


def shift_update(run: Run) -> Update:
    """Return the update of a shift with the features that predictors use, its whole curve, and no folders."""
    scores = {name: run.row["baselines"][name][0] for name in BASELINES_USED} | run.row.get("scores", {})
    known = run.row.get("candidates", {})
    scores |= {name: known[candidate] for name, candidate in CANDIDATES_USED.items() if candidate in known}
    features = dataclasses.replace(
        run.update.features,
        samples=run.row["n"],
        classes=run.row["classes"],
        parameters=run.row["parameters"],
        scores=scores,
    )
    names = {name: without_folders(getattr(run.update, name)) for name in ("train_data", "test_data")}
    return dataclasses.replace(run.update, features=features, **names)


def scratch_update(run: Run, trained: Update) -> Update:
    """Return a training from scratch with what a forecast of one knows of the data.

    Args:
        run: The training.
        trained: Update of the trained model on the same data; it gives the target, too.
    """
    before = run.update.features
    return dataclasses.replace(
        run.update,
        features=from_scratch_features(trained.features, before.accuracy or 0.0, before.loss or 0.0),
        target_accuracy=trained.target_accuracy,
        shift_type=trained.shift_type,
        train_data=trained.train_data,
        test_data=trained.test_data,
    )


def without_folders(data: str) -> str:
    """Return a data specification without the folders of this machine; slashes of a mixture of shifts stay."""
    source, *steps = re.split(r"(?=[@+])", data, maxsplit=1)
    return "".join([re.sub(r"[^:,/]*/", "", source.replace("idx:", "").replace("npz:", "")), *steps])


def task_update(study: TaskStudy, run: Run) -> Update:
    """Return a new task as an update to its middle cutoff.

    Its parent is the model before it got its head, which several ways start from.
    """
    target, network = study.cutoffs[run.row["target"]][1], study.model.rpartition(":")[2]
    features = dataclasses.replace(
        run.update.features,
        samples=run.row["n"],
        classes=run.row["classes"],
        parameters=run.row["parameters"],
        labels="true",
        task_index=run.row["indices"][TASK_INDEX],
        scores={"warm-up accuracy": run.row["accuracy_after_one_epoch"]},
    )
    return dataclasses.replace(
        run.update,
        features=features,
        target_accuracy=target,
        reached=run.update.curve.first_at(target) is not None,
        shift_type=NEW_TASK,
        parent=f"{run.row['source'] or 'none'} {run.seed}{'' if study.model == TASK_STUDY.model else f' {network}'}",
        train_data=without_folders(run.update.train_data),
        test_data=without_folders(run.update.test_data),
    )


def lines(preset: str, rows: Rows) -> Iterator[str]:
    """Yield one line of JSON per update."""
    for study in PRESETS[preset].shifts:
        runs = successful_runs(rows[study.name])
        of_way = without_times if study.originals else line
        yield from (of_way(shift_update(run)) for run in runs if run.update.cost.steps)
        if study.scratch:
            of_shift = {(run.seed, run.group): shift_update(run) for run in runs}
            for run in successful_runs(rows[f"{study.originals or study.name}-scratch"]):
                yield without_times(scratch_update(run, of_shift[run.seed, run.group]))
    for tasks in PRESETS[preset].tasks:
        runs = successful_runs(rows[tasks.name])
        updates = [task_update(tasks, run) for run in runs]
        yield from map(without_times if tasks.way else line, updates)
        learned = {(run.seed, run.row["target"]): update for run, update in zip(runs, updates, strict=True)}
        for run in successful_runs([] if tasks.way else rows[f"{tasks.name}-scratch"]):
            yield without_times(scratch_update(run, learned[run.seed, run.row["target"]]))


def thinned(update: Update) -> Update:
    """Return an update with the evaluations whose steps grow by a factor of 1.5, and the last."""
    curve, kept = update.curve, [0]
    for place in range(1, len(curve.steps)):
        if curve.steps[place] >= STEP_RATIO * curve.steps[kept[-1]] or place == len(curve.steps) - 1:
            kept.append(place)
    columns = {
        field.name: tuple(getattr(curve, field.name)[place] for place in kept)
        for field in dataclasses.fields(curve)
        if field.name != "steps_per_epoch"
    }
    unknown = (None,) * len(kept)
    short = dataclasses.replace(curve, **columns | {"loss": unknown, "gradient_norm_last_batch": unknown})
    return dataclasses.replace(update, curve=short, reached=short.first_at(update.target_accuracy) is not None)


def line(update: Update) -> str:
    """Return an update as JSON, as a ledger stores it."""
    energy = dataclasses.replace(update.energy, components_kwh={}, note="")
    short = dataclasses.replace(thinned(update), energy=energy)
    return json.dumps(round_floats(to_dict(short), DIGITS), separators=(",", ":"))


def without_times(update: Update) -> str:
    """Return the line of an update whose times tell nothing."""
    curve = dataclasses.replace(update.curve, wall_s=(0.0,) * len(update.curve.steps))
    return line(dataclasses.replace(update, curve=curve, cost=dataclasses.replace(update.cost, wall_s=0.0)))


def main() -> None:
    """Write the bundled history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", choices=PRESETS, nargs="+", default=USED)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    options = parser.parse_args()
    history = [update for preset in options.presets for update in lines(preset, existing_rows(preset, options.results))]
    options.out.write_text("\n".join(history) + "\n", encoding="utf-8")
    print(f"{len(history)} updates, {options.out.stat().st_size / 1e3:.0f} kB: {options.out}")


if __name__ == "__main__":
    main()

"""The rows of the studies as the history that ships with the package: ``src/resque/prior.jsonl``.

One update a line, as a ledger keeps it, with the predictors that forecasts use. Updates that began above their target
are left out, and so are other recipes on the same original models: nobody else's updates are of their groups. Curves
are thinned to evaluations at least 1.5 times their steps apart (and the last), without the losses; numbers have four
digits; what a machine of the studies spent is kept in one sum, because it was measured, and is never used for another
machine.

    python studies/bundled_history.py --preset cpu
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

from agreement import TASK_INDEX, Run, runs
from presets import PRESETS, TaskStudy
from publish import Rows
from resque.ledger.records import Update
from resque.ledger.serialization import to_dict
from resque.training.new_task import NEW_TASK
from runs import RESULTS, rows
from shift_rows import rounded

BUNDLED = Path("src/resque/ledger/bundled.jsonl")
APART = 1.5
DIGITS = 4
USED = ("k-NN accuracy", "shrunk H-score", "LogME")  # of the rivals, by the predictors


def update_of(run: Run) -> Update:
    """An update with what the predictors take, its whole curve, and no folders in its name."""
    features = dataclasses.replace(
        run.update.features,
        samples=run.row["n"],
        classes=run.row["classes"],
        parameters=run.row["parameters"],
        scores={name: run.row["rivals"][name][0] for name in USED} | run.row.get("scores", {}),
    )
    names = {name: named(getattr(run.update, name)) for name in ("train_data", "test_data")}
    return dataclasses.replace(run.update, features=features, **names)


def named(data: str) -> str:
    """A specification without the folders of this machine; the parts of a mixture have slashes, too."""
    source, *steps = re.split(r"(?=[@+])", data, maxsplit=1)
    return "".join([re.sub(r"[^:,/]*/", "", source.replace("idx:", "").replace("npz:", "")), *steps])


def task_update_of(study: TaskStudy, run: Run) -> Update:
    """A new task as an update to its middle accuracy; the parent is the model before it got its head."""
    target = study.cutoffs[run.row["target"]][1]
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
        parent=f"{run.row['source'] or 'none'} {run.seed}",
        train_data=named(run.update.train_data),
        test_data=named(run.update.test_data),
    )


def lines(preset: str, found: Rows) -> Iterator[str]:
    """One line an update."""
    for study in PRESETS[preset].shifts:
        if not study.originals:
            yield from (line(update_of(run)) for run in runs(found[study.name]) if run.update.cost.steps)
    for tasks in PRESETS[preset].tasks:
        for run in runs(found[tasks.name]):
            yield line(task_update_of(tasks, run))


def thinned(update: Update) -> Update:
    """With every evaluation at 1.5 times the steps of the one kept before, and the last, as far as they tell."""
    curve, kept = update.curve, [0]
    for place in range(1, len(curve.steps)):
        if curve.steps[place] >= APART * curve.steps[kept[-1]] or place == len(curve.steps) - 1:
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
    """As a ledger keeps it."""
    energy = dataclasses.replace(update.energy, components_kwh={}, note="")
    short = dataclasses.replace(thinned(update), energy=energy)
    return json.dumps(rounded(to_dict(short), DIGITS), separators=(",", ":"))


def main() -> None:
    """Write the history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    options = parser.parse_args()
    made = list(lines(options.preset, rows(options.preset, results=options.results, missing=False)))
    options.out.write_text("\n".join(made) + "\n", encoding="utf-8")
    print(f"{len(made)} updates, {options.out.stat().st_size / 1e3:.0f} kB: {options.out}")


if __name__ == "__main__":
    main()

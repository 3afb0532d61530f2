"""The rows of the shift studies as the history that ships with the package: ``src/resque/prior.jsonl``.

One update a line, as a ledger keeps it, with everything that one pass told. Curves are thinned to evaluations at least
a tenth of their steps apart (and the last), numbers have six digits; what a machine of the studies spent is kept,
because it was measured, and is never used for another machine.

    python studies/prior.py --preset cpu
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from agreement import Run, runs
from presets import PRESETS
from publish import Rows
from resque.plain import to_plain
from resque.records import LearningCurve, Update
from runs import RESULTS, rows
from shift_rows import rounded

PRIOR = Path("src/resque/prior.jsonl")
APART = 1.1


def thinned(curve: LearningCurve) -> LearningCurve:
    """Every evaluation that is a tenth of its steps after the one kept before, or the best so far at the end."""
    kept = [0]
    for place in range(1, len(curve.steps)):
        if curve.steps[place] >= APART * curve.steps[kept[-1]] or place == len(curve.steps) - 1:
            kept.append(place)
    columns = {
        field.name: tuple(getattr(curve, field.name)[place] for place in kept)
        for field in dataclasses.fields(curve)
        if field.name != "steps_per_epoch"
    }
    return dataclasses.replace(curve, **columns)


def update_of(run: Run) -> Update:
    """An update as the history wants it."""
    features = dataclasses.replace(
        run.update.features,
        samples=run.row["n"],
        classes=run.row["classes"],
        parameters=run.row["parameters"],
        scores={name: score for name, (score, _) in run.row["rivals"].items()} | run.row.get("scores", {}),
    )
    return dataclasses.replace(run.update, features=features, curve=thinned(run.update.curve))


def lines(preset: str, found: Rows) -> Iterator[str]:
    """One line an update."""
    for study in PRESETS[preset].shifts:
        for run in runs(found[study.name]):
            yield json.dumps(rounded(to_plain(update_of(run))), separators=(",", ":"))


def main() -> None:
    """Write the history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PRIOR)
    options = parser.parse_args()
    made = list(lines(options.preset, rows(options.preset, results=options.results, missing=False)))
    options.out.write_text("\n".join(made) + "\n", encoding="utf-8")
    print(f"{len(made)} updates, {options.out.stat().st_size / 1e3:.0f} kB: {options.out}")


if __name__ == "__main__":
    main()

"""A comparison of tiny networks whose choices do not depend on times, for several test files."""

import dataclasses
import json
import re

import resque
from resque.energy.meters import ClockMeter
from resque.forecasting.comparison import Comparison
from resque.ledger.bundled import bundled_updates
from resque.workflows import asking, comparing, trials

WAYS = "Retrain the head", "All layers, 10 × rate", "Re-estimate normalization"
NEW, NEW_TEST = "digits@train@300+contrast:9", "digits@test+contrast:9"
MODEL = """
import torch
from torch import nn

def build(width=8, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * width, 10),
    )

def wide():
    return build(12, 1)

def broken():
    raise OSError("no such weights")
"""


def fix_choices(patch) -> None:
    """Make choices go by names and steps: every pilot is dearer than what is left of a way that arrives."""
    every = asking.ways_to_update
    some = bundled_updates()[::24]
    for module in ("workflows.compare", "forecasting.landmarking"):
        patch.setattr(f"resque.{module}.bundled_updates", lambda: some)
    patch.setattr(asking, "ways_to_update", lambda *given: [way for way in every(*given) if way.name in WAYS])
    patch.setattr(trials.Trial, "rank", lambda trial, steps: (trial.way.needs_labels, float(len(trial.way.name))))
    patch.setattr(trials.Trial, "expected_seconds_for", lambda trial, steps: 1e9)
    patch.setattr(comparing, "_ROUNDS", (10, 20))
    patch.setattr(comparing, "_is_free", lambda trial, trials: not trial.way.needs_labels)


def compare(folder, target: float, ledger: str, meter=None, **more) -> Comparison:
    """Compare two networks, and one that cannot be built, on a shift of the digits."""
    (folder / "net.py").write_text(MODEL)
    models = [f"{folder}/net.py:{name}" for name in ("build", "wide", "broken")]
    return resque.compare(
        models, NEW, NEW_TEST, target, original="digits@train@300", recipe="train-adam,max_epochs=6,evaluate_every=4",
        ledger=str(folder / ledger), meter=meter or ClockMeter(), max_minutes=1e12, **more,
    )  # fmt: skip


def told(made: Comparison) -> dict:
    """What a comparison says, without its times, energies, ids and folders."""
    ids = {each.id: (without_folder(each.model), each.name) for each in made.options}
    rows = {
        ids[each.id]: (
            each.chance, each.accuracy, each.how_known, each.estimates["steps"], without_folder(each.note),
            each.original_accuracy, json.dumps(dict(each.recipe), sort_keys=True), each.trainable_share,
        )
        for each in made.options
    }  # fmt: skip
    first = [
        dataclasses.replace(each, model=without_folder(each.model), note=without_folder(each.note))
        for each in made.first_round
    ]
    return {"rows": rows, "best": ids.get(made.best or ""), "first": first, "notes": made.notes}


def without_folder(text: str) -> str:
    return re.sub(r"/[^ ]*/net", "net", text)

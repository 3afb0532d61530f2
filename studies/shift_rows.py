"""The rows of a study of shifts: one retraining for each shift and seed, its curve, and what one pass told before."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from presets import Shifted, ShiftStudy
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.energy.meters import EnergyMeter, open_meter
from resque.errors import ResqueError
from resque.indices.baselines.model_outputs import ModelOutputs, collect_outputs
from resque.indices.baselines.scores import baseline_scores
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.profile import Profile
from resque.indices.shift_features import batchnorm_adapted_scores, shift_features
from resque.ledger.records import Update
from resque.ledger.serialization import to_dict
from resque.models.inference import device_of
from resque.models.loading import load_model
from resque.models.weights import save_weights
from resque.training.evaluation import evaluate
from resque.training.job import RetrainingJob
from resque.training.probe import probe
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.workflows.engine import Row

DIGITS = 6
SCRATCH_EPOCHS = 60


def original(study: ShiftStudy, seed: int, weights: str) -> Row:
    """Train the original model of a seed."""
    torch.set_num_threads(1)
    model = on_device(load_model(study.model, seed=seed, classes=load_data(study.test).outputs))
    clean, test = load_data(f"{study.train}@original"), load_data(study.test)
    job = RetrainingJob(clean, test, study.clean_accuracy, named_recipe(study.clean_recipe), seed)
    update = retrain(model, job, meter=meter(), model_name=study.model)
    save_weights(model, Path(weights))
    return {"study": study.name, "seed": seed, "accuracy": update.accuracy, "update": row_of(update)}


def retrained(study: ShiftStudy, seed: int, shift: Shifted, weights: str) -> Row:
    """What one pass says of a shift, and what retraining for it takes."""
    torch.set_num_threads(1)
    model, train = on_device(load_model(study.model, Path(weights))), load_data(shift.train)
    recipe, held_out = named_recipe(study.recipe), load_data(study.test)
    test = load_data(shift.test)
    job = RetrainingJob(
        train, test, study.targets[-1], recipe, seed, original_test=held_out, shift_type=shift.shift_type
    )
    features, _, passes_s = shift_features(model, job, clean_profile(study, weights, *study.forms[0]))
    found = dict(indices(study, model, weights, train))
    others = baseline_scores(collect_outputs(model, train), clean_view(study, weights))
    cost = probe(model, train, recipe, meter())
    update = retrain(model, job, meter=meter(), features=features, step_cost=cost, model_name=study.model)
    return {
        **named(study, seed, shift),
        "n": len(train),
        "classes": len(train.classes),
        "parameters": sum(p.numel() for p in model.parameters()),
        "passes_s": rounded(passes_s),
        "indices": rounded(found),
        "rivals": {name: [rounded(score.value), score.grows_with_cost] for name, score in others.items()},
        "step_s": rounded(cost.wall_s),
        "step_kwh": rounded(cost.energy_kwh),
        "update": row_of(update),
    }


def named(study: ShiftStudy, seed: int, shift: Shifted) -> Row:
    """Which run a row is of."""
    return {"study": study.name, "seed": seed, "shift_type": shift.shift_type, "level": shift.level}


def passed(study: ShiftStudy, seed: int, shift: Shifted, weights: str) -> Row:
    """What passes with recalibrated batch normalisation say of a shift: apart, because they came later."""
    torch.set_num_threads(1)
    model, train, test = (
        on_device(load_model(study.model, Path(weights))),
        load_data(shift.train),
        load_data(shift.test),
    )
    job = RetrainingJob(train, test, study.targets[-1], named_recipe(study.recipe), seed)
    accuracy, loss = evaluate(model, test.batches())
    scores = rounded(batchnorm_adapted_scores(model, job, accuracy, loss))
    return {**named(study, seed, shift), "scores": scores}


def scratched(study: ShiftStudy, seed: int, shift: Shifted) -> Row:
    """What training from scratch on the shifted data takes."""
    torch.set_num_threads(1)
    train, test = load_data(shift.train), load_data(shift.test)
    model = on_device(load_model(study.model, seed=seed + 1000, classes=test.outputs))
    recipe = dataclasses.replace(named_recipe(study.recipe).from_scratch(), max_epochs=SCRATCH_EPOCHS)
    job = RetrainingJob(train, test, study.targets[-1], recipe, seed, shift_type=shift.shift_type, from_scratch=True)
    update = retrain(model, job, meter=meter(), model_name=study.model)
    return {
        **named(study, seed, shift),
        "n": len(train),
        "update": row_of(update),
    }


def indices(study: ShiftStudy, model: nn.Module, weights: str, train: LabeledDataset) -> Iterator[tuple[str, Any]]:
    """Every form of the index: by layer, reduction, labels and sample size, plain and debiased."""
    for layer, reduction in study.forms:
        before = clean_profile(study, weights, layer, reduction)
        parts = {"true labels": (train, "true")}
        if (layer, reduction) == study.forms[0]:
            parts["pseudo labels"] = train, "pseudo"
            parts |= {f"true labels, n {n}": (train.limited(n), "true") for n in study.sizes}
        for name, (data, labels) in parts.items():
            after = profile(
                model,
                data.batches(device=device_of(model)),
                layer=layer,
                reduction=reduction,
                labels=labels,
                preprocessing=data.preprocessing,
            )
            for debias in (False, True):
                title = f"{layer or 'paper layer'}, {reduction}, {name}{', debiased' if debias else ''}"
                try:
                    yield title, resque_dist(before, after, debias=debias, undefined="skip").value
                except ResqueError:  # too few samples of a class for the halves
                    yield title, None


@functools.lru_cache(maxsize=8)
def clean_profile(study: ShiftStudy, weights: str, layer: str | None, reduction: str) -> Profile:
    """The profile of the original data, once a process."""
    clean = load_data(f"{study.train}@original")
    model = on_device(load_model(study.model, Path(weights)))
    batches = clean.batches(device=device_of(model))
    return profile(model, batches, layer=layer, reduction=reduction, preprocessing=clean.preprocessing)


@functools.lru_cache(maxsize=1)
def clean_view(study: ShiftStudy, weights: str) -> ModelOutputs:
    """What the model sees in original data held out, once a process."""
    return collect_outputs(on_device(load_model(study.model, Path(weights))), load_data(study.test))


@functools.lru_cache(maxsize=1)
def meter() -> EnergyMeter:
    """One a process: opening it takes a while."""
    return open_meter()


def row_of(update: Update) -> Row:
    """An update as a row keeps it: six digits of every number."""
    found: Row = rounded(to_dict(update))
    return found


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """The same with every float at six significant digits, so that rows stay small."""
    if isinstance(value, dict):
        return {name: rounded(each, digits) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each, digits) for each in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) and math.isfinite(value) else value


def on_device(model: nn.Module) -> nn.Module:
    """On the GPU, where there is one."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")

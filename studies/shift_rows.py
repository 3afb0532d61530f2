"""Rows of a study of shifts: features from one forward pass, and a retraining, for each shift and seed."""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from candidate_predictors import Original, candidates, original_state
from presets import Shifted, ShiftStudy
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.energy.meters import EnergyMeter, open_meter
from resque.errors import ResqueError
from resque.indices.baselines.model_outputs import ModelOutputs, collect_outputs
from resque.indices.baselines.scores import BaselineScore, baseline_scores
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.head_inputs import head_width
from resque.indices.profile import Profile
from resque.indices.shift_features import adapted_scores, shift_features
from resque.ledger.records import StepCost, Update
from resque.ledger.serialization import to_dict
from resque.models.inference import device_of
from resque.models.loading import load_model, usable_device
from resque.models.weights import save_weights
from resque.training.job import RetrainingJob
from resque.training.probe import probe
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.workflows.engine import Row

DIGITS = 6
SCRATCH_EPOCHS = 60


def train_original(study: ShiftStudy, seed: int, weights: str) -> Row:
    """Train the original model of a seed, and save its weights."""
    set_threads()
    model = on_device(load_model(study.model, seed=seed, classes=load_data(study.test).outputs))
    clean, test = original_data(study), load_data(study.test)
    job = RetrainingJob(clean, test, study.clean_accuracy, named_recipe(study.clean_recipe), seed)
    update = retrain(model, job, meter=meter(), model_name=study.model)
    save_weights(model, Path(weights))
    for cached in (original_data, original_profile, original_outputs, original_state_of, step_cost):
        cached.cache_clear()  # they may be of an earlier model in this file
    return {"study": study.name, "seed": seed, "accuracy": update.accuracy, "update": update_row(update)}


def retrain_for_shift(study: ShiftStudy, seed: int, shift: Shifted, weights: str) -> Row:
    """Compute the index and the baselines of a shift, and measure a retraining for it."""
    set_threads()
    model, train = on_device(load_model(study.model, Path(weights))), load_data(shift.train)
    recipe, held_out = named_recipe(study.recipe), load_data(study.test)
    test = load_data(shift.test)
    target, before = study.targets[-1], original_outputs(study, weights)
    target = rounded_down(before.accuracy + target) if target < 0.0 else target
    job = RetrainingJob(train, test, target, recipe, seed, original_test=held_out, shift_type=shift.shift_type)
    features, _, passes_s = shift_features(model, job, original_profile(study, weights, *study.forms[0]))
    if study.candidates:
        indices, values = {form_title(*study.forms[0]): features.index_rad}, candidates_row(study, weights, model, job)
    else:
        indices, values = dict(index_forms(study, model, weights, train)), {}
    baselines = baseline_scores(collect_outputs(model, train, by_class=True), before)
    cost = step_cost(study, weights)
    update = retrain(model, job, meter=meter(), features=features, step_cost=cost, model_name=study.model)
    return {
        **run_keys(study, seed, shift),
        "n": len(train),
        "classes": len(train.classes),
        "parameters": sum(p.numel() for p in model.parameters()),
        "passes_s": round_floats(passes_s),
        "indices": round_floats(indices),
        "baselines": baselines_row(baselines),
        "step_s": round_floats(cost.wall_s),
        "step_kwh": round_floats(cost.energy_kwh),
        "scores": {name: value for name, value in round_floats(features.scores).items() if name.startswith("adapted ")},
        **values,
        "update": update_row(update),
    }


def candidates_row(study: ShiftStudy, weights: str, model: nn.Module, job: RetrainingJob) -> Row:
    """Return the candidate predictors as a row stores them, with the seconds of each group of them."""
    values, seconds = candidates(model, job, original_state_of(study, weights))
    return {"candidates": round_floats(values), "candidates_s": round_floats(seconds)}


def run_keys(study: ShiftStudy, seed: int, shift: Shifted) -> Row:
    """Return the keys of a row that identify its run."""
    return {"study": study.name, "seed": seed, "shift_type": shift.shift_type, "level": shift.level}


def score_adapted_model(study: ShiftStudy, seed: int, shift: Shifted, weights: str) -> Row:
    """Score the adapted model on a shift; these rows are apart, because the scores were added later."""
    set_threads()
    model = on_device(load_model(study.model, Path(weights)))
    train, test = load_data(shift.train), load_data(shift.test)
    job = RetrainingJob(train, test, study.targets[-1], named_recipe(study.recipe), seed)
    channels = original_profile(study, weights, *study.forms[0]).channels
    scores = round_floats(adapted_scores(model, job, channels, head_width(model, train)))
    return {**run_keys(study, seed, shift), "scores": scores}


def train_from_scratch(study: ShiftStudy, seed: int, shift: Shifted) -> Row:
    """Measure training from scratch on the shifted data."""
    set_threads()
    train, test = load_data(shift.train), load_data(shift.test)
    model = on_device(load_model(study.model, seed=seed + 1000, classes=test.outputs))
    recipe = dataclasses.replace(named_recipe(study.recipe).from_scratch(), max_epochs=SCRATCH_EPOCHS)
    target = study.targets[-1] if study.targets[-1] > 0.0 else 1.0  # without a trained model, there is no difference
    job = RetrainingJob(train, test, target, recipe, seed, shift_type=shift.shift_type, from_scratch=True)
    update = retrain(model, job, meter=meter(), model_name=study.model)
    return {**run_keys(study, seed, shift), "n": len(train), "update": update_row(update)}


def index_forms(study: ShiftStudy, model: nn.Module, weights: str, train: LabeledDataset) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each form of the index: layer, reduction, labels, sample size, plain and debiased."""
    for layer, reduction in study.forms:
        before = original_profile(study, weights, layer, reduction)
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
                classes=data.classes if labels == "true" else None,
                labels=labels,
                preprocessing=data.preprocessing,
            )
            for debias in (False, True):
                title = f"{form_title(layer, reduction, name)}{', debiased' if debias else ''}"
                try:
                    yield title, resque_dist(before, after, debias=debias, undefined="skip").value
                except ResqueError:  # a class has too few samples for split halves
                    yield title, None


def form_title(layer: str | None, reduction: str, name: str = "true labels") -> str:
    """Return the name of a form of the index in the rows."""
    return f"{layer or 'paper layer'}, {reduction}, {name}"


@functools.lru_cache(maxsize=1)
def original_data(study: ShiftStudy) -> LabeledDataset:
    """Load the original data, once per process."""
    return load_data(f"{study.train}@original")


@functools.lru_cache(maxsize=1)
def step_cost(study: ShiftStudy, weights: str) -> StepCost:
    """Measure the cost of a training step, once per model and process: it does not depend on the shift."""
    model = on_device(load_model(study.model, Path(weights)))
    return probe(model, original_data(study), named_recipe(study.recipe), meter())


@functools.lru_cache(maxsize=8)
def original_profile(study: ShiftStudy, weights: str, layer: str | None, reduction: str) -> Profile:
    """Compute the profile of the original data, once per process."""
    clean = original_data(study)
    model = on_device(load_model(study.model, Path(weights)))
    batches = clean.batches(device=device_of(model))
    return profile(
        model, batches, layer=layer, reduction=reduction, classes=clean.classes, preprocessing=clean.preprocessing
    )


@functools.lru_cache(maxsize=1)
def original_outputs(study: ShiftStudy, weights: str) -> ModelOutputs:
    """Collect the outputs of the model on held-out original data, once per process."""
    return collect_outputs(on_device(load_model(study.model, Path(weights))), load_data(study.test))


@functools.lru_cache(maxsize=1)
def original_state_of(study: ShiftStudy, weights: str) -> Original:
    """Compute what the candidates keep of the original model and data, once per process."""
    model = on_device(load_model(study.model, Path(weights)))
    return original_state(model, original_data(study), load_data(study.test))


@functools.lru_cache(maxsize=1)
def meter() -> EnergyMeter:
    """Open the energy meter, once per process, because that takes a while."""
    return open_meter(device())


def update_row(update: Update) -> Row:
    """Return an update as a row stores it, with six significant digits."""
    row: Row = round_floats(to_dict(update))
    return row


def baselines_row(scores: Mapping[str, BaselineScore]) -> Row:
    """Return value and direction of each baseline as a row stores them."""
    return {name: [round_floats(score.value), score.grows_with_cost] for name, score in scores.items()}


def round_floats(value: Any, digits: int = DIGITS) -> Any:
    """Round each float in nested dictionaries and lists to some significant digits, so that rows stay small."""
    if isinstance(value, dict):
        return {name: round_floats(each, digits) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(each, digits) for each in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) and math.isfinite(value) else value


def device() -> torch.device:
    """Return the device of the studies: ``DEVICE`` in the environment, else a GPU if there is one, else the CPU."""
    return usable_device(os.environ.get("DEVICE", "cuda" if torch.cuda.is_available() else "cpu"))


def set_threads() -> None:
    """Use one thread on the CPU, where several processes work, and several to prepare the data of a GPU."""
    torch.set_num_threads(1 if device().type == "cpu" else min(8, os.cpu_count() or 1))


def rounded_down(value: float) -> float:
    """Round down to the digits of a row, so that an accuracy at a target also reaches the stored target."""
    return math.floor(value * 10**DIGITS) / 10**DIGITS


def on_device(model: nn.Module) -> nn.Module:
    """Move a model to the device of the studies."""
    return model.to(device())

"""Rows of a study of tasks: features after one epoch, and a retraining, for each source, target and seed."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from analysis import TASK_INDEX
from presets import TaskStudy
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.errors import ResqueError
from resque.indices.baselines.model_outputs import collect_outputs
from resque.indices.baselines.scores import baseline_scores
from resque.indices.task import resque_task
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import representation_layer
from resque.models.loading import load_model
from resque.models.weights import save_weights
from resque.training.job import RetrainingJob
from resque.training.new_task import with_new_head
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.workflows.engine import Row
from shift_rows import baselines_row, meter, on_device, round_floats, set_threads, update_row

INITIALIZATION_SAMPLES = 1000  # for all three initializations: twenty random ones take a while


def train_source(study: TaskStudy, source: str, seed: int, weights: str) -> Row:
    """Train the model of a source task and save its weights; without a source they stay random."""
    set_threads()
    if not source:
        save_weights(load_model(study.model, seed=seed), Path(weights))
        return {"study": study.name, "seed": seed, "source": source}
    train, test = (load_data(spec) for spec in study.tasks[source])
    model = on_device(load_model(study.model, seed=seed, classes=train.outputs))
    job = RetrainingJob(train, test, 1.0, named_recipe(study.clean_recipe), seed)
    update = retrain(model, job, meter=meter(), model_name=study.model)
    save_weights(model, Path(weights))
    row = {"study": study.name, "seed": seed, "source": source}
    return {**row, "accuracy": update.accuracy, "update": update_row(update)}


def learn_task(study: TaskStudy, source: str, target: str, seed: int, weights: str) -> Row:
    """Compute the index and the baselines of a new task after one epoch, and measure learning it.

    Another way has an index in one form, and no baselines.
    """
    set_threads()
    train, test = (load_data(spec) for spec in study.tasks[target])
    model = load_model(study.model, Path(weights))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner, task = with_new_head(model, train)
    learner, recipe = on_device(learner), named_recipe(study.recipe)
    before = {} if study.way else baseline_scores(collect_outputs(learner, task, by_class=True))
    warmed = copy.deepcopy(learner)
    epoch = dataclasses.replace(recipe, fixed_epochs=1)
    warm_up = retrain(warmed, RetrainingJob(task, test, 1.0, epoch, seed), meter=meter(), model_name=study.model)
    after = {} if study.way else baseline_scores(collect_outputs(warmed, task, by_class=True))
    by_way = named_recipe(f"{study.recipe},{study.way}") if study.way else recipe
    update = retrain(learner, RetrainingJob(task, test, 1.0, by_way, seed), meter=meter(), model_name=study.model)
    return {
        "study": study.name,
        "seed": seed,
        "source": source,
        "target": target,
        "n": len(train),
        "classes": len(train.classes),
        "parameters": sum(p.numel() for p in learner.parameters()),
        "indices": round_floats(index_of_features(warmed, task) if study.way else task_indices(warmed, task, seed)),
        "accuracy_after_one_epoch": round_floats(warm_up.accuracy),
        "baselines_before": baselines_row(before),
        "baselines_after": baselines_row(after),
        "update": update_row(update),
    }


def learn_from_scratch(study: TaskStudy, target: str, seed: int) -> Row:
    """Measure learning a task from random weights, by the recipe of an original training."""
    set_threads()
    train, test = (load_data(spec) for spec in study.tasks[target])
    model = on_device(load_model(study.model, seed=seed + 1000, classes=train.outputs))
    recipe = named_recipe(study.recipe).from_scratch()
    job = RetrainingJob(train, test, 1.0, recipe, seed, from_scratch=True)
    update = retrain(model, job, meter=meter(), model_name=study.model)
    return {"study": study.name, "seed": seed, "target": target, "n": len(train), "update": update_row(update)}


def task_indices(model: nn.Module, task: LabeledDataset, seed: int) -> Row:
    """Compute RESQUE_task in every form: layer, reduction, with and without Lloyd, and by initialization."""
    values: Row = {}
    for layer, reduction in ((None, "flatten"), (None, "mean"), ("penultimate", "flatten")):
        features = representations(model, task, layer, reduction)
        name = f"{layer or 'paper layer'}, {reduction}"
        for lloyd in (True, False):
            title = f"{name}, {'Lloyd' if lloyd else 'class means'}"
            values[title] = resque_task(features, task.labels, lloyd=lloyd).value
    subset = torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(task))[:INITIALIZATION_SAMPLES]))
    try:
        features = representations(model, task.take(subset), None, "flatten")
        by_init = resque_task(features, task.labels[subset], init="all", seed=seed)
    except ResqueError as error:  # fewer samples than classes
        return values | {"starts": str(error)}
    return values | {"starts": dict(by_init.by_init), "agreement": dict(by_init.agreement)}


def index_of_features(model: nn.Module, task: LabeledDataset) -> Row:
    """Compute RESQUE_task in the form that forecasts use."""
    return {TASK_INDEX: resque_task(representations(model, task, None, "flatten"), task.labels).value}


def representations(model: nn.Module, data: LabeledDataset, layer: str | None, reduction: str) -> Tensor:
    """Compute the ``(n, width)`` representations of a dataset."""
    with capture_features(model, representation_layer(model, layer), reduction) as extract:
        return torch.cat([extract(inputs)[0].cpu() for inputs, _ in data.batches(device=device_of(model))])

"""Candidate predictors of the studies against scikit-learn, scipy, their definitions, and the run they are of."""

import dataclasses
import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from resque.data.loading import load_data
from resque.energy.meters import ClockMeter
from resque.indices.baselines.refit import PENALTIES, RefitSums
from resque.indices.compute_profile import profile
from resque.indices.shift_features import shift_features
from resque.models.channel_matching import match_channels
from resque.training.job import RetrainingJob
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain

STUDIES = Path(__file__).parents[2] / "studies"
NETWORKS = ("small_resnet", "plain_cnn")
SEEDS = st.integers(0, 2**20)


def _study_modules():
    """Import the module of the studies, as a script beside it would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        modules = [importlib.import_module(name) for name in ("candidate_predictors", "networks", "presets", "runs")]
        for name in set(sys.modules):
            if (STUDIES / f"{name}.py").is_file():
                del sys.modules[name]
    return modules


cp, networks, presets, runs = _study_modules()


def features(seed, n=60, d=5, classes=3):
    """Return a pass over random features whose scales and means differ, with classes that lie apart."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, n - classes)])
    rows = (random.normal(size=(n, d)) + random.normal(size=(classes, d))[labels]) * 10.0 ** random.uniform(-1, 2, d)
    rows += random.normal(size=d) * 3.0
    return cp.Pass(torch.from_numpy(rows), torch.from_numpy(random.normal(size=(n, classes))), torch.from_numpy(labels))


@pytest.fixture(scope="module", params=NETWORKS)
def update(request):
    """``(model, job, original state)`` of a network that is trained a little on digits, and an update for blur."""
    torch.manual_seed(0)
    model = getattr(networks, request.param)()
    clean, held_out = load_data("digits@16px@train@200"), load_data("digits@16px@test@100")
    first = RetrainingJob(clean, held_out, 1.0, named_recipe("train-adam,fixed_epochs=5"))
    retrain(model, first, meter=ClockMeter())
    data = [load_data(f"digits@16px@{part}+gaussian:8") for part in ("train@180", "test@100")]
    job = RetrainingJob(*data, 0.99, named_recipe("retrain-adam,evaluate_every=1,max_epochs=2"), seed=3)
    return model, job, cp.original_state(model, clean, held_out)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_a_refit_head_is_the_one_that_scikit_learn_finds_by_leaving_one_out(seed):
    outputs = features(seed)
    head = cp.refit_head(outputs, 3)
    rows, targets = outputs.features.numpy(), np.eye(3)[outputs.labels.numpy()]
    scale = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    found = RidgeCV(alphas=np.array(cp.PENALTIES) * scale.mean()).fit(rows, targets)
    assert head.penalty == pytest.approx(found.alpha_, rel=1e-9)
    assert np.allclose(rows @ head.weight.numpy().T + head.bias.numpy(), found.predict(rows), atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_aligned_features_are_standardized_and_mapped_back(seed):
    new, original = features(seed), features(seed + 1)
    aligned = cp.aligned_features(new.features, new.features, original.features)
    expected = StandardScaler().fit(original.features).inverse_transform(StandardScaler().fit_transform(new.features))
    assert (np.abs(aligned.numpy() - expected) < 0.01 * expected.std(0)).all()  # a constant is added to variances


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_coral_is_its_definition(seed):
    new, original = features(seed).features, features(seed + 1).features
    covariances = [np.cov(each.numpy().T, bias=True) for each in (new, original)]
    extra = cp.SHRINKAGE * np.diag(covariances[1]).mean() * np.eye(5)
    roots = [scipy.linalg.sqrtm(each + extra) for each in covariances]
    expected = (new.numpy() - new.numpy().mean(0)) @ np.linalg.inv(roots[0]) @ roots[1] + original.numpy().mean(0)
    assert np.allclose(cp.coral_features(new, new, original), expected, rtol=1e-6, atol=1e-6 * expected.std())
    exact = cp.coral_features(new, new, original, shrinkage=0.0).numpy()
    scale = np.sqrt(np.outer(*[np.diag(covariances[1])] * 2))
    assert np.abs((np.cov(exact.T, bias=True) - covariances[1]) / scale).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, factor=st.floats(0.1, 10.0))
def test_ratios_and_displacement_are_those_of_the_sums(seed, factor):
    outputs = features(seed)
    rows, labels = outputs.features.numpy(), outputs.labels.numpy()
    means = np.stack([rows[labels == label].mean(0) for label in range(3)])
    within = sum(((rows[labels == label] - means[label]) ** 2).sum() for label in range(3))
    total = ((rows - rows.mean(0)) ** 2).sum()
    assert cp.fisher_ratio(outputs) == pytest.approx((total - within) / within)
    scaled = dataclasses.replace(outputs, features=factor * outputs.features)
    assert cp.displacement(outputs, outputs) == pytest.approx({"displacement": 0.0, "separation": 1.0})
    assert cp.displacement(scaled, outputs)["separation"] == pytest.approx(factor)
    moved = dataclasses.replace(outputs, features=outputs.features + torch.tensor([factor, 0, 0, 0, 0]))
    spreads = [math.sqrt(((rows[labels == each] - means[each]) ** 2).sum(1).mean()) for each in range(3)]
    assert cp.displacement(moved, outputs)["displacement"] == pytest.approx(np.mean([factor / s for s in spreads]))


def test_where_nothing_shifted_every_map_keeps_the_accuracy(update):
    model, _, original = update
    values = cp.alignment(model, original.train, original.test, original)
    assert values == pytest.approx(dict.fromkeys(values, original.test.accuracy))
    clean = load_data("digits@16px@train@200")
    matched = cp.outputs_on(match_channels(model, clean.batches(), original.channels), clean)
    assert torch.allclose(matched.logits, original.train.logits, atol=1e-3)


def test_the_channels_of_an_adapted_plain_network_have_the_original_moments(update):
    model, job, original = update
    one_batch = job.train.limited(150)
    matched = match_channels(model, one_batch.batches(), original.channels)
    for name, sums in cp.channel_sums(matched, one_batch).items():
        assert torch.allclose(sums.mean, original.channels[name].mean, atol=2e-3)
        assert torch.allclose(sums.variance, original.channels[name].variance, rtol=0.02, atol=2e-3)


def test_what_the_product_computes_is_what_the_study_found_good(update):
    """The accuracy of the adapted model is the same; heads refit by PRESS and by generalized cross-validation agree."""
    model, job, original = update
    values, _ = cp.candidates(model, job, original)
    clean = load_data("digits@16px@train@200")
    scores = shift_features(model, job, profile(model, clean.batches()))[0].scores
    assert scores["adapted accuracy"] == values["accuracy, adapted"]
    assert scores["adapted loss"] == pytest.approx(values["loss, adapted"], rel=1e-5)
    assert scores["adapted k-NN"] == values["k-NN accuracy, adapted"]
    assert scores["adapted refit"] == pytest.approx(values["refit accuracy, adapted"], abs=0.03)


def test_a_refit_from_sums_is_that_of_the_study_for_the_same_penalty(update):
    outputs = update[2].train
    for factor in cp.PENALTIES:
        expected = cp.refit_head(outputs, 10, (factor,))
        sums = RefitSums(range(10))
        for part in torch.arange(len(outputs.labels)).split(64):
            sums.update(outputs.features[part], outputs.labels[part])
        found = sums.head((factor,))
        assert found.penalty == pytest.approx(expected.penalty, rel=1e-9)
        numbers = [outputs.features @ head.weight.T + head.bias for head in (found, expected)]
        assert torch.allclose(*numbers, rtol=0.0, atol=1e-8)
    assert pytest.approx(PENALTIES) == cp.PENALTIES


def test_first_steps_are_those_of_the_run(update):
    model, job, original = update
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values, _ = cp.candidates(model, job, original)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    copied = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, max_epochs=2))
    curve = retrain(cp.copy.deepcopy(model), copied, meter=ClockMeter()).curve
    for count in (1, 10):
        place = curve.steps.index(count)
        assert values[f"accuracy after {count}"] == curve.accuracy[place]
        assert values[f"loss after {count}"] == pytest.approx(curve.loss[place])
    assert values["accuracy"] == curve.accuracy[0]
    assert values["gradient squared norm"] <= values["gradient 1-norm"] ** 2


def test_candidates_are_deterministic_finite_and_the_same_for_all_networks(update):
    model, job, original = update
    values, seconds = cp.candidates(model, job, original)
    assert cp.candidates(model, job, original)[0] == values
    assert all(value is not None and math.isfinite(value) for value in values.values())
    assert set(seconds) == {"passes", "alignment", "adapted", "first steps", "gradient"}
    shares = [value for name, value in values.items() if "accuracy" in name]
    assert len(shares) == 15
    assert all(0.0 <= value <= 1.0 for value in shares)


def test_the_plan_of_kinds_is_balanced_wherever_it_is_cut_off():
    preset = presets.PRESETS["kinds"]
    plan = list(runs.plan(preset, Path("cache")))
    rows = [(file, task) for file, tasks in plan for task in tasks if not file.startswith(runs.ORIGINALS)]
    assert len({task.key for _, task in rows}) == len(rows) == 12 * len(presets.KINDS)
    for n in range(0, len(rows) + 1, 2 * len(presets.KINDS)):
        conditions = [
            [task.key.removeprefix(name) for file, task in rows[:n] if file == name]
            for name in ("small_resnet", "plain_cnn")
        ]
        assert conditions[0] == conditions[1]
    assert [task.arguments["seed"] for _, task in rows] == sorted(task.arguments["seed"] for _, task in rows)
    shifts = {task.arguments["shift"] for _, task in rows}
    assert {shift.shift_type for shift in shifts if "+" not in shift.test} <= {"relabel", "pair_flip"}
    assert not {*presets.COLOR_ONLY, *presets.TWINS.values()} & {shift.shift_type for shift in shifts}


@pytest.mark.parametrize("size", [0, 1, 2, 5, 9])
def test_blocks_keep_every_task_in_order(size):
    planned = [("a", [1, 2, 3, 4, 5]), ("b", []), ("c", [6, 7])]
    parts = list(runs.blocks(iter(planned), size))
    assert [task for _, tasks in parts for task in tasks] == [1, 2, 3, 4, 5, 6, 7]
    assert all(len(tasks) <= (size or 5) for _, tasks in parts)

"""The features of an update come from the documented passes, and from nothing else."""

import dataclasses

import pytest
import torch
from torch import nn

from resque.data.shifts import parse_shift
from resque.indices.compute_profile import profile
from resque.indices.head_inputs import HeadInputs, model_knn_accuracy
from resque.indices.shift_features import shift_features
from resque.models.adaptation import adapt
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob

WIDTH_CHECK = 2  # samples of a forward pass that finds the width of the head
ADAPTED = {"adapted accuracy", "adapted loss"}
OF_HEAD = {"adapted k-NN", "adapted refit"}


def plain_cnn():
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 10, 3)

    def forward(self, x):
        return self.body(x).mean((2, 3))


def samples_of_passes(model, job, **options):
    """Features, and the samples of all forward passes without those that find the width of the head."""
    batches = []
    handle = model.register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    features, _, _ = shift_features(model, job, **options)
    handle.remove()
    return features, sum(size for size in batches if size != WIDTH_CHECK)


@pytest.fixture
def job(small):
    return RetrainingJob(*small, 0.9)


@pytest.fixture(params=["cnn", "plain_cnn"])
def adaptable(request, cnn):
    return cnn if request.param == "cnn" else plain_cnn()


def test_a_model_that_can_be_adapted_takes_five_passes(adaptable, job):
    train, test = len(job.train), len(job.test)
    original = profile(adaptable, job.train.batches())
    features, samples = samples_of_passes(adaptable, job, original=original)
    assert samples == train + test + train + train + test
    assert {"loss", "LogME", "k-NN accuracy"} | ADAPTED | OF_HEAD <= set(features.scores)


def test_pseudo_labels_leave_out_what_needs_labels_of_the_training_data(adaptable, job):
    original = profile(adaptable, job.train.batches(), labels="pseudo")
    features, samples = samples_of_passes(adaptable, job, original=original, labels="pseudo")
    assert samples == 2 * len(job.train) + 2 * len(job.test)
    assert (set(features.scores), features.labels) == (ADAPTED, "pseudo")


def test_training_data_without_labels_leave_out_the_same(adaptable, job):
    unlabeled = dataclasses.replace(job, train=dataclasses.replace(job.train, labeled=False))
    original = profile(adaptable, job.train.batches(), labels="pseudo")
    features, _ = samples_of_passes(adaptable, unlabeled, original=original, labels="pseudo")
    assert features == dataclasses.replace(shift_features(adaptable, job, original, "pseudo")[0], classes=None)


def test_test_data_without_labels_leave_out_what_needs_them(adaptable, job):
    unlabeled = dataclasses.replace(job, test=dataclasses.replace(job.test, labeled=False))
    features, samples = samples_of_passes(adaptable, unlabeled, original=profile(adaptable, job.train.batches()))
    assert samples == 2 * len(job.train) + 2 * len(job.test)  # the model, and its adapted self
    assert not (ADAPTED | {"adapted refit"}) & set(features.scores)
    assert features.is_estimated


def test_scores_of_the_adapted_model_are_those_of_the_copy(adaptable, job):
    """On data that a shift moved, so that there is something to adapt."""
    original = profile(adaptable, job.train.batches())
    shifted = dataclasses.replace(job, train=job.train.shifted(parse_shift("brightness:9")))
    scores = shift_features(adaptable, shifted, original)[0].scores
    adapted = adapt(adaptable, shifted.train.batches(), original.channels)
    assert (scores["adapted accuracy"], scores["adapted loss"]) == evaluate_dataset(adapted, job.test)
    inputs = HeadInputs.of(adapted, shifted.train, adapted[-1].in_features)
    head = inputs.refit()
    rows = torch.cat([adapted[:-1](images) for images, _ in job.test.batches()]).detach()
    assert scores["adapted refit"] == float((head.predict(rows) == job.test.labels).double().mean())
    assert scores["adapted k-NN"] == inputs.knn_accuracy == model_knn_accuracy(adapted, shifted.train)


@pytest.mark.parametrize("network", [perceptron, plain_cnn])
def test_a_model_with_nothing_to_adapt_takes_two_passes(network, job):
    """A perceptron, or a network without batch norm whose original channels are unknown."""
    model = network()
    original = profile(model, job.train.batches())
    original.channels = None
    features, samples = samples_of_passes(model, job, original=original)
    assert samples == len(job.train) + len(job.test)
    assert not ADAPTED & set(features.scores)
    assert features.scores["adapted k-NN"] == features.scores["k-NN accuracy"]
    without, samples = samples_of_passes(model, job)
    assert samples == len(job.train) + len(job.test)
    assert without.scores == {name: features.scores[name] for name in OF_HEAD}
    assert (features.accuracy, features.loss) == evaluate_dataset(model, job.test)
    assert features.scores["adapted refit"] > features.accuracy


def test_model_without_a_dense_head_has_no_scores_of_it(job):
    model = Convolutional()
    features, _, _ = shift_features(model, job, profile(model, job.train.batches(), layer="body"))
    assert set(features.scores) == ADAPTED
    assert shift_features(model, job)[0].scores == {}
    assert model_knn_accuracy(model, job.train) is None


@pytest.mark.parametrize(("bytes_per_class", "bytes_in_all"), [(2**11, 2**30), (2**11, 2**11)])
def test_products_that_would_not_fit_leave_out_what_they_are_for(
    adaptable, job, monkeypatch, bytes_per_class, bytes_in_all
):
    monkeypatch.setattr("resque.indices.shift_features._MAX_PRODUCT_BYTES", bytes_per_class)
    monkeypatch.setattr("resque.indices.baselines.refit._MAX_PRODUCT_BYTES", bytes_in_all)
    monkeypatch.setattr("resque.indices.head_inputs.KNN_SAMPLES", 100)
    monkeypatch.setattr("resque.indices.baselines.model_outputs.KNN_SAMPLES", 100)
    width = adaptable[-1].in_features
    features, samples = samples_of_passes(adaptable, job, original=profile(adaptable, job.train.batches()))
    fits = 8 * width**2 <= bytes_in_all
    assert "LogME" not in features.scores
    assert ("adapted refit" in features.scores) == fits
    assert "adapted k-NN" in features.scores
    assert samples == 2 * len(job.train) + 2 * len(job.test) + (len(job.train) if fits else 100)

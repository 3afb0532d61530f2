"""The features of an update come from the documented passes, and from nothing else."""

import pytest
import torch
from torch import nn

from resque.indices.compute_profile import profile
from resque.indices.shift_features import model_knn_accuracy, shift_features
from resque.training.job import RetrainingJob

WIDTH_CHECK = 2  # samples of a forward pass that finds the width of the head


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


def test_true_labels_take_five_passes_with_batch_norm(cnn, job):
    train, test = len(job.train), len(job.test)
    original = profile(cnn, job.train.batches())
    features, samples = samples_of_passes(cnn, job, original=original)
    assert samples == train + test + train + test + train
    assert {"loss", "LogME", "k-NN accuracy", "BN-adapted accuracy", "BN-adapted k-NN"} <= set(features.scores)


def test_pseudo_labels_take_two_passes_and_give_no_scores(cnn, job):
    original = profile(cnn, job.train.batches(), labels="pseudo")
    features, samples = samples_of_passes(cnn, job, original=original, labels="pseudo")
    assert samples == len(job.train) + len(job.test)
    assert (features.scores, features.labels) == ({}, "pseudo")


def test_k_nn_accuracy_of_a_model_without_batch_norm_is_computed_once(job):
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))
    features, samples = samples_of_passes(model, job, original=profile(model, job.train.batches()))
    assert samples == len(job.train) + len(job.test)
    assert features.scores["BN-adapted k-NN"] == features.scores["k-NN accuracy"]


def test_model_without_a_dense_head_has_no_baselines(job):
    class Convolutional(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(1, 10, 3)

        def forward(self, x):
            return self.body(x).mean((2, 3))

    model = Convolutional()
    features, _, _ = shift_features(model, job, profile(model, job.train.batches(), layer="body"))
    assert set(features.scores) == {"BN-adapted accuracy", "BN-adapted loss"}
    assert model_knn_accuracy(model, job.train) is None


def test_products_that_would_not_fit_leave_out_the_baselines(job):
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4096), nn.Linear(4096, 10))
    with torch.no_grad():
        features, _, _ = shift_features(model, job, profile(model, job.train.batches(), layer="1"))
    assert "LogME" not in features.scores
    assert "BN-adapted k-NN" in features.scores

"""Batch normalization adapts to other data, and nothing else of the model changes."""

import copy

import torch
from torch import nn

from resque.indices.compute_profile import profile
from resque.indices.head_inputs import model_knn_accuracy
from resque.indices.shift_features import shift_features
from resque.models.batchnorm import adapt_batchnorm
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe


def test_adapted_layers_have_the_statistics_of_the_data():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    batches = [(torch.randn(20, 3, 8, 8) * 3 + 5, None) for _ in range(4)]
    state = copy.deepcopy(net.state_dict())
    new = adapt_batchnorm(net.train(), batches)
    inputs = torch.cat([images for images, _ in batches])
    assert torch.allclose(new[0].running_mean, inputs.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(new[0].running_var, inputs.var((0, 2, 3)), rtol=0.02)
    hidden = new[1](new[0](inputs))
    assert torch.allclose(new[2].running_var, hidden.var((0, 2, 3)), rtol=0.05)
    assert (new.training, new[0].training, new[0].momentum) == (False, False, 0.1)
    assert net.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), new.parameters(), strict=True))


def test_no_batch_reads_a_value():
    """Tensors on the device ``meta`` have no values, so that to read one, as a wait for a GPU does, is an error."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).to("meta")
    new = adapt_batchnorm(net, [(torch.zeros(20, 3, 8, 8, device="meta"), None)] * 3)
    assert new[1].momentum == net[1].momentum == 0.1


def test_a_batch_of_one_sample_is_ignored():
    net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    new = adapt_batchnorm(net, [(torch.tensor([[0.0], [2.0]]), None), (torch.tensor([[100.0]]), None)])
    assert float(new[0].running_mean) == 1.0


def test_a_model_without_running_statistics_is_returned_itself():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))
    assert adapt_batchnorm(net, []) is net
    frozen = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    assert adapt_batchnorm(frozen, []) is frozen


def test_shift_features_include_the_adapted_model(cnn, small):
    train, test = small
    job = RetrainingJob(train, test, 0.9, Recipe())
    before = profile(cnn, train.batches(), preprocessing=train.preprocessing)
    features, _, _ = shift_features(cnn, job, before)
    assert {"adapted accuracy", "adapted loss", "adapted k-NN", "adapted refit", "LogME"} <= set(features.scores)
    assert (features.samples, features.classes) == (len(train), len(train.classes))
    assert features.parameters == sum(p.numel() for p in cnn.parameters())
    assert "LogME" not in shift_features(cnn, job)[0].scores
    assert shift_features(cnn, job, labels="pseudo")[0].scores.keys() == {"adapted accuracy", "adapted loss"}


class TokenClassifier(nn.Module):
    """A classifier whose head sees one row per token, of as many tokens as the batch needs."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 10)

    def forward(self, images):
        rows = self.embed(images).flatten(2).transpose(1, 2)
        return self.head(rows[:, : 8 + len(images) % 7]).mean(1)


def test_a_head_that_sees_tokens_has_no_knn_accuracy_and_no_baselines(small):
    job = RetrainingJob(*small, 0.9)
    torch.manual_seed(0)
    model = TokenClassifier()
    assert model_knn_accuracy(model, job.train) is None
    features, _, _ = shift_features(model, job, None)
    assert features.scores == {}

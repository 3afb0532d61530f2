"""The accuracy is estimated without labels, from the probabilities of the model or of its adapted self."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from resque.data.shifts import parse_shift
from resque.indices.accuracy_estimate import ESTIMATED, estimate_accuracy
from resque.indices.shift_features import shift_features
from resque.models.adaptation import adapt
from resque.training.job import RetrainingJob


def probabilities(model, data):
    with torch.no_grad():
        return torch.cat([model.eval()(inputs) for inputs, _ in data.batches()]).double().softmax(1).numpy()


@pytest.mark.parametrize("shift", ["brightness:9", "blur:5", "gaussian:3"])
@pytest.mark.parametrize("adapts", [False, True])
def test_it_is_what_the_probabilities_tell_less_the_usual_excess(cnn, small, shift, adapts):
    new = small[0].shifted(parse_shift(shift))
    adapted = adapt(cnn, new.batches()) if adapts else None
    own, judged = probabilities(cnn, new), probabilities(adapted or cnn, new)
    logit = special.logit(judged[np.arange(len(own)), own.argmax(1)].mean())
    agreement = special.logit(np.clip((own.argmax(1) == judged.argmax(1)).mean(), 0.01, 0.99))
    expected = (logit + agreement) / 2 - 0.4 if adapts else logit - 0.3
    found = estimate_accuracy(cnn, new, adapted)
    assert special.logit(found.accuracy) == pytest.approx(expected, abs=1e-5)
    assert found.method.startswith(ESTIMATED)


def test_labels_are_not_seen_and_the_model_is_left_as_it_was(cnn, small):
    before = copy.deepcopy(cnn.state_dict())
    found = {
        estimate_accuracy(cnn.train(), dataclasses.replace(small[1], labels=labels), adapt(cnn, small[0].batches()))
        for labels in (small[1].labels, small[1].labels.flip(0), torch.zeros_like(small[1].labels))
    }
    assert len(found) == 1
    assert cnn.training
    assert all(torch.equal(value, before[name]) for name, value in cnn.state_dict().items())


@pytest.mark.parametrize("adapts", [False, True])
def test_fewer_samples_are_less_sure_and_the_adapted_model_is_surer(cnn, small, adapts):
    adapted = adapt(cnn, small[0].batches()) if adapts else None
    errors = [estimate_accuracy(cnn, small[1].limited(n), adapted).error_logit for n in (200, 50, 10)]
    assert errors == sorted(errors)
    assert (0.7 if adapts else 1.1) < errors[0] < (0.9 if adapts else 1.3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_certain_and_indifferent_models_have_estimates_inside_their_bounds(small, scale):
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    found = estimate_accuracy(model, small[1])
    assert 0.01 <= found.accuracy <= 0.99
    assert 1.1 <= found.error_logit < 2.0


def test_features_without_test_labels_say_how_the_accuracy_is_known(cnn, small):
    job = RetrainingJob(*small, 0.9)
    known = shift_features(cnn, job)[0]
    assert (known.is_estimated, known.accuracy_error_logit) == (False, None)
    features = shift_features(cnn, dataclasses.replace(job, test=dataclasses.replace(small[1], labeled=False)))[0]
    assert features.is_estimated
    assert (features.loss, features.accuracy_method) == (None, ESTIMATED + "agreement with the adapted model")
    assert features.accuracy == estimate_accuracy(cnn, small[1], adapt(cnn, small[0].batches())).accuracy
    again = features.measured(0.4, 1.2)
    assert (again.accuracy, again.loss, again.is_estimated, again.accuracy_error_logit) == (0.4, 1.2, False, None)
    assert known.measured(0.1, 0.2) == known

"""Accuracy and loss of a classifier, and whether data fit it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from resque.errors import DataError, ModelError
from resque.training.evaluation import check_data_fits_model, evaluate


def test_evaluate_returns_accuracy_and_mean_loss(cnn, small):
    cnn.eval()
    logits = torch.cat([cnn(x) for x, _ in small[1].batches()]).detach()
    accuracy, loss = evaluate(cnn.train(), small[1].batches(7))
    assert accuracy == pytest.approx(float((logits.argmax(1) == small[1].labels).double().mean()), abs=1e-12)
    assert loss == pytest.approx(float(F.cross_entropy(logits, small[1].labels)), rel=1e-5)
    assert cnn.training


def test_data_that_does_not_fit_the_model_is_refused(cnn, small):
    train, _ = small
    with pytest.raises(DataError, match="8 samples for 10 classes"):
        check_data_fits_model(cnn, train.take(torch.arange(8)))
    with pytest.raises(DataError, match="labels run from 0 to 19, the model has 10 outputs; expected labels 0 to 9"):
        check_data_fits_model(cnn, dataclasses.replace(train, labels=train.labels + 10 * (train.labels == 9)))
    with pytest.raises(ModelError, match="does not take images of shape"):
        check_data_fits_model(cnn, dataclasses.replace(train, inputs=train.images.expand(-1, 3, -1, -1)))

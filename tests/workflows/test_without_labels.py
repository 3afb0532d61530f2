"""The new data have no labels: what a forecast knows, what it refuses, and the update once the labels have come."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import resque
from resque.data.shifts import parse_shift
from resque.errors import DataError, SettingError
from resque.indices.accuracy_estimate import ESTIMATED
from resque.ledger.validation import check_record

pytestmark = pytest.mark.usefixtures("short_history", "folder")
METHODS = {"images": "agreement with the adapted model", "vectors": "mean confidence"}
RECIPE = "train-adam,max_epochs=3,evaluate_every=10"


def arrays():
    """The digits as the model of the fixture knows them, under a shift: training and test data."""
    shift, digits = parse_shift("brightness:7"), resque.load_data("digits")
    parts = [digits.part(name).take(torch.arange(n)).shifted(shift) for name, n in (("train", 300), ("test", 120))]
    return [((each.images * 255).round().byte().numpy()[:, 0], each.labels.numpy()) for each in parts]


def perceptron():
    """Vectors, and a model that has nothing to adapt."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(260, 9)
    y = (x[:, :3] + 0.3 * torch.randn(260, 3)).argmax(1)
    return model, [(x[:180], y[:180]), (x[180:], y[180:])]


def hidden(pair, labeled):
    return pair if labeled else (pair[0], None)


@pytest.mark.parametrize(("train_labeled", "test_labeled"), [*itertools.product([True, False], repeat=2)])
@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_each_combination_of_labels_gives_a_forecast_that_says_what_it_lacks(
    model, meter, kind, train_labeled, test_labeled
):
    images = kind == "images"
    model, (train, test) = (model, arrays()) if images else perceptron()
    options = {"recipe": RECIPE, "meter": meter, "labels": "pseudo", "original": "digits" if images else None}
    result = resque.forecast(model, hidden(train, train_labeled), hidden(test, test_labeled), 0.97, **options)
    missing, features = result.missing_labels, result.features
    assert missing == resque.MissingLabels(0 if train_labeled else len(train[0]), 0 if test_labeled else len(test[0]))
    assert features.classes == (len(set(np.asarray(train[1]).tolist())) if train_labeled else None)
    assert (features.labels, features.index_rad is not None) == ("pseudo" * images, images)
    assert (features.is_estimated, features.loss is None) == (not test_labeled, not test_labeled)
    assert set(features.scores) == ({"adapted accuracy", "adapted loss"} if images and test_labeled else set())
    if test_labeled:
        inputs = torch.as_tensor(test[0])[:, None] / 255 if images else test[0]
        right = model(inputs).argmax(1) == torch.as_tensor(test[1])
        assert features.accuracy == pytest.approx(float(right.double().mean()))
    else:
        assert features.accuracy_method == ESTIMATED + METHODS[kind]
    stored = resque.Ledger("resque.db").forecast(result.id)
    assert (stored.features, stored.missing_labels) == (features, missing)
    assert stored.step_cost.wall_s > 0


def test_without_test_labels_the_interval_is_wider(model, meter):
    train, test = arrays()
    known, estimated = (
        resque.forecast(model, hidden(train, False), data, 0.97, recipe=RECIPE, meter=meter, labels="pseudo")
        for data in (test, hidden(test, False))
    )
    spans = [each.estimates["steps"].interval for each in (known, estimated)]
    assert spans[1].low <= spans[0].low
    assert spans[1].high >= spans[0].high


@pytest.mark.parametrize(("train_labeled", "test_labeled"), [(False, True), (True, False), (False, False)])
def test_what_needs_labels_is_refused_before_any_pass(model, meter, monkeypatch, train_labeled, test_labeled):
    monkeypatch.setattr("resque.workflows.forecast.shift_features", lambda *_: pytest.fail("a pass"))
    (train, test), options = arrays(), {"recipe": RECIPE, "meter": meter}
    data = hidden(train, train_labeled), hidden(test, test_labeled)
    with pytest.raises(DataError, match="--labels pseudo"):
        resque.forecast(model, *data, 0.97, **options)
    for pilot in (5, "10%"):
        with pytest.raises(SettingError, match="no labels: leave the pilot out"):
            resque.forecast(model, *data, 0.97, labels="pseudo", pilot=pilot, **options)
    with pytest.raises(SettingError, match="needs its labels"):
        resque.forecast(model, *data, 0.97, labels="pseudo", new_task=True, **options)
    for labels in ("true", "pseudo"):
        with pytest.raises(DataError, match="no labels"):
            resque.update(model, *data, 0.97, labels=labels, **options)
    assert resque.Ledger("resque.db").forecasts() == []


@pytest.mark.parametrize("parts", [slice(None), slice(0, 60)])
def test_the_update_with_labels_settles_the_forecast_and_measures_its_start(model, meter, parts):
    """The labels come under another name; for a part of the test data they do, too."""
    train, test = arrays()
    forecast = resque.forecast(
        model, hidden(train, False), hidden(test, False), 0.97, recipe=RECIPE, meter=meter, labels="pseudo"
    )
    update = resque.update(model, train, (test[0][parts], test[1][parts]), 0.97, forecast=forecast, meter=meter)
    assert update.forecast_id == forecast.id
    assert update.train_data != forecast.train_data
    features = update.features
    assert (features.accuracy, features.loss, features.is_estimated) == (
        update.curve.accuracy[0], update.curve.loss[0], False,
    )  # fmt: skip
    assert [told.id for told, _ in resque.Ledger("resque.db").settled()] == [forecast.id]


def test_other_data_do_not_settle_it(model, meter):
    train, test = arrays()
    forecast = resque.forecast(
        model, hidden(train, False), hidden(test, False), 0.97, recipe=RECIPE, meter=meter, labels="pseudo"
    )
    fewer, more = (train[0][:200], train[1][:200]), train
    for data in ((fewer, test), (train, more)):
        with pytest.raises(SettingError, match="make a new forecast"):
            resque.update(model, *data, 0.97, forecast=forecast, meter=meter)
    labeled = resque.forecast(model, train, test, 0.97, recipe=RECIPE, meter=meter)
    with pytest.raises(SettingError, match="training data"):
        resque.update(model, (train[0], train[1][::-1].copy()), test, 0.97, forecast=labeled, meter=meter)


def test_an_update_record_with_an_estimate_is_refused(model, meter):
    train, test = arrays()
    update = resque.update(model, train, test, 0.97, recipe=RECIPE, meter=meter)
    features = dataclasses.replace(update.features, accuracy_method=ESTIMATED + "guess", accuracy_error_logit=0.4)
    check_record(update)
    with pytest.raises(ValueError, match="accuracy_method"):
        check_record(dataclasses.replace(update, features=features))


def test_own_loop_measures_its_start_or_leaves_it_unknown(model, meter):
    train, test = arrays()
    for first in (0, 1):
        forecast = resque.forecast(
            model, hidden(train, False), hidden(test, False), 0.97, recipe=RECIPE, meter=meter, labels="pseudo"
        )
        names = {"train_data": "labeled"} if first else {}
        with resque.record(resque.Ledger("resque.db"), forecast=forecast, meter=meter, **names) as run:
            run.evaluated(step=first, accuracy=0.5)
            run.evaluated(step=first + 9, accuracy=0.6)
        assert run.update.forecast_id == forecast.id
        assert run.update.features.accuracy == (None if first else 0.5)
        assert not run.update.features.is_estimated
        assert run.update.train_data == ("labeled" if first else forecast.train_data)

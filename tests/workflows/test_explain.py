"""A shift explained class by class, through the command line and from Python."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import resque
from resque.errors import DataError

SHIFTED = "digits@test+exchange:{}"


@pytest.mark.parametrize("level", [0, 3, 10])
def test_exchanged_names_are_found_and_put_back(trained, level):
    model = f"{trained[0]}:build", trained[1]
    options = resque.ModelOptions(weights=model[1])
    clean = resque.explain(model[0], "digits", "digits@test", options=options)
    data = f"digits@test+exchange:{level}" if level else "digits@test"
    report = resque.explain(model[0], "digits", data, options=options)
    moved = np.flatnonzero(
        [(resque.load_data(data).labels[resque.load_data("digits@test").labels == k] != k).all() for k in range(10)]
    )
    assert sorted(label for cycle in report.exchanged for label in cycle) == moved.tolist()
    assert report.accuracy_renamed == pytest.approx(clean.accuracy)
    assert any("exchanged names" in finding for finding in report.findings) is bool(level)


def test_command_prints_the_report_and_draws_the_confusions(cli, trained, folder):
    line = f"explain --model {trained[0]}:build --weights {trained[1]} --original digits --shifted digits@test+fog:9"
    code, shown, err = cli(f"{line} --picture confusions.svg")
    assert code == 0, err
    drawn = (folder / "confusions.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "predicted class" in drawn
    report = json.loads(cli(f"{line} --json")[1])
    assert f"Accuracy {report['accuracy']:.3f}" in shown
    assert sum(map(sum, report["confusion"])) == sum(each["samples"] for each in report["classes"]) == 539
    worst = report["classes"][0]
    assert f"are of class {worst['name']}, most often taken for {worst['taken_for']}" in " ".join(shown.split())
    code, _, err = cli(f"{line} --picture confusions.txt")
    assert (code, err.count("\n")) == (1, 1)
    assert ".svg, .png, .pdf" in err


def test_where_re_estimating_hurts_the_advice_is_of_the_model_as_it_is(cli, folder):
    """Of few classes, the statistics are not those of all."""
    test = resque.load_data("digits@16px@test")
    kept = np.flatnonzero(test.labels.numpy() < 3)
    np.savez(folder / "few.npz", x=(255 * test.images[kept, 0]).byte().numpy(), y=test.labels[kept].numpy())
    model, train = "--model resque.networks:small_cnn", "digits@16px@train@400"
    line = f"retrain {model} --train {train} --test digits@16px@test@200 --target-accuracy 0.8 --recipe train-adam"
    code, _, err = cli(f"{line} --out new")
    assert code == 0, err
    line = f"explain {model} --weights new/model.safetensors --original {train} --shifted npz:few.npz"
    code, shown, err = cli(line)
    assert code == 0, err
    report = json.loads(cli(f"{line} --json")[1])
    assert report["accuracy_adapted"] < report["accuracy"]
    assert "Re-estimating normalization does not help: it takes accuracy from" in " ".join(shown.split())
    assert [each["errors_left"] for each in report["classes"]] == [each["errors"] for each in report["classes"]]


def test_model_without_normalization_has_nothing_free():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(90, 9)
    y = x[:, :3].argmax(1)
    report = resque.explain(model, (x, y), (x + 0.5, y))
    assert (report.confusion_adapted, report.accuracy_adapted) == (None, None)
    assert not any("normalization" in finding for finding in report.findings)
    with pytest.raises(DataError, match="has no labels"):
        resque.explain(model, (x, y), (x + 0.5, None))

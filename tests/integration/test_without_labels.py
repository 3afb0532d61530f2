"""Data without labels through the command line: the forecast and its price, then the labeled update that settles it."""

import json

import numpy as np
import pytest

import resque
from resque.data.shifts import parse_shift

MODEL = "--model resque.networks:small_cnn"
RECIPE = "--recipe retrain-adam,max_epochs=3,evaluate_every=5"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def ready(cli, folder, monkeypatch):
    """A trained model, a project file, and new data with labels and without."""
    some = tuple(resque.ledger.bundled.bundled_updates()[::6])
    for module in ("workflows.forecast", "forecasting.landmarking"):
        monkeypatch.setattr(f"resque.{module}.bundled_updates", lambda: some)
    for part, n in (("train", 400), ("test", 150)):
        data = resque.load_data(f"digits@16px@{part}").limited(n)
        np.savez(f"clean-{part}.npz", x=_pixels(data), y=data.labels.numpy())
        new = data.shifted(parse_shift("brightness:7"))
        np.savez(f"new-{part}.npz", x=_pixels(new))
        np.savez(f"labeled-{part}.npz", x=_pixels(new), y=data.labels.numpy())
        np.savez(f"few-{part}.npz", x=_pixels(new)[:40], y=data.labels.numpy()[:40])
    data = "--train npz:clean-train.npz --test npz:clean-test.npz"
    assert cli(f"retrain {MODEL} {data} --target-accuracy 0.8 --recipe train-adam --out first")[0] == 0
    found = "--weights first/model.safetensors --original first/profile.safetensors --target-accuracy 0.9"
    code, out, _ = cli(f"init {MODEL} {found} --test npz:new-test.npz --json")
    assert (code, "no labels" in json.loads(out)["test data"]) == (0, True)


def _pixels(data):
    return (data.images[:, 0] * 255).round().byte().numpy()


@pytest.mark.usefixtures("ready")
def test_from_a_forecast_without_labels_to_the_update_that_settles_it(cli):
    line = f"forecast --shifted npz:new-train.npz {RECIPE} --no-bundled-history"
    assert "--labels pseudo" in cli(line)[2]
    line = f"forecast --shifted npz:new-train.npz {RECIPE} --labels pseudo"
    code, out, _ = cli(f"{line} --price-per-label 0.1 --price-per-hour 2 --currency USD --json")
    forecast = json.loads(out)
    assert code == 4
    assert forecast["labels"] == {"missing": 550, "price": pytest.approx(55.0), "currency": "USD"}
    assert forecast["missing_labels"] == {"train": 400, "test": 150}
    features = forecast["features"]
    assert (features["labels"], features["loss"]) == ("pseudo", None)
    assert features["accuracy_method"] == "estimated without labels: agreement with the adapted model"
    assert 0.7 < features["accuracy_error_logit"] < 0.8
    assert forecast["price"]["value"] < 1.0
    alone = json.loads(cli(f"{line} --price-per-label 0.1 --json")[1])
    assert (alone["price"]["value"], alone["price"]["currency"]) == (alone["labels"]["price"], "EUR")
    assert json.loads(cli(f"{line} --json")[1])["price"] is None
    shown = cli(f"{line} --price-per-label 0.1")[1]
    for words in ("price of labels, EUR", " 55 ", "400 of training data, 150 of test data", "estimated without labels"):
        assert words in " ".join(shown.split())
    code, _, err = cli(f"{line} --pilot 5")
    assert (code, "no labels: leave the pilot out" in err) == (1, True)
    data = "--train npz:labeled-train.npz --test npz:labeled-test.npz"
    code, out, _ = cli(f"retrain {data} --forecast {forecast['id']} --out second --json")
    update = json.loads(out)
    assert (code, update["forecast_id"]) == (0, forecast["id"])
    assert update["features"]["accuracy_method"] == "measured"
    assert update["features"]["accuracy"] == update["curve"]["accuracy"][0]
    assert cli("ledger settle")[0] == 0
    assert cli(f"ledger show {forecast['id']}")[0] == 0
    assert cli("report --out report.html")[0] == 0


@pytest.mark.usefixtures("ready")
def test_labels_that_are_priced_count_at_the_gate_and_a_few_of_the_test_data_tell_the_accuracy(cli, folder):
    line = f"forecast --shifted npz:new-train.npz {RECIPE} --labels pseudo --max-price 5 --json"
    held = [
        json.loads(cli(f"{line} {prices}")[1])["gate"]["held"]
        for prices in ("--price-per-hour 2", "--price-per-hour 2 --price-per-label 0.1")
    ]
    assert 54.9 < held[1][0][1] - held[0][0][1] < 55.1
    few = json.loads(cli(f"{line} --test npz:few-test.npz --price-per-label 0.1")[1])
    assert few["features"]["accuracy_method"] == "measured"
    assert few["labels"]["missing"] == 400
    both = f"forecast --shifted npz:labeled-train.npz --test npz:labeled-test.npz {RECIPE} --price-per-label 0.1"
    assert json.loads(cli(f"{both} --json")[1])["labels"] == {"missing": 0, "price": 0.0, "currency": "EUR"}
    assert "labels missing: none" in cli(both)[1]
    assert cli(f"{both} --price-per-label -1")[0] == 2
    assert cli(f"{both} --price-per-label nan")[0] in (1, 2)

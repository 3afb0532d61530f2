"""A precision in dist, forecast and compare: what is printed, what is kept, and what is refused."""

import dataclasses
import json

import pytest

import resque
from resque.errors import SettingError
from resque.forecasting.history import ForecastQuery, history_rows
from resque.forecasting.predictors import PREDICTORS

SPEC = "resque.networks:small_cnn"
ORIGINAL, TRAIN, TEST = (f"digits@16px@{part}" for part in ("train", "train+rotation:9", "test+rotation:9"))
ASK = f"--model {SPEC} --test {TEST} --target-accuracy 0.8 --precision 0.03"
DIST = f"dist --model {SPEC} --original {ORIGINAL} --shifted {TRAIN}"


def test_dist_says_what_was_read_and_what_a_full_pass_would_cost(cli):
    code, out, _ = cli(f"{DIST} --precision 0.05 --json")
    index = json.loads(out)
    assert code == 0
    assert {"value", "unit", "per_class", "interval", "floor", "n_original", "n_shifted", "debiased"} <= set(index)
    sampling = index["sampling"]
    assert sampling["n_original_read"] == sampling["n_shifted_read"] < index["n_shifted"] == 1258
    assert (sampling["n_full"], sampling["precision"]) == (2516, "0.05")
    assert sampling["pass_s"] > 0.0 < sampling["full_pass_s"]
    assert json.loads(cli(f"{DIST} --json")[1])["sampling"] is None


def test_dist_prints_what_was_read(cli):
    out = " ".join(cli(f"{DIST} --precision 0.05,0.05rad")[1].split())
    assert "sampled to ±0.05,0.05rad: read" in out
    assert "a full pass would take about" in out


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{DIST} --precision 0.03 --debias", "leave --debias or --precision out"),
        (f"{DIST.replace(TRAIN, 'parquet:new.parquet')} --precision 0.03", "leave --precision out"),
        (f"{DIST.replace(ORIGINAL, 'hf:some/name')} --precision 0.03", "leave --precision out"),
        (f"forecast {ASK} --shifted {TRAIN}", "--original"),
        (f"forecast {ASK} --task {TRAIN}", "--original"),
        (f"compare {ASK} --task {TRAIN}", "--original"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused_in_one_line(cli, line, why):
    code, out, err = cli(line)
    assert (code, out) == (1, "")
    assert why in " ".join(err.split())


def forecast(meter, original, **options):
    return resque.forecast(
        resque.load_model(SPEC), TRAIN, TEST, 0.8, original=original, recipe="train-adam,max_epochs=3", meter=meter,
        **options,
    )  # fmt: skip


@pytest.fixture
def profile():
    return resque.profile(resque.load_model(SPEC), resque.load_data(ORIGINAL), preprocessing="")


@pytest.mark.parametrize("by_profile", [True, False])
def test_a_sampled_index_is_a_feature_of_its_own(folder, meter, short_history, profile, by_profile):
    original = profile if by_profile else ORIGINAL
    plain, sampled = forecast(meter, original), forecast(meter, original, precision="0.05")
    assert (plain.features.index_rad is None, sampled.features.index_rad) == (False, None)
    assert ("sampled index" in plain.features.scores, "sampled index" in sampled.features.scores) == (False, True)
    assert sampled.features.scores["sampled index"] == pytest.approx(plain.features.index_rad, rel=0.1)
    assert any("index sampled to ±0.05: read" in note for note in sampled.notes)
    stored = resque.Ledger("resque.db").forecast(sampled.id)
    assert dict(stored.features.scores) == dict(sampled.features.scores)
    known = [name for name, value in PREDICTORS.items() if value(sampled.features, 0.8) is not None]
    assert "sampled index" in known
    assert "index" not in known


def test_a_history_of_plain_indices_is_not_asked_about_a_sampled_one(folder, meter, short_history, profile):
    model, train, test = resque.load_model(SPEC), resque.load_data(TRAIN), resque.load_data(TEST)
    recipe = "train-adam,max_epochs=1"
    of_plain = resque.update(model, train, test, 0.9, original=profile, recipe=recipe, meter=meter, out="plain")
    made = forecast(meter, profile, precision="0.05")
    query = ForecastQuery.of_update(of_plain, 0.8, 100)
    assert history_rows([of_plain], query, ["index"])
    asked = dataclasses.replace(query, features=made.features)
    assert asked.values(["index"]) is None
    assert not history_rows([of_plain], asked, ["sampled index"])
    assert "sampled index" not in made.alternatives


def test_an_update_keeps_the_sampled_index_of_its_forecast(folder, meter, short_history, profile):
    model, train, test = resque.load_model(SPEC), resque.load_data(TRAIN), resque.load_data(TEST)
    made = resque.forecast(
        model, train, test, 0.8, original=profile, recipe="train-adam,max_epochs=1", meter=meter, precision="0.05"
    )
    update = resque.update(model, train, test, 0.8, forecast=made, meter=meter, out="updated")
    assert update.features.index_rad is None
    assert update.features.scores["sampled index"] == made.features.scores["sampled index"]


def test_compare_samples_and_says_so(folder, meter, short_history, profile):
    result = resque.compare(
        resque.load_model(SPEC), TRAIN, TEST, 0.3, original=profile, recipe="train-adam,max_epochs=1", meter=meter,
        max_minutes=0.0, precision="0.05",
    )  # fmt: skip
    assert any("sampled to ±0.05: read" in note for note in result.notes)
    for made in resque.Ledger("resque.db").forecasts():
        assert made.features.index_rad is None
        assert "sampled index" in made.features.scores


def test_a_malformed_precision_is_refused_before_anything_is_read():
    with pytest.raises(SettingError, match="expected a share"):
        resque.sampled_dist(SPEC, "npz:none", "npz:none", "much")

"""``resque ledger life``: the life of each model line, with a budget from the command line or the project file."""

import dataclasses
import json

import pytest

from doubles import synthetic_forecast, synthetic_update
from resque.energy.reading import EnergyReading
from resque.ledger.store import Ledger


@pytest.fixture
def filled(folder):
    update = synthetic_update("a", index=0.1, steps=10)
    forecast = dataclasses.replace(synthetic_forecast(update), id="f")
    blind = dataclasses.replace(update, id="b", energy=EnergyReading(1.0, None, {}, {}, "clock"))
    blind = dataclasses.replace(blind, cost=dataclasses.replace(blind.cost, energy_kwh=None))
    ledger = Ledger(folder / "resque.db")
    for entry in (forecast, dataclasses.replace(update, forecast_id="f"), blind):
        ledger.add(entry)
    return ledger


@pytest.mark.parametrize("source", ["option", "project"])
def test_the_life_of_a_model_with_its_budget_and_what_is_unknown(cli, filled, folder, source):
    option = " --yearly-kwh 2" if source == "option" else ""
    if not option:
        (folder / "resque.toml").write_text("[plan]\nyearly_kwh = 2.0\n[cost]\nprice_per_hour = 3.6\n")
    code, out, err = cli(f"ledger life{option} --json")
    assert code == 0, err
    (life,) = json.loads(out)["lives"]
    assert life["total"]["energy_kwh"] == {"value": pytest.approx(1.1e-5), "known": 2, "of": 3}
    assert life["left_kwh"] == pytest.approx(2.0 - life["spent_kwh"]["value"])
    assert [life["parts"][name]["n"] for name in ("original training", "updates", "questions")] == [0, 2, 1]
    assert list(life["total"]["prices"]) == ([] if option else ["EUR"])
    code, out, _ = cli(f"ledger life{option}")
    assert code == 0
    assert "(2 of 3 known)" in out
    assert "Of the year's budget of 2 kWh, at most 2 kWh is left." in " ".join(out.split())


def test_the_first_training_of_a_builder_is_the_original_training(cli, folder):
    model, rest = "--model resque.networks:small_cnn", "--target-accuracy 0.3 --recipe train-adam,max_epochs=2"
    code, _, err = cli(f"retrain {model} --train digits@16px@train@200 --test digits@16px@test@100 {rest} --out first")
    assert code == 0, err
    data = "--train digits@16px@train@200+inversion:9 --test digits@16px@test@100+inversion:9"
    code, _, err = cli(f"retrain {model} --weights first/model.safetensors {data} {rest}")
    assert code == 0, err
    (life,) = json.loads(cli("ledger life --json")[1])["lives"]
    assert {name: part["n"] for name, part in life["parts"].items() if part["n"]} == {
        "original training": 1,
        "updates": 1,
    }
    assert "not in the ledger" not in cli("ledger life")[1]

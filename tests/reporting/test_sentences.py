"""Sentences and cells: what they say, and what they say of unknown values."""

import dataclasses

import pytest

from doubles import settled_pairs, synthetic_forecast, synthetic_update
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.ledger.records import Features
from resque.reporting import sentences
from resque.reporting.displays import revisions_display, settled_display


@pytest.fixture
def update():
    return synthetic_update("u", index=0.5, steps=100)


def unknown(update):
    """The same update with everything unknown that may be."""
    reading = EnergyReading(1.0, None, {}, {}, "no meter", "no counter")
    return dataclasses.replace(
        update,
        features=Features(None, None, None),
        energy=reading,
        original_accuracy_before=None,
        cost=dataclasses.replace(update.cost, energy_kwh=None),
    )


def test_known_values_are_formatted_and_unknown_ones_are_dashes(update):
    bare = unknown(update)
    assert sentences.format_index(update) == "0.500 rad"
    assert sentences.format_index(bare) == "–"
    assert sentences.format_accuracies(update) == "0.500 → 0.900"
    assert sentences.format_accuracies(bare, 2, "→") == "–→0.90"
    assert sentences.format_forgetting(update) == "0.990 → 0.900"
    assert sentences.format_forgetting(bare) == "–"
    assert sentences.energy_sentence(update.energy) == "0.1 Wh (cpu measured; replay)"
    assert sentences.energy_sentence(bare.energy) == "– (no counter; no meter)"
    assert sentences.format_methods(bare.energy) == "not measured"


def test_errors_are_signed_and_coverage_is_marked(update):
    assert sentences.format_error(synthetic_forecast(update, 1.2), update, "steps") == "+20%"
    assert sentences.format_error(synthetic_forecast(update, 0.75), update, "steps") == "-25%"
    late = dataclasses.replace(update, cost=dataclasses.replace(update.cost, steps=1000))
    forecast = synthetic_forecast(update)
    assert sentences.covered_mark(forecast, update, "steps") == "yes"
    assert sentences.covered_mark(forecast, late, "steps") == "no"
    assert sentences.covered_mark(forecast, update, "carbon_kg") == "–"


def test_the_grid_sentence_names_region_source_and_pue():
    assert sentences.grid_sentence(Grid("FRA", 56.0, "a table", 1.2)) == "grid FRA at 56 g CO2e/kWh (a table) × PUE 1.2"
    assert "no carbon is reported" in sentences.grid_sentence(None)


def test_in_run_forecasts_are_shown_at_doubling_steps_and_at_the_end():
    (_, update), *_ = settled_pairs(1)
    revision = update.revisions[0]
    steps = 10, 15, 20, 30, 45, 50
    many = dataclasses.replace(update, revisions=tuple(dataclasses.replace(revision, step=step) for step in steps))
    rows = revisions_display(many).rows
    assert [row[0] for row in rows] == ["10", "20", "45", "50"]
    assert rows[0] == ("10", "0.700", "50", "over 0", "80%")


def test_the_verdict_is_one_sentence_of_at_most_30_words():
    summary = summarize_settlements(settled_pairs())
    verdict = sentences.verdict_sentence(summary)
    assert verdict == (
        "The median error of 4 forecasts is a factor of 1.2 in training steps (3 reached the target); "
        "4 of 4 intervals covered the measured steps."
    )
    assert sentences.settlement_sentence(summary).startswith(verdict)
    assert sentences.predictor_sentence(summary) == "The median error of the RESQUE index alone is a factor of 2.0."


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([(0.98, "max"), (0.95, ""), (0.5, "max")], "1 of 2 forecasts that gave 90% or more missed the target."),
        ([(0.9, "tolerance 0.01")], "1 of 1 forecast that gave 90% or more missed the target."),
        ([(0.98, ""), (0.89, "max")], ""),
        ([(0.98, "budget: kWh"), (0.98, "the user")], ""),
    ],
)
def test_the_verdict_says_how_many_likely_forecasts_missed(outcomes, said):
    """Outcomes are the chance that was given, and what stopped a run that missed."""
    pairs = [
        (dataclasses.replace(forecast, probability_reached=chance),
         dataclasses.replace(update, reached=not stopped, stopped_by=stopped or "target"))
        for (forecast, update), (chance, stopped) in zip(settled_pairs(len(outcomes)), outcomes, strict=True)
    ]  # fmt: skip
    summary = summarize_settlements(pairs)
    assert sentences.missed_sentence(summary) == said
    assert said in sentences.settlement_sentence(summary)


def test_a_better_predictor_than_the_index_is_named():
    pairs = [
        (dataclasses.replace(forecast, alternatives={**forecast.alternatives, "LogME": update.cost.steps}), update)
        for forecast, update in settled_pairs()
    ]
    sentence = sentences.predictor_sentence(summarize_settlements(pairs))
    assert sentence == "The median error of the RESQUE index alone is a factor of 2.0; of LogME, 1.0."


def test_without_outcomes_there_is_no_verdict():
    summary = summarize_settlements([])
    assert sentences.settlement_sentence(summary).startswith("No forecast has been settled")
    assert sentences.predictor_sentence(summary) == ""


def test_overhead_is_summed_up():
    summary = summarize_settlements(settled_pairs())
    assert sentences.overhead_sentence(summary) == (
        "These forecasts took 4 s and 0.004 Wh; training the updates, evaluation left out, took 5 s and 0.5 Wh."
    )
    cheap = [(forecast, dataclasses.replace(update, cost=dataclasses.replace(update.cost, wall_s=0.1)))
             for forecast, update in settled_pairs()]  # fmt: skip
    assert sentences.overhead_sentence(summarize_settlements(cheap)).endswith("less than the forecasts.")
    assert sentences.overhead_sentence(summarize_settlements([])) == ""


@pytest.mark.parametrize("before", [0.1, 0.9])
@pytest.mark.parametrize(("replay", "mixed"), [(0.0, ""), (0.6210918114143921, " with replay=0.62")])
def test_a_training_from_scratch_has_forgotten_nothing(update, before, replay, mixed):
    """Before it are random weights, over which nothing rose or fell."""
    known = {"original_accuracy_before": before, "original_accuracy_after": 0.85}
    update = dataclasses.replace(update, **known, recipe={**update.recipe, "replay": replay}, from_scratch=True)
    assert update.forgetting == f"accuracy on the original data is 0.850, from scratch{mixed}"


@pytest.mark.parametrize(
    ("before", "after", "replay", "expected"),
    [
        (0.95, 0.93, 0.0, None),
        (0.95, 0.9299, 0.0, "fell by 2.0 points: replay=0.2 in the recipe mixes original data in"),
        (0.9, 0.99, 0.0, None),
        (None, 0.5, 0.0, None),
        (0.9, None, 0.2, None),
        (0.95, 0.945, 0.2, "fell by 0.5 points with replay=0.2"),
        (0.9, 0.95, 0.2, "rose by 5.0 points with replay=0.2"),
        (0.9, 0.8, 0.2, "fell by 10.0 points with replay=0.2: a larger share mixes more of them in"),
    ],
)
def test_forgetting_is_said_with_its_remedy(update, before, after, replay, expected):
    known = {"original_accuracy_before": before, "original_accuracy_after": after}
    update = dataclasses.replace(update, **known, recipe={**update.recipe, "replay": replay})
    assert update.forgetting == (expected and f"accuracy on the original data {expected}")
    for text in (str(update), settled_display(synthetic_forecast(update), update).to_text(400)):
        assert (str(expected) in " ".join(text.split())) == (expected is not None)


def test_settled_forecasts_whose_steps_were_known_have_no_error():
    pairs = [(dataclasses.replace(forecast, alternatives={}), update) for forecast, update in settled_pairs()]
    sentence = sentences.verdict_sentence(summarize_settlements(pairs))
    assert sentence == "No forecast has been settled yet whose steps had to be predicted."

"""Histories judged by what they say of updates that were left out."""

import dataclasses
import math

import numpy as np
import pytest

from doubles import synthetic_update
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.evaluation.cross_validation import (
    BEFORE,
    BY,
    FORECAST,
    RENEWED,
    cross_validate,
    seed_to_seed_error,
)
from resque.forecasting.evaluation.folds import BARE, CONSTANT, LONGEST, OWN, TrainingFolds, query_for_update
from resque.ledger.records import LearningCurve
from resque.reporting.tables import show_validation


def history(kinds=4, levels=4, seeds=2, spread=0.2, useful=True):
    random = np.random.default_rng(3)
    found = []
    for kind in range(kinds):
        for level in range(levels):
            index = 0.2 * 1.5**level * math.exp(0.1 * random.normal())
            for seed in range(seeds):
                steps = 400 * index**2 if useful else 60
                update = synthetic_update(
                    f"{kind}-{level}-{seed}",
                    index=index,
                    steps=max(2, round(steps * math.exp(spread * random.normal()))),
                    shift_type=f"k{kind}",
                )
                found.append(dataclasses.replace(update, train_data=f"d+k{kind}:{level}", seed=seed, parent=f"p{seed}"))
    return found


@pytest.mark.parametrize("by", list(BY)[:3])
def test_every_update_is_asked_about_once(by):
    if by == "seed":
        with pytest.raises(TooFewUpdatesError, match="2 different seeds"):
            cross_validate(history(), 0.9, by)
        found = cross_validate(history(seeds=3), 0.9, by)
    else:
        found = cross_validate(history(), 0.9, by)
    judged = {each.predictor: each for each in found.reports}
    assert {FORECAST, "index", BARE, CONSTANT, LONGEST} <= set(judged)
    assert {each.n for each in judged.values()} == {found.updates}
    if by != "seed":  # whoever knows the condition needs no index
        assert judged["index"].median_error < 0.5 * judged[BARE].median_error
        assert found.index_adds
    assert judged["index"].spearman_value > 0.8
    assert judged["index"].interval_score < judged[BARE].interval_score
    assert judged[LONGEST].coverage is None


def test_a_mixture_tells_nothing_of_its_kinds_that_are_left_out():
    """Whether it was slow or fast, what is said of them by the other kinds is the same."""
    plain = [dataclasses.replace(u, shift_type="gaussian") if u.shift_type == "k0" else u for u in history()]

    def said_of_gaussian(pace, patch):
        mixed = [
            dataclasses.replace(
                u,
                id=f"m{u.id}",
                shift_type="gaussian/none",
                curve=dataclasses.replace(u.curve, steps=tuple(pace * s for s in u.curve.steps)),
            )
            for u in history(kinds=1)
        ]
        found = []
        patch.setattr(
            "resque.forecasting.evaluation.cross_validation.evaluate_predictor",
            lambda name, words, level: found.append((name, words)),
        )
        cross_validate(plain + mixed, 0.9)
        (words,) = (words for name, words in found if name == FORECAST)
        return [(word.forecast, word.low, word.high) for word in words if word.shift_type == "gaussian"]

    with pytest.MonkeyPatch.context() as patch:
        slow, fast = (said_of_gaussian(pace, patch) for pace in (30, 1))
    assert slow == fast
    assert len(slow) == 8


def test_renewed_tasks_are_judged_by_the_chance_that_a_run_would_tell(monkeypatch):
    """The forecast's, given that nothing was reached by then: it cannot have risen."""
    tasks = []
    for place, update in enumerate(history()):
        scores = {"warm-up accuracy": 0.5 + 0.01 * place}
        features = dataclasses.replace(update.features, task_index=0.2 + 0.02 * place, index_rad=None, scores=scores)
        whole = 10 * update.cost.steps
        steps = tuple(range(0, whole + 1, 10))
        rising = tuple(float(x) for x in np.interp(steps, [0, whole], [0.5, 0.9]))
        unknown = (None,) * len(steps)
        curve = LearningCurve(steps, rising, unknown, tuple(map(float, steps)), *[unknown] * 3, steps_per_epoch=100)
        cost = dataclasses.replace(update.cost, steps=whole)
        tasks.append(dataclasses.replace(update, features=features, curve=curve, cost=cost))
    found = {}
    monkeypatch.setattr(
        "resque.forecasting.evaluation.cross_validation.evaluate_predictor",
        lambda name, words, level: found.update({name: words}),
    )
    cross_validate(tasks, 0.9, "condition")
    pairs = list(zip(found[BEFORE], found[RENEWED], strict=True))
    assert len(pairs) > 10
    assert all(after.chance <= before.chance for before, after in pairs)
    assert any(after.chance < before.chance for before, after in pairs)


def test_the_updates_of_others_change_the_forecast_and_nothing_that_is_judged_beside_it():
    slower = [
        dataclasses.replace(update, shift_type=f"other {update.shift_type}", model="other")
        for update in history(seeds=3)
    ]
    bare, shaped = cross_validate(history(), 0.9), cross_validate(history(), 0.9, bundled=slower)
    assert [each.predictor for each in shaped.reports][:2] == [FORECAST, OWN]
    assert dataclasses.replace(shaped.reports[1], predictor=FORECAST) == bare.reports[0]
    assert shaped.reports[2:] == bare.reports[1:]
    assert shaped.reports[0].interval_score != bare.reports[0].interval_score


def test_a_constant_median_is_one():
    """The same for every update that is asked of one fold, and half of the history lies below it."""
    found = cross_validate(history(), 0.9)
    (constant,) = (each for each in found.reports if each.predictor == CONSTANT)
    assert constant.log_width is constant.brier is None
    rest = TrainingFolds(history(kinds=3), (), 0.8)
    asked = [update for update in history() if update.shift_type == "k3"]
    said = {rest.median(query_for_update(update, 0.9, 1000)) for update in asked}
    assert len(said) == 1
    assert said.pop() == pytest.approx(np.median([math.log(update.cost.steps) for update in history(kinds=3)]))


def test_a_name_of_ones_own_is_no_mixture():
    """With a slash in it, it shares nothing with another that begins alike."""
    week = [dataclasses.replace(update, shift_type=f"week/{update.shift_type[1]}") for update in history()]
    unnamed = [dataclasses.replace(u, shift_type=None, train_data=f"npz:/data/{u.shift_type}.npz") for u in history()]
    for mine in week, unnamed:
        found = cross_validate(mine, 0.9)
        assert found.folds == 4
        assert {FORECAST, "index", BARE} <= {each.predictor for each in found.reports}


def test_a_level_is_a_share():
    with pytest.raises(SettingError, match="level .--confidence. 80"):
        cross_validate(history(), 0.9, level=80)


def test_where_the_index_adds_nothing_it_says_so():
    assert cross_validate(history(useful=False), 0.9).index_adds is False


@pytest.mark.parametrize(("error", "score", "helps"), [(0.2, 1.0, False), (0.2, 9.0, True), (0.9, 1.0, True)])
def test_where_updates_of_others_mislead_it_says_so(error, score, helps):
    alone = cross_validate(history(), 0.9)
    assert alone.others_help is None
    whole = dataclasses.replace(alone.reports[0], median_error=0.5, interval_score=3.0)
    own = dataclasses.replace(whole, predictor=OWN, median_error=error, interval_score=score)
    found = dataclasses.replace(alone, reports=(whole, own))
    assert found.others_help is helps
    assert any("--no-bundled-history" in said for said in found.advice) is not helps


def test_of_others_nothing_is_said_that_was_not_judged_on_the_same_updates():
    alone = cross_validate(history(), 0.9)
    whole = dataclasses.replace(alone.reports[0], median_error=0.5, interval_score=3.0)
    for own, helps in (
        (dataclasses.replace(whole, predictor=OWN), True),
        (dataclasses.replace(whole, predictor=OWN, n=2, median_error=0.1, interval_score=1.0), None),
    ):
        assert dataclasses.replace(alone, reports=(whole, own)).others_help is helps
    never = dataclasses.replace(whole, reached=0, median_error=math.nan)
    own = dataclasses.replace(never, predictor=OWN)
    assert dataclasses.replace(alone, reports=(never, own)).others_help is None


def test_what_it_advises_is_printed(capsys):
    found = cross_validate(history(useful=False), 0.9)
    whole = dataclasses.replace(found.reports[0], median_error=0.5, interval_score=3.0)
    own = dataclasses.replace(whole, predictor=OWN, median_error=0.0, interval_score=1.0)
    show_validation(dataclasses.replace(found, reports=(whole, own)))
    said = " ".join(capsys.readouterr().out.split())
    assert "see --no-bundled-history" in said
    assert "index adds nothing" in said


def test_nothing_of_a_kind_helps_when_the_kind_is_left_out():
    """An offset of a kind is learned from its other levels, and from them alone."""
    slow = [
        dataclasses.replace(u, curve=dataclasses.replace(u.curve, steps=tuple(20 * s for s in u.curve.steps)))
        if u.shift_type == "k0"
        else u
        for u in history(spread=0.05)
    ]
    by_kind, by_condition = (
        {each.predictor: each for each in cross_validate(slow, 0.9, by).reports}["index"]
        for by in ("shift-type", "condition")
    )
    assert by_condition.median_error < by_kind.median_error


def test_the_replicate_error_is_that_of_pairs():
    two = [dataclasses.replace(u, curve=dataclasses.replace(u.curve, steps=(0, 1, 2, 3, steps)))
           for u, steps in zip(history(1, 1), (100, 150), strict=True)]  # fmt: skip
    assert seed_to_seed_error(two, 0.9) == (pytest.approx((50 / 150 + 50 / 100) / 2), 2)
    assert seed_to_seed_error(two[:1], 0.9) == (None, 0)
    again = [dataclasses.replace(u, seed=0, parent="p") for u in two]
    assert seed_to_seed_error(again, 0.9) == (None, 0)


def test_what_cannot_be_left_out_is_refused():
    with pytest.raises(SettingError, match="use one of shift-type, condition, seed, model"):
        cross_validate(history(), 0.9, "weekday")
    with pytest.raises(TooFewUpdatesError, match="0 different shift-types"):
        cross_validate(history(), 0.4)
    with pytest.raises(TooFewUpdatesError, match="2 different models"):
        cross_validate(history(), 0.9, "model")

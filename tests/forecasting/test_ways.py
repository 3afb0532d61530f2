"""What updates of one way tell of another: all layers, a head, adapters, other learning rates, from scratch."""

import dataclasses
import itertools

import numpy as np
import pytest

from resque.forecasting.curve_history import CurveHistory, evaluations_until, from_scratch_features
from resque.forecasting.curve_shape import CurveExample
from resque.forecasting.history import ForecastQuery, history_rows, is_same_change, relative_rate, telling, update_group
from resque.forecasting.learning_curves import CurveModel
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Features
from resque.training.new_task import NEW_TASK

STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WAYS = (("all", 0.1), ("all", 1.0), ("head", 1.0), ("lora", 1.0), ("all", 10.0))


def way_of(update):
    part = "scratch" if update.from_scratch else update.recipe["trains"]
    return part, round(relative_rate(update_group(update)), 6)


def asked(way, update):
    """A query for a bundled update's shift by another way: part, factor of the usual rate, whether from scratch."""
    part, rate, from_scratch = way
    recipe = {**update.recipe, "trains": part, "learning_rate": 1e-4 * rate, "optimizer": "adam"}
    update = dataclasses.replace(update, recipe=recipe, model="new", parent="new", from_scratch=from_scratch)
    return ForecastQuery.of_update(update, 0.8, 700)


@pytest.mark.parametrize("way", [(*way, False) for way in WAYS] + [("all", 10.0, True)])
def test_an_update_learns_from_all_layers_and_its_own_part_and_at_the_usual_rate_from_that_alone(way):
    query = asked(way, bundled_updates()[0])
    part = "scratch" if way[-1] else way[0]
    told = telling(bundled_updates(), query)
    expected = [
        each
        for each in bundled_updates()
        if way_of(each)[0] in ("all", part) and (way[1] != 1.0 or way_of(each)[1] == 0.0)
    ]
    assert told == expected
    assert {each.from_scratch for each in told if is_same_change(each, query)} == (
        {False, True} if way[-1] else {False}
    )


def test_bundled_updates_of_other_ways_change_no_forecast_of_all_layers_at_the_usual_rate():
    query = asked(("all", 1.0, False), bundled_updates()[0])
    usual = [each for each in bundled_updates() if way_of(each) == ("all", 0.0)][::4]
    others = [each for each in bundled_updates() if way_of(each) != ("all", 0.0)]
    evaluations = [*evaluations_until(query.max_steps)]
    one, both = (CurveHistory([], query, known).start(query).predict(evaluations) for known in (usual, usual + others))
    assert np.array_equal(one.best, both.best)
    assert np.array_equal(one.weights, both.weights)
    assert history_rows([], query, (), usual) == history_rows([], query, (), usual + others)


@pytest.mark.parametrize("other", ["head", "lora", "norm-scales"])
def test_own_updates_of_another_part_change_no_forecast_of_all_layers(other):
    """A head that did not arrive says nothing of how far all layers get."""
    first, *more = bundled_updates()[:12]
    failed = dataclasses.replace(first, recipe={**first.recipe, "trains": other}, model="new", parent="new")
    query, evaluations = asked(("all", 1.0, False), first), [*evaluations_until(700)]
    paths = [CurveHistory(own, query, more).start(query).predict(evaluations) for own in ([], [failed])]
    assert np.array_equal(paths[0].best, paths[1].best)
    assert history_rows([failed], query, ()) == []
    assert len(history_rows([failed], asked((other, 1.0, False), first), ())) == 1


@pytest.mark.parametrize("part", ["head", "lora"])
def test_parts_get_less_far_on_new_tasks_than_all_layers(part):
    """What the bundled history shows, for a network that it does not hold."""
    tasks = [each for each in bundled_updates() if each.shift_type == NEW_TASK and way_of(each) == ("all", 0.0)]
    for task in tasks[::29]:
        chances = []
        for each in (part, "all"):
            query = dataclasses.replace(asked((each, 1.0, False), task), target_accuracy=task.target_accuracy)
            curve = CurveHistory([], query, bundled_updates()).start(query)
            chances.append(curve.predict([*evaluations_until(700)]).probability_reached(query.target_accuracy))
        assert chances[0] < chances[1]


def rising(level, pace, **more):
    return CurveExample(STEPS, tuple(0.4 + (level - 0.4) * s / (s + pace) for s in STEPS), 0.4, (), **more)


def test_how_far_a_part_gets_is_learned_from_other_models():
    levels = 0.86 + 0.01 * np.arange(5)
    known = [
        rising(level - (0.3 if part == "head" else 0.0), 10, group=(net, part), part=part, shift_type=f"k{number}")
        for (number, level), net, part in itertools.product(enumerate(levels), "abc", ("all", "head"))
        if (net, part) != ("c", "head")
    ]
    model = CurveModel(known)
    best = {
        part: model.predict(CurveExample((), (), 0.4, (), ("c", part), "new", part=part), STEPS).best_accuracy(0.5)
        for part in ("all", "head", "lora")
    }
    assert best["head"] < best["all"] - 0.15
    assert abs(best["lora"] - best["all"]) < abs(best["head"] - best["all"])


def test_how_fast_a_rate_is_is_learned_from_other_models():
    known = [
        rising(0.9, 30 / 4**rate, group=(net, rate), part="all", rate=rate, shift_type=f"k{number}")
        for number, net, rate in itertools.product(range(5), "ab", (-1.0, 0.0, 1.0))
    ]
    model = CurveModel(known)
    paces = [
        model.predict(
            CurveExample((), (), 0.4, (), ("c", rate), "new", part="all", rate=rate), range(1, 2000)
        ).median_if_reached(0.7)
        for rate in (-1.0, 0.0, 1.0)
    ]
    assert paces == sorted(paces, reverse=True)
    assert paces[0] > 4 * paces[2]


@pytest.mark.parametrize("is_task", [False, True])
def test_from_scratch_starts_anew_and_keeps_what_the_data_tell(is_task):
    scores = {"adapted refit": 0.8, "adapted k-NN": 0.7, "adapted accuracy": 0.6, "warm-up accuracy": 0.5}
    known = Features(None if is_task else 0.4, 0.5, 1.2, scores=scores, task_index=0.9 if is_task else None)
    found = from_scratch_features(known, 0.1, 2.3)
    assert (found.accuracy, found.loss, found.index_rad, found.task_index) == (0.1, 2.3, None, None)
    assert found.scores == {"adapted refit": 0.8, "adapted k-NN": 0.7}

"""Cross-validation of forecasts on synthetic histories."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_update
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.evaluation import folds
from resque.forecasting.evaluation.cross_validation import (
    BY,
    FORECAST,
    cross_validate,
)
from resque.forecasting.evaluation.folds import (
    CONSTANT,
    NO_PREDICTOR,
    OWN_ONLY,
    STEP_BUDGET,
    TrainingFolds,
)
from resque.forecasting.evaluation.replicates import SeedVariability, seed_variability
from resque.forecasting.evaluation.settlement import brier_scores
from resque.forecasting.history import ForecastQuery
from resque.forecasting.predictors import PREDICTORS
from resque.reporting import console
from resque.reporting.tables import show_validation


def history(types=4, levels=4, seeds=2, spread=0.2, useful=True):
    random = np.random.default_rng(3)
    found = []
    for shift_type in range(types):
        for level in range(levels):
            index = 0.2 * 1.5**level * math.exp(0.1 * random.normal())
            for seed in range(seeds):
                steps = 400 * index**2 if useful else 60
                update = synthetic_update(
                    f"{shift_type}-{level}-{seed}",
                    index=index,
                    steps=max(2, round(steps * math.exp(spread * random.normal()))),
                    shift_type=f"k{shift_type}",
                )
                found.append(
                    dataclasses.replace(update, train_data=f"d+k{shift_type}:{level}", seed=seed, parent=f"p{seed}")
                )
    return found


@pytest.fixture(scope="module")
def plain():
    """The usual history, cross-validated once."""
    return cross_validate(history(), 0.9)


@pytest.fixture(scope="module")
def useless():
    """So too a history whose index tells nothing."""
    return cross_validate(history(useful=False), 0.9)


@pytest.mark.parametrize("by", list(BY)[:3])
def test_every_update_is_predicted_once(plain, by):
    if by == "seed":
        with pytest.raises(TooFewUpdatesError, match="2 different seeds"):
            cross_validate(history(), 0.9, by)
        found = cross_validate(history(seeds=3), 0.9, by)
    else:
        found = plain if by == "shift-type" else cross_validate(history(), 0.9, by)
    reports = {each.predictor: each for each in found.reports}
    assert {FORECAST, "index", NO_PREDICTOR, CONSTANT, STEP_BUDGET} <= set(reports)
    assert {each.n for each in reports.values()} == {found.updates}
    if by != "seed":  # a known condition needs no index
        assert reports["index"].median_error < 0.5 * reports[NO_PREDICTOR].median_error
        assert found.index_helps
    assert reports["index"].spearman_value > 0.8
    assert reports["index"].interval_score < reports[NO_PREDICTOR].interval_score
    assert reports[STEP_BUDGET].coverage is None


def test_mixtures_of_a_left_out_shift_type_are_left_out():
    """The predictions do not depend on the cost of the mixture."""
    plain = [dataclasses.replace(u, shift_type="gaussian") if u.shift_type == "k0" else u for u in history()]

    def gaussian_predictions(factor, patch):
        mixed = [
            dataclasses.replace(
                u,
                id=f"m{u.id}",
                shift_type="gaussian/none",
                curve=dataclasses.replace(u.curve, steps=tuple(factor * s for s in u.curve.steps)),
            )
            for u in history(types=1)
        ]
        found = []
        patch.setattr(
            "resque.forecasting.evaluation.cross_validation.evaluate_predictor",
            lambda name, scored, level: found.append((name, scored)),
        )
        cross_validate(plain + mixed, 0.9)
        (scored,) = (each for name, each in found if name == FORECAST)
        return [(each.forecast, each.interval) for each in scored if each.shift_type == "gaussian"]

    with pytest.MonkeyPatch.context() as patch:
        slow, fast = (gaussian_predictions(factor, patch) for factor in (30, 1))
    assert slow == fast
    assert len(slow) == 8


def test_every_predictor_gets_the_bundled_updates_that_the_forecast_gets(plain):
    slower = [
        dataclasses.replace(update, shift_type=f"other {update.shift_type}", model="other")
        for update in history(seeds=3)
    ]
    bare, shaped = plain, cross_validate(history(), 0.9, bundled=slower)
    assert [each.predictor for each in shaped.reports][:2] == [FORECAST, OWN_ONLY]
    assert dataclasses.replace(shaped.reports[1], predictor=FORECAST) == bare.reports[0]
    named = {report.predictor: report for report in shaped.reports[2:]}
    assert all(named[report.predictor] != report for report in bare.reports[1:] if report.predictor in PREDICTORS)
    assert shaped.reports[0].interval_score != bare.reports[0].interval_score


@pytest.mark.parametrize(("types", "seeds"), [(3, 2), (4, 1)])
def test_each_model_is_fitted_once_for_a_fold(monkeypatch, types, seeds):
    """As often for many held-out updates of a fold as for one: a fit is what costs."""
    counts = {}
    for name in ("StepsModel", "CurveHistory"):
        real = getattr(folds, name)
        monkeypatch.setattr(folds, name, lambda *given, name=name, real=real: counts[name].append(real) or real(*given))

    def fits(levels):
        counts.update(StepsModel=[], CurveHistory=[])
        cross_validate(history(types, levels, seeds), 0.9)
        return {name: len(fitted) for name, fitted in counts.items()}

    few = fits(2)
    assert few == fits(3)
    assert few["CurveHistory"] == types * seeds  # each seed is a model of its own


def test_constant_median_is_the_median_of_the_training_folds(plain):
    """It is the same for every held-out update of one fold."""
    (constant,) = (each for each in plain.reports if each.predictor == CONSTANT)
    assert constant.log_width is constant.brier is None
    rest = TrainingFolds(history(types=3), (), 0.8)
    held_out = [update for update in history() if update.shift_type == "k3"]
    medians = {rest.median(ForecastQuery.of_update(update, 0.9, 1000)) for update in held_out}
    assert len(medians) == 1
    assert medians.pop() == pytest.approx(np.median([math.log(update.cost.steps) for update in history(types=3)]))


def test_custom_name_with_a_slash_is_no_mixture():
    """It shares nothing with another name of the same beginning."""
    week = [dataclasses.replace(update, shift_type=f"week/{update.shift_type[1]}") for update in history()]
    unnamed = [dataclasses.replace(u, shift_type=None, train_data=f"npz:/data/{u.shift_type}.npz") for u in history()]
    for mine in week, unnamed:
        found = cross_validate(mine, 0.9)
        assert found.folds == 4
        assert {FORECAST, "index", NO_PREDICTOR} <= {each.predictor for each in found.reports}


def test_level_outside_0_and_1_is_refused():
    with pytest.raises(SettingError, match="level .--confidence. 80"):
        cross_validate(history(), 0.9, level=80)


def test_useless_index_does_not_help(useless):
    assert useless.index_helps is False


@pytest.mark.parametrize(("error", "score", "helps"), [(0.2, 1.0, False), (0.2, 9.0, True), (0.9, 1.0, True)])
def test_misleading_bundled_updates_do_not_help(plain, error, score, helps):
    alone = plain
    assert alone.bundled_helps is None
    whole = dataclasses.replace(alone.reports[0], median_error=0.5, interval_score=3.0)
    own = dataclasses.replace(whole, predictor=OWN_ONLY, median_error=error, interval_score=score)
    found = dataclasses.replace(alone, reports=(whole, own))
    assert found.bundled_helps is helps
    assert any("--no-bundled-history" in sentence for sentence in found.advice) is not helps


def test_bundled_updates_are_evaluated_on_the_same_updates_only(plain):
    alone = plain
    whole = dataclasses.replace(alone.reports[0], median_error=0.5, interval_score=3.0)
    for own, helps in (
        (dataclasses.replace(whole, predictor=OWN_ONLY), True),
        (dataclasses.replace(whole, predictor=OWN_ONLY, n=2, median_error=0.1, interval_score=1.0), None),
    ):
        assert dataclasses.replace(alone, reports=(whole, own)).bundled_helps is helps
    never = dataclasses.replace(whole, reached=0, median_error=math.nan)
    own = dataclasses.replace(never, predictor=OWN_ONLY)
    assert dataclasses.replace(alone, reports=(never, own)).bundled_helps is None


def test_advice_is_printed(useless, capsys):
    found = useless
    whole = dataclasses.replace(found.reports[0], median_error=0.5, interval_score=3.0)
    own = dataclasses.replace(whole, predictor=OWN_ONLY, median_error=0.0, interval_score=1.0)
    show_validation(dataclasses.replace(found, reports=(whole, own)))
    printed = " ".join(capsys.readouterr().out.split())
    assert "use --no-bundled-history" in printed
    assert "index does not significantly improve" in printed


def test_leaving_out_a_shift_type_is_harder_than_a_condition():
    """The random intercept of a shift type is estimated from its other levels only."""
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


def repeated(*conditions, **more):
    """One run for each number of steps in each condition."""
    return [
        dataclasses.replace(
            history(1, 1, 1)[0],
            id=f"{name}-{seed}",
            train_data=f"d{name}",
            seed=seed,
            curve=dataclasses.replace(history(1, 1, 1)[0].curve, steps=(0, 1, 2, 3, steps)),
            **more,
        )
        for name, runs in enumerate(conditions)
        for seed, steps in enumerate(runs)
    ]


def test_replicate_error_is_the_median_over_pairs():
    two = repeated((100, 150))
    found = seed_variability(two, 0.9)
    assert found.pairs == 2
    assert found.replicate_error == pytest.approx((50 / 150 + 50 / 100) / 2)
    assert found.replicate_factor == pytest.approx(1.5)
    nothing = SeedVariability(0, None, None, 0, None, None)
    assert seed_variability(two[:1], 0.9) == nothing
    assert seed_variability([dataclasses.replace(u, seed=0) for u in two], 0.9) == nothing
    assert seed_variability([dataclasses.replace(two[0], seed=None), two[1]], 0.9) == nothing
    assert seed_variability(repeated((100,), (150,)), 0.9) == nothing


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.1, 0.4])
def test_noise_is_the_error_of_a_forecaster_who_knows_the_mean(seeds, spread):
    """Whatever the number of seeds; the replicate error is larger by the square root of two."""
    random = np.random.default_rng(seeds)
    noise = spread * random.normal(size=(1500 // seeds, seeds))
    noise -= noise.mean()
    steps = np.round(np.exp(9.0 + noise)).astype(int).tolist()
    found = seed_variability(repeated(*steps), 0.9)
    assert found.runs == np.size(steps)
    assert math.log(found.noise_factor) == pytest.approx(np.median(abs(noise)), rel=0.08)
    assert found.noise_error == pytest.approx(np.median(abs(np.expm1(-noise))), rel=0.08)
    assert math.log(found.replicate_factor) == pytest.approx(math.sqrt(2) * np.median(abs(noise)), rel=0.1)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=20))
def test_base_rate_is_the_best_constant_probability(known):
    brier, base_rate = brier_scores(known)
    probability, reached = np.array(known, dtype=float).T
    assert brier == pytest.approx(np.mean((probability - reached) ** 2))
    assert base_rate == pytest.approx(min(np.mean((share - reached) ** 2) for share in (reached.mean(), 0.0, 1.0)))


def test_printed_validation_fits_80_columns_with_base_rate_factor_and_noise(monkeypatch, capsys):
    monkeypatch.setattr(console.out, "width", 80)
    found = cross_validate(history(3, 3), 0.9)
    wide = dataclasses.replace(found.reports[0], predictor="parameters × samples", n=100, reached=100)
    found = dataclasses.replace(found, reports=(*found.reports, wide))
    show_validation(found)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for shown in ("base rate", "factor", "replicate error", "(noise)", f"{found.seeds.noise_factor:.2f}"):
        assert shown in " ".join(out.split())
    assert found.to_dict()["reports"][0]["base_rate_brier"] == found.reports[0].base_rate_brier
    assert found.to_dict()["seeds"]["noise_error"] == found.seeds.noise_error


def test_impossible_folds_are_refused():
    with pytest.raises(SettingError, match="use one of shift-type, condition, seed, model"):
        cross_validate(history(), 0.9, "weekday")
    with pytest.raises(TooFewUpdatesError, match="0 different shift-types"):
        cross_validate(history(), 0.4)
    with pytest.raises(TooFewUpdatesError, match="2 different models"):
        cross_validate(history(), 0.9, "model")

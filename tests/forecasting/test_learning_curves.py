"""The learning-curve model: shape, fit, population, and predictions of known curves."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from resque.forecasting import curve_shape, learning_curves
from resque.forecasting.curve_history import central_share, total_steps
from resque.forecasting.curve_shape import (
    DRIFT,
    NOISE,
    CurveExample,
    FittedCurves,
    accuracy_and_jacobian,
    accuracy_at,
    noise_factor,
    thinned,
)
from resque.forecasting.learning_curves import CurveModel, CurvePrediction

STEPS = tuple(sorted({round(1.3**k) for k in range(27)}))


def curve(pace, level=0.9, start=0.5, slope=0.0, noise=0.0, seed=0, **more):
    random = np.random.default_rng(seed)
    values = [
        start + (level - start) / (1 + pace / s) + slope * math.log1p(s / pace) + noise * random.normal() for s in STEPS
    ]
    return CurveExample(STEPS, tuple(values), start, **more)


def begun(example, until):
    kept = sum(step <= until for step in example.steps)
    return CurveExample(example.steps[:kept], example.accuracy[:kept], example.start, example.features, example.group)


@given(
    st.lists(st.floats(-2.0, 2.0), min_size=4, max_size=4),
    st.floats(0.05, 0.95),
    st.lists(st.floats(1.0, 5000.0), min_size=1, max_size=5),
)
def test_derivatives_equal_finite_differences(theta, start, steps):
    parameters = np.array([theta]) + learning_curves._START
    steps, starts = np.sort(np.array([steps])), np.array([start])
    values, jacobian = accuracy_and_jacobian(parameters, steps, starts)
    assert values[0] == pytest.approx(accuracy_at(parameters, steps[0], start)[0])
    for place in range(4):
        moved = [parameters + sign * 1e-5 * np.eye(4)[place] for sign in (1, -1)]
        up, down = (accuracy_and_jacobian(each, steps, starts)[0] for each in moved)
        assert jacobian[0, :, place] == pytest.approx((up - down)[0] / 2e-5, abs=1e-6)


@given(
    st.lists(st.floats(-8.0, 8.0), min_size=4, max_size=4),
    st.floats(0.0, 0.99),
    st.lists(st.floats(1.0, 1e7), min_size=2, max_size=6),
)
def test_shape_rises_from_the_start_to_at_most_one(theta, start, steps):
    values = accuracy_at(np.array([theta]), np.sort(np.array(steps)), start)[0]
    assert (values >= start - 1e-9).all()
    assert (values <= 1.0 + 1e-12).all()
    assert (np.diff(values) >= -1e-9).all()


def test_error_that_is_left_falls_as_a_power_of_the_steps():
    theta = np.array([[0.5, math.log(10.0), 3.0, math.log(0.2)]])
    level = 0.3 + 0.7 / (1 + math.exp(-0.5))
    late = np.array([1e5, 1e7])
    assert 1.0 - accuracy_at(theta, late, 0.3)[0] == pytest.approx((1 - level) * (1 + late / 10.0) ** -0.2, rel=1e-6)


@pytest.mark.parametrize("pace", [20, 200, 1000])
@pytest.mark.parametrize("slope", [0.0, 0.05, 0.4])
def test_curves_that_rise_late_are_fitted_as_well_as_early_ones(pace, slope):
    """From the usual start alone, the fit of a late rise ends at a curve that is nearly flat at first."""
    theta = np.array([[1.0, math.log(pace), 1.2, math.log(slope + 1e-3)]])
    steps = tuple(sorted({round(1.35**k) for k in range(26)}))
    accuracy = tuple(accuracy_at(theta, np.array(steps, dtype=float), 0.1)[0])
    model = CurveModel([CurveExample(steps, accuracy, 0.1, shift_type=k) for k in range(6)])
    precision = np.linalg.inv(model._covariance)[None]
    found, _ = FittedCurves([model.examples[0]]).fit([model._offset[None]], model._offset[None], precision)
    assert accuracy_at(found, np.array(steps, dtype=float), 0.1)[0] == pytest.approx(np.array(accuracy), abs=0.02)


def test_early_evaluations_count_less_for_what_comes_next(monkeypatch):
    """A jump at the first evaluations, which the shape cannot follow, moves the forecast by less than without it."""
    model = CurveModel([curve(pace, noise=0.005, seed=k) for k, pace in enumerate((8, 12, 20, 35, 60, 100, 170, 300))])
    plain = begun(curve(40, noise=0.005, seed=7), 100)
    raised = (*(each + 0.1 for each in plain.accuracy[:2]), *plain.accuracy[2:])

    def moved(discount):
        monkeypatch.setattr(learning_curves, "_DISCOUNT", discount)
        curves = plain, dataclasses.replace(plain, accuracy=raised)
        return abs(math.log(math.prod(
            model.predict(each, range(101, 3000)).median_if_reached(0.86) ** sign
            for each, sign in zip(curves, (1, -1), strict=True)
        )))  # fmt: skip

    assert moved(1.0) < 0.7 * moved(0.0)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8, unique=True), st.floats(0.001, 0.05), st.floats(0.0, 2.0))
def test_noise_grows_with_the_log_steps_before_the_last_evaluation(steps, noise, discount):
    steps = np.sort(np.array(steps, dtype=float))
    factor = noise_factor(steps, noise, discount)
    walk = DRIFT**2 * np.minimum.outer(np.log1p(steps), np.log1p(steps))
    deviations = np.sqrt(np.diag(factor @ factor.T - walk))
    expected = curve_shape._MISFIT * noise * (1.0 + discount * np.log(steps[-1] / steps))
    assert deviations == pytest.approx(expected, rel=1e-6)


def test_fit_equals_a_general_optimizer():
    examples = [curve(pace, level, slope=slope, noise=0.01, seed=seed) for seed, (pace, level, slope) in enumerate(
        [(5, 0.9, 0.0), (40, 0.8, 0.01), (300, 0.95, 0.0), (20, 0.6, 0.02)]
    )]  # fmt: skip
    mean, precision = learning_curves._START, np.diag(learning_curves._START_DEVIATIONS**-2.0)
    curves = FittedCurves(examples)
    tiled = np.tile(mean, (len(examples), 1))
    found, _ = curves.fit([tiled], tiled, np.tile(precision, (len(examples), 1, 1)))
    for example, ours in zip(examples, found, strict=True):
        alone = FittedCurves([example])

        def loss(theta, alone=alone):
            return float(alone._loss(theta[None], mean[None], precision[None])[0])

        assert loss(ours) <= optimize.minimize(loss, mean, method="BFGS").fun + 1e-3


@given(st.lists(st.tuples(st.floats(2.0, 600.0), st.floats(0.55, 0.98), st.integers(3, 20)), min_size=2, max_size=6))
def test_a_curve_is_fitted_the_same_alone_and_beside_others(curves):
    """Some are done after a few steps, and the others go on."""
    examples = [begun(curve(pace, level, noise=0.01, seed=n), STEPS[n]) for pace, level, n in curves]
    means = np.tile(learning_curves._START, (len(examples), 1))
    precisions = np.tile(np.diag(learning_curves._START_DEVIATIONS**-2.0), (len(examples), 1, 1))
    together, hessians = FittedCurves(examples).fit([means], means, precisions)
    for place, example in enumerate(examples):
        alone, hessian = FittedCurves([example]).fit([means[:1]], means[:1], precisions[:1])
        assert alone[0] == pytest.approx(together[place], abs=1e-5)
        assert hessian[0] == pytest.approx(hessians[place], rel=1e-3)


@pytest.mark.parametrize("seen", [0, 1, 6])
def test_posterior_is_importance_sampling_by_its_formulas(seen):
    """The weights against SciPy's t and normal densities, the drift against the conditional normal distribution."""
    query = CurveExample(STEPS[:seen], curve(12, noise=0.02, seed=1).accuracy[:seen], 0.5)
    mean, noise = learning_curves._START + 0.3, 0.015
    root = np.random.default_rng(2).normal(0.0, 0.5, (4, 4)) + 0.8 * np.eye(4)
    covariance = root @ root.T
    found = learning_curves._posterior(query, mean, covariance, noise, np.random.default_rng(3))
    parameters, weights, offset, deviation = found
    center, spread = mean, covariance
    if seen:
        precision = np.linalg.inv(covariance)
        starts = [mean[None], *(mean + learning_curves._OTHER_STARTS[:, None])]
        (center,), (hessian,) = FittedCurves([query], noise, 1.0).fit(starts, mean[None], precision[None])
        spread = np.linalg.inv(hessian)
    logs = stats.multivariate_t(mean, covariance, df=5).logpdf(parameters)
    logs = logs - stats.multivariate_t(center, 1.1**2 * spread, df=5).logpdf(parameters)
    now, drift = np.zeros(len(parameters)), 0.0
    if seen:
        growth = np.log1p(np.array(query.steps, dtype=float))
        walk = DRIFT**2 * np.minimum.outer(growth, growth)
        before = np.log(query.steps[-1] / np.array(query.steps, dtype=float))
        whole = walk + np.diag((curve_shape._MISFIT * noise * (1.0 + before)) ** 2)
        residuals = np.array(query.accuracy) - accuracy_at(parameters, np.array(query.steps, dtype=float), 0.5)
        whitened = np.linalg.solve(np.linalg.cholesky(whole), residuals.T)
        logs = logs + stats.norm.logpdf(np.clip(whitened, -3.0, 3.0)).sum(0)
        now = residuals @ np.linalg.solve(whole, walk[-1])
        drift = math.sqrt(walk[-1, -1] - walk[-1] @ np.linalg.solve(whole, walk[-1]))
    expected = np.exp(logs - logs.max())
    assert weights == pytest.approx(expected / expected.sum(), rel=1e-6, abs=1e-12)
    assert offset == pytest.approx(now, abs=1e-9)
    assert deviation == pytest.approx(drift, abs=1e-9)


def test_pace_of_a_run_shows_in_its_first_steps():
    model = CurveModel([curve(pace, noise=0.005, seed=k) for k, pace in enumerate((8, 12, 20, 35, 60, 100, 170, 300))])
    for pace in (15, 80):
        true = next(s for s in range(1, 5000) if 0.5 + 0.4 / (1 + pace / s) >= 0.8)
        prediction = model.predict(begun(curve(pace, noise=0.005, seed=99), 40), range(41, 3000))
        assert prediction.median_if_reached(0.8) == pytest.approx(true, rel=0.3)
        assert prediction.quantile(0.8, 0.1) <= true <= prediction.quantile(0.8, 0.9)


def test_features_tell_the_level_before_the_first_step():
    levels = np.linspace(0.6, 0.95, 15)
    examples = [curve(20, level, features=(level,), noise=0.003, seed=k) for k, level in enumerate(levels)]
    model = CurveModel(examples)
    low, high = (
        model.predict(CurveExample((), (), 0.5, (level,)), range(1, 800)).probability_reached(0.8)
        for level in (0.65, 0.95)
    )
    assert high > low + 0.4


def test_unknown_feature_is_at_the_mean():
    examples = [curve(20, 0.7 + 0.02 * k, features=(float(k), math.nan), seed=k) for k in range(8)]
    model = CurveModel(examples)
    known, unknown = (
        model.predict(CurveExample((), (), 0.5, features), range(1, 100))
        for features in ((3.5, 1.0), (math.nan, math.nan))
    )
    assert np.allclose(known.best, unknown.best)


def test_features_are_standardized_by_their_known_values():
    """An unknown value of an example counts nowhere; a feature that is always unknown has no effect."""
    features = np.array([[float(k), math.nan if k % 2 else 3.0 * k, math.nan, 5.0] for k in range(6)])
    model = CurveModel([curve(20, 0.7 + 0.02 * k, features=tuple(row), seed=k) for k, row in enumerate(features)])
    assert model._center == pytest.approx([2.5, 6.0, 0.0, 5.0])
    assert model._scale == pytest.approx([np.std(range(6)), np.std([0.0, 6.0, 12.0]), math.inf, 1.0])
    assert np.isfinite(model._features).all()
    assert not model._features[:, 2:].any()


def test_prior_covariance_is_the_sum_of_its_parts():
    keys = [("a", "blur", 1), ("a", "blur", 2), ("a", "snow", 1), ("b", "blur", 1), ("b", None, None), ("a", None, 3)]
    ways = [("all", 0.0), ("all", 1.0), ("head", 0.0), ("head", -1.0), ("scratch", 1.0), ("all", 0.5)]
    features = np.random.default_rng(0).normal(size=(len(keys), 2))
    examples = [
        curve(20, features=tuple(row), seed=k, group=group, shift_type=shift_type, condition=c, part=part, rate=rate)
        for k, (row, (group, shift_type, c), (part, rate)) in enumerate(zip(features, keys, ways, strict=True))
    ]
    standard = (features - features.mean(0)) / features.std(0)
    model = CurveModel(examples)

    def covariance(i, j):
        same = [float(i == j or (one is not None and one == two)) for one, two in zip(keys[i], keys[j], strict=True)]
        smooth = 3.0 * standard[i] @ standard[j] / 2 + math.exp(-((standard[i] - standard[j]) ** 2).mean() / 2)
        way = 2.0 * (ways[i][0] == ways[j][0]) + ways[i][1] * ways[j][1]
        return 2.0 + way + smooth + same[0] * (1.0 + 0.15 * same[2]) + 0.3 * same[1] * (0.3 + 0.7 * same[0])

    expected = [[covariance(i, j) for j in range(len(keys))] for i in range(len(keys))]
    found = model._kernel(examples, model._features, itself=True)
    off = ~np.eye(len(keys), dtype=bool)
    assert found[off] == pytest.approx(np.array(expected)[off])
    assert model._kernel(examples, model._features)[off] == pytest.approx(np.array(expected)[off])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.lists(st.floats(0.0, 1.2), min_size=2, max_size=12), st.integers(0, 1000))
def test_predictions_are_coherent_across_targets(evaluations, targets, seed):
    random = np.random.default_rng(seed)
    best = np.maximum.accumulate(random.uniform(0.0, 1.0, (50, evaluations)), axis=1)
    weights = random.dirichlet(np.ones(50))
    prediction = CurvePrediction(np.arange(1, evaluations + 1) * 3.0, best, weights)
    targets = sorted(targets)
    for name in ("probability_reached", "median_if_reached"):
        values = [getattr(prediction, name)(target) for target in targets]
        assert all(np.diff(values) <= 1e-9 if name == "probability_reached" else np.diff(values) >= -1e-9)
    for share in (0.1, 0.5, 0.9):
        assert all(np.diff([prediction.quantile(target, share) for target in targets]) >= 0)


def test_path_ends_at_its_first_evaluation_at_the_target():
    prediction = CurvePrediction(
        np.array([10.0, 20.0, 30.0]), np.array([[0.1, 0.5, 0.5], [0.6, 0.7, 0.9]]), np.array([0.25, 0.75])
    )
    assert prediction.probability_reached(0.55) == 0.75
    assert [prediction.quantile(0.5, share) for share in (0.5, 0.9)] == [10.0, 20.0]
    assert prediction.quantile(0.55, 0.9) == 30.0


def test_long_curves_are_thinned_and_keep_their_ends():
    long = CurveExample(tuple(range(1, 2001)), tuple(1 - 1 / (1 + s) for s in range(1, 2001)), 0.0)
    steps, accuracy = thinned(long)
    assert len(steps) <= 40
    assert (steps[0], steps[-1], accuracy[-1]) == (1, 2000, long.accuracy[-1])


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
def test_noise_is_measured_between_close_evaluations(noise):
    close = tuple(sorted({round(1.1**k) for k in range(60)}))
    random = np.random.default_rng(5)
    rising = [0.9 - 0.4 / (1 + step / 20) for step in close]
    examples = [
        CurveExample(close, tuple(y + noise * random.normal() for y in rising), 0.5, group="a") for _ in range(20)
    ]
    model = CurveModel([*examples, curve(20, group="b")])
    assert model._noise(CurveExample((), (), 0.5, group="a")) == pytest.approx(noise, rel=0.25)
    assert model._noise(CurveExample((), (), 0.5, group="c")) == NOISE


def test_an_accuracy_at_the_target_reaches_it():
    best = np.array([[0.5, 0.75, 0.75], [0.5, 0.5, 0.5]])
    prediction = CurvePrediction(np.array([10.0, 20.0, 30.0]), best, np.array([0.5, 0.5]))
    assert prediction.probability_reached(0.75) == 0.5
    assert prediction.median_if_reached(0.75) == 20.0


def test_population_of_few_short_curves_is_near_the_first_guess():
    """The published constants of the prior, and the steps of the estimation, in one fit."""

    def short(pace, level, start, shift_type):
        steps = (1, 2, 4, 8, 16, 32, 64)
        values = tuple(start + (level - start) / (1 + pace / s) for s in steps)
        return CurveExample(steps, values, start, (level,), shift_type=shift_type)

    rows = [(5, 0.8, 0.5, "a"), (9, 0.9, 0.4, "b"), (30, 0.85, 0.6, "c"), (14, 0.7, 0.3, "a"), (50, 0.95, 0.5, "b")]
    model = CurveModel([short(*row) for row in rows])
    assert model._offset == pytest.approx([0.222, 2.521, 0.042, -3.1], abs=0.02)
    assert np.sqrt(np.diag(model._covariance)) == pytest.approx([0.633, 0.68, 0.24, 0.392], rel=0.03)


def test_features_beyond_the_range_count_as_one_deviation_beyond():
    values = [float(k) for k in range(8)]
    model = CurveModel([curve(20, 0.7 + 0.02 * k, features=(k,), seed=int(k)) for k in values])
    for edge, side in ((0.0, -1.0), (7.0, 1.0)):
        asked = (edge + 50.0 * side, edge + side * np.std(values), edge)
        far, beyond, at = (model.predict(CurveExample((), (), 0.5, (each,)), range(1, 100)).best for each in asked)
        assert np.allclose(far, beyond)
        assert not np.allclose(far, at)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_interval_before_the_first_step_takes_half_the_odds_of_the_paths(level):
    """Paths that end one after the other, so that each has its own step."""
    n = 4000
    steps = np.arange(1, n + 1)
    best = np.where(steps[None] >= steps[:, None], 1.0, 0.0)
    paths = CurvePrediction(steps.astype(float), best, np.full(n, 1.0 / n))
    share = central_share(level)
    assert share / (1.0 - share) == pytest.approx(0.5 * level / (1.0 - level))
    for asked, within in ((None, level), (share, share)):
        estimate = total_steps(paths, 0.5, steps.tolist(), level, "", asked)
        low, high = estimate.interval.low, estimate.interval.high
        assert (high - low) / n == pytest.approx(within, abs=0.002)
        assert low + high == pytest.approx(n, abs=4)  # as much on either side
        assert estimate.upper == pytest.approx(level * n, abs=2)


@pytest.mark.parametrize("offset", [0.0, 0.5, 2.0])
def test_prior_of_a_run_has_the_variance_of_a_gaussian_process_given_the_examples(offset):
    """A run of another group, shift type and condition than all examples; its features are within their range."""
    features = np.random.default_rng(1).normal(size=(7, 2))
    model = CurveModel([curve(20, features=tuple(row), seed=k, condition=k) for k, row in enumerate(features)])
    new = dict.fromkeys(("group", "shift_type", "condition"), "new")
    asked = dataclasses.replace(model.examples[0], features=(offset / 4, -offset / 4), **new)
    standard = (np.array([asked.features]) - features.mean(0)) / features.std(0)
    itself = 4.0 + 3.0 * float((standard**2).sum()) / 2 + 1.0 + (1.0 + 0.15) + 0.3
    across = model._kernel([asked], standard)[0]
    expected = (
        itself + 1.0 - across @ np.linalg.inv(model._kernel(model.examples, model._features) + np.eye(7)) @ across
    )
    _, covariance = model._prior(asked)
    assert covariance == pytest.approx(model._covariance * expected, rel=1e-6)

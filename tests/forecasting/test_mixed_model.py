"""The mixed model against dense formulas and simulations."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from threadpoolctl import threadpool_info, threadpool_limits

from resque.forecasting import mixed_model
from resque.forecasting.curve_shape import CurveExample
from resque.forecasting.learning_curves import CurveModel
from resque.forecasting.mixed_model import Deviations, MixedModel, TrainingExample
from simulations import simulated

DEVIATIONS = Deviations(0.8, 0.4, (1.0, 0.5, 0.3, 0.2, 0.1, 0.6), 0.3)


def test_covariance_is_the_sum_of_the_terms():
    """Against kernels written out term by term."""
    rows = [dataclasses.replace(row, parent=f"p{i % 4}", part=f"part {i % 3}") for i, row in enumerate(simulated(3, 3))]
    features = np.array([row.features for row in rows])
    standard = (features - features.mean(0)) / features.std(0)

    def same(*names):
        keys = [tuple(getattr(row, name) for name in names) for row in rows]
        return np.array([[float(one == other) for other in keys] for one in keys])

    distances = np.array([[np.mean((one - other) ** 2) for other in standard] for one in standard])
    smooth = 0.8**2 * standard @ standard.T + 0.4**2 * np.exp(-distances / 2)
    factors = [same("group"), same("shift_type"), same("group", "shift_type")]
    factors += [same("group", "shift_type", "condition"), same("group", "parent"), same("part")]
    intercepts = sum(d**2 * each for d, each in zip(DEVIATIONS.intercepts, factors, strict=True))
    found = MixedModel(rows, DEVIATIONS)._covariance(rows, rows)
    assert found == pytest.approx(25.0 + smooth + intercepts, rel=1e-12)


def test_prediction_is_conditional_normal_distribution():
    """Against the joint covariance of all examples and the query, by the Schur complement of the precision."""
    rows = simulated(3, 3)
    model = MixedModel(rows, DEVIATIONS)
    query = TrainingExample((0.3, -1.0), math.nan, False, "g", "k1", "new")
    joint = model._covariance([*rows, query], [*rows, query]) + 0.3**2 * np.eye(len(rows) + 1)
    precision = np.linalg.inv(joint)
    y = np.array([example.value for example in rows])
    offset = np.median(y)
    mean = -precision[-1, :-1] @ (y - offset) / precision[-1, -1] + offset
    prediction = model.predict(query)
    assert prediction.mean == pytest.approx(mean, rel=1e-6)
    assert prediction.deviation == pytest.approx(precision[-1, -1] ** -0.5, rel=1e-6)


def test_unseen_shift_type_adds_variance_between_shift_types():
    model = MixedModel(simulated(12, 6, shift_type=1.0, noise=0.2), DEVIATIONS)
    seen = model.predict(TrainingExample((0.0, 0.0), group="g", shift_type="k3", condition="new"))
    unseen = model.predict(TrainingExample((0.0, 0.0), group="g", shift_type="fog", condition="new"))
    assert unseen.deviation**2 - seen.deviation**2 == pytest.approx(0.5**2 + 0.3**2, rel=0.3)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_fitted_like_a_sample_of_the_truncated_normal(seed):
    """Draws of the joint distribution, of which those above all bounds are kept."""
    random = np.random.default_rng(seed)
    rows = [
        TrainingExample((x,), 0.5 * random.normal(), False, "g", f"k{i % 2}", i, f"p{i % 2}")
        for i, x in enumerate(random.normal(size=5))
    ]
    rows = [dataclasses.replace(row, censored=place < 3) for place, row in enumerate(rows)]
    query = TrainingExample((0.5,), math.nan, False, "g", "new", "new", "p0")
    model = MixedModel(rows, DEVIATIONS)
    joint = model._covariance([*rows, query], [*rows, query]) + 0.3**2 * np.eye(6)
    y = np.array([row.value for row in rows]) - model._offset
    gain = np.linalg.solve(joint[3:5, 3:5], joint[3:5])
    left = [0, 1, 2, 5]
    mean, covariance = (gain.T @ y[3:])[left], (joint - gain.T @ joint[3:5])[np.ix_(left, left)]
    draws = random.multivariate_normal(mean, covariance, 400_000)
    kept = draws[(draws[:, :3] > y[:3]).all(1), 3]
    assert len(kept) > 300
    prediction = model.predict(query)
    assert prediction.mean - model._offset == pytest.approx(kept.mean(), abs=0.06)
    assert prediction.deviation == pytest.approx(kept.std(), rel=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_a_fixed_point_of_expectation_propagation(seed):
    """One more round by its textbook formulas, with the inverse of the whole covariance, changes nothing."""
    random = np.random.default_rng(seed)
    n, censored = 12, np.arange(12) < 3 + seed
    root = random.normal(size=(n, n))
    covariance, values = root @ root.T + np.eye(n), random.normal(size=n)
    centers, variances = mixed_model._fit_bounds(covariance, 0.0, values, censored, np.arange(n))
    own = np.zeros(n)
    own[censored] = variances
    observed = values.copy()
    observed[censored] = centers
    gain = np.linalg.inv(covariance + np.diag(own))
    for place, i in enumerate(np.flatnonzero(censored)):
        mean, variance = (covariance @ gain @ observed)[i], (covariance - covariance @ gain @ covariance)[i, i]
        left = 1.0 / (1.0 / variance - 1.0 / variances[place])
        cavity = stats.norm(left * (mean / variance - centers[place] / variances[place]), math.sqrt(left))
        bound = (values[i] - cavity.mean()) / cavity.std()
        above = stats.truncnorm(bound, np.inf, cavity.mean(), cavity.std())
        assert (mean, variance) == pytest.approx((above.mean(), above.var()), rel=1e-4)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.sampled_from([-1.0, 0.0, 2.0])), min_size=2, max_size=6))
def test_repeats_of_a_bound_share_a_row_and_change_no_prediction(kinds):
    """Against examples whose values differ too little to count, each of which has a row of its own."""
    rows = [
        TrainingExample((0.3 * place,), value, censored, "g", f"k{place % 2}", place)
        for place, (repeats, censored, value) in enumerate(kinds)
        for _ in range(repeats)
    ]
    apart = [dataclasses.replace(row, value=row.value + 1e-12 * place) for place, row in enumerate(rows)]
    query = TrainingExample((0.4,), group="g", shift_type="k0", condition="new")
    shared, single = MixedModel(rows).predict(query), MixedModel(apart).predict(query)
    assert (shared.mean, shared.deviation) == pytest.approx((single.mean, single.deviation), rel=1e-6)


def test_thousand_equal_bounds_need_matrices_of_one_row(monkeypatch):
    sizes, real = [], mixed_model.linalg.solve_triangular
    monkeypatch.setattr(
        mixed_model.linalg, "solve_triangular", lambda a, *b, **c: sizes.append(len(a)) or real(a, *b, **c)
    )
    MixedModel([TrainingExample((0.3,), 5.0, True, "g", "t", "c", "p")] * 1000)
    assert set(sizes) == {1}


def curves():
    return [CurveExample((1, 2, 4, 8), (0.5, 0.6, 0.7, 0.7 + 0.01 * n), 0.4, condition=n) for n in range(4)]


@pytest.mark.parametrize(
    ("model", "part", "rows"), [(MixedModel, "_covariance", simulated(2, 2)), (CurveModel, "_leave_fold_out", curves())]
)
def test_fit_uses_one_thread_and_restores_the_number(monkeypatch, model, part, rows):
    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    seen, real = [], getattr(model, part)
    monkeypatch.setattr(model, part, lambda *given: seen.append(threads()) or real(*given))
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        model(rows)
        assert threads() == before
    assert seen == [{1}] * len(seen) != []


def test_unnamed_shift_types_share_nothing():
    rows = [TrainingExample((0.0,), 1.0 + (i % 2), False, "g", None, i) for i in range(10)]
    by_type = Deviations(0.0, 0.0, (0.0, 1.0, 0.0, 0.0, 0.0, 0.0), 0.3)
    assert MixedModel(rows, by_type)._covariance(rows, rows) == pytest.approx(25.0 + np.eye(10))


def test_repeats_with_equal_values_can_be_fitted():
    """Repeats with equal costs once made a covariance that could not be inverted."""
    rows = [
        TrainingExample((x,), 2.0 + x, False, "g", k, f"{k}{x}")
        for x in (0.0, 1.0, 2.0)
        for k in "abcd"
        for _ in range(3)
    ]
    prediction = MixedModel(rows).predict(TrainingExample((1.0,), group="g", shift_type="a", condition="new"))
    assert prediction.mean == pytest.approx(3.0, abs=0.05)


def test_nonlinear_cost_is_fitted():
    """Flat below zero, steep above; a straight line is off by 0.7 at the corner."""
    random = np.random.default_rng(3)
    rows = [
        TrainingExample((x,), max(0.0, 3.0 * x) + 0.1 * random.normal(), False, "g", f"k{i % 4}", i)
        for i, x in enumerate(np.linspace(-1, 1, 24))
    ]
    model = MixedModel(rows, Deviations(0.8, 1.0, (0.5, 0.1, 0.1, 0.1, 0.1), 0.1))
    for x in (-0.8, 0.0, 0.8):
        assert model.predict(TrainingExample((x,), group="g", shift_type="new", condition="n")).mean == pytest.approx(
            max(0.0, 3.0 * x), abs=0.25
        )


def test_prediction_far_from_training_data_is_less_certain():
    model = MixedModel(simulated(4, 4, shift_type=0.1))
    near, far = (
        model.predict(TrainingExample((x, 0.0), group="g", shift_type="k0", condition="new")).deviation
        for x in (0.0, 6.0)
    )
    assert far > 1.2 * near


def test_censored_costs_are_lower_bounds():
    rows = [TrainingExample((x,), 2.0 * x, False, "g", "k", x) for x in np.linspace(0, 1, 12)]
    cut = [dataclasses.replace(e, value=min(e.value, 1.2), censored=e.value > 1.2) for e in rows]
    naive = [dataclasses.replace(e, censored=False) for e in cut]
    top = TrainingExample((1.0,), group="g", shift_type="k", condition="top")
    sure = Deviations(0.8, 0.2, (0.5, 0.1, 0.1, 0.1, 0.1), 0.1)
    truth, known, ignored = (MixedModel(each, sure).predict(top).mean for each in (rows, cut, naive))
    assert ignored < 1.6 < known
    assert known == pytest.approx(truth, abs=0.35)


def test_extrapolation_along_a_feature_that_hardly_varied_is_limited():
    """A head of 24 or 26 outputs is all that differs in size; a slope along that once predicted e^-134 steps."""
    sizes = 11.0, 11.001, 11.002
    rows = [TrainingExample((x,), 5.0 + 200.0 * (x - 11.0) + 0.1 * z, shift_type=k, condition=(x, k)) for x, k, z in (
        (sizes[0], "a", 0.3), (sizes[0], "b", -0.5), (sizes[1], "c", 0.1), (sizes[1], "d", 0.6), (sizes[2], "e", -0.2),
        (sizes[2], "f", -0.4))]  # fmt: skip
    model = MixedModel(rows)
    near, far = (model.predict(TrainingExample((x,), shift_type="new", condition="new")) for x in (10.998, 10.3))
    assert far.mean == near.mean
    assert 4.0 < far.mean < 5.0 < model.predict(TrainingExample((11.003,), shift_type="new", condition="new")).mean
    assert far.deviation == near.deviation

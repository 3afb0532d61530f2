"""The cost model against dense formulas and simulations."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize, stats
from threadpoolctl import threadpool_info, threadpool_limits

from resque.forecasting.cost_model import INTERCEPTS, CostModel, TrainingExample
from simulations import simulated


def test_gradient_of_objective_matches_finite_differences():
    model = CostModel(simulated(3, 3))
    at = model.log_deviations + 0.1
    numeric = optimize.approx_fprime(at, lambda a: model._objective(a)[0], 1e-6)
    assert model._objective(at)[1] == pytest.approx(numeric, abs=1e-3)


def test_objective_is_the_negative_log_posterior():
    """Against SciPy's densities, with kernels and priors written out."""
    rows = [dataclasses.replace(row, parent=f"p{i % 4}") for i, row in enumerate(simulated(3, 3))]
    features, y = np.array([row.features for row in rows]), np.array([row.log_cost for row in rows])
    standard = (features - features.mean(0)) / features.std(0)

    def same(*names):
        keys = [tuple(getattr(row, name) for name in names) for row in rows]
        return np.array([[float(one == other) for other in keys] for one in keys])

    kernels = [np.outer(column, column) for column in standard.T]
    kernels.append(np.array([[math.exp(-np.mean((one - other) ** 2) / 2) for other in standard] for one in standard]))
    kernels += [same("group"), same("shift_type"), same("group", "shift_type")]
    kernels += [same("group", "shift_type", "condition"), same("group", "parent"), np.eye(len(rows))]
    prior = [-0.7] * 3 + [0.0, -1.0, -1.0, -1.5, -1.5, -1.0]

    def oracle(log_deviations):
        weights = np.exp(2 * log_deviations)
        covariance = 25.0 + sum(weight * kernel for weight, kernel in zip(weights, kernels, strict=True))
        likelihood = stats.multivariate_normal.logpdf(y - np.median(y), cov=covariance)
        return -likelihood - stats.norm.logpdf(log_deviations, prior, 1.0).sum()

    model, random = CostModel(rows), np.random.default_rng(0)
    at = random.normal(-1.0, 1.0, (5, len(prior)))
    differences = np.diff([model._objective(each)[0] for each in at])
    assert differences == pytest.approx(np.diff([oracle(each) for each in at]), rel=1e-6)


def test_prediction_is_conditional_normal_distribution():
    """Against the joint covariance of all examples and the query, by the Schur complement of the precision."""
    rows = simulated(3, 3)
    model = CostModel(rows)
    query = TrainingExample((0.3, -1.0), math.nan, False, "g", "k1", "new")
    both = model._kernel_matrices([*rows, query], [*rows, query])
    weights = np.exp(2 * model.log_deviations)
    joint = 25.0 + np.tensordot(weights[:-1], both, 1) + weights[-1] * np.eye(len(rows) + 1)
    precision = np.linalg.inv(joint)
    y = np.array([example.log_cost for example in rows])
    y = y - np.median(y)
    mean = -precision[-1, :-1] @ y / precision[-1, -1] + np.median([example.log_cost for example in rows])
    prediction = model.predict(query)
    assert prediction.mean == pytest.approx(mean, rel=1e-6)
    assert prediction.deviation == pytest.approx(precision[-1, -1] ** -0.5, rel=1e-6)


def test_leaving_out_folds_equals_fit_without_them():
    rows = simulated(4, 3)
    model = CostModel(rows)
    for fold in ("k0", "k2"):
        out = np.array([example.shift_type == fold for example in rows])
        rest = CostModel.__new__(CostModel)
        rest.__dict__.update(model.__dict__)
        rest.examples = [example for example in rows if example.shift_type != fold]
        rest._values = model._values[~out]
        rest._precision = np.linalg.inv(model._covariance(model.log_deviations)[np.ix_(~out, ~out)])
        held = model.leave_fold_out_predictions([example.shift_type for example in rows])
        for place in np.flatnonzero(out):
            direct = rest.predict(rows[place])
            assert (held[place].mean, held[place].deviation) == pytest.approx((direct.mean, direct.deviation))
        query = TrainingExample((0.0, 0.0), shift_type="k1", group="g", condition="x")
        (prediction,), direct = model.predict_without([out], query), rest.predict(query)
        assert (prediction.mean, prediction.deviation) == pytest.approx((direct.mean, direct.deviation))


def test_useless_feature_gets_no_slope():
    model = CostModel(simulated(8, 6))
    useful, useless = model.log_deviations[:2]
    assert useful > useless + 1.0
    flat, steep = (model.predict(TrainingExample((x, 0.0), group="g", shift_type="new")).mean for x in (-1.0, 1.0))
    assert steep - flat == pytest.approx(2.0, abs=0.4)
    a, b = (model.predict(TrainingExample((0.0, x), group="g", shift_type="new")).mean for x in (-1.0, 1.0))
    assert abs(b - a) < 0.3


def test_unseen_shift_type_adds_variance_between_shift_types():
    model = CostModel(simulated(12, 6, shift_type=1.0, noise=0.2))
    seen = model.predict(TrainingExample((0.0, 0.0), group="g", shift_type="k3", condition="new"))
    unseen = model.predict(TrainingExample((0.0, 0.0), group="g", shift_type="fog", condition="new"))
    assert unseen.deviation == pytest.approx(math.hypot(1.0, 0.2), rel=0.35)
    assert seen.deviation < 0.5 * unseen.deviation


def test_nonlinear_cost_is_fitted():
    """Flat below zero, steep above; a straight line is off by 0.7 at the corner."""
    random = np.random.default_rng(3)
    rows = [
        TrainingExample((x,), max(0.0, 3.0 * x) + 0.1 * random.normal(), False, "g", f"k{i % 4}", i)
        for i, x in enumerate(np.linspace(-1, 1, 24))
    ]
    model = CostModel(rows)
    for x in (-0.8, 0.0, 0.8):
        assert model.predict(TrainingExample((x,), group="g", shift_type="new", condition="n")).mean == pytest.approx(
            max(0.0, 3.0 * x), abs=0.25
        )


def test_prediction_far_from_training_data_is_less_certain():
    model = CostModel(simulated(4, 4, shift_type=0.1))
    near, far = (
        model.predict(TrainingExample((x, 0.0), group="g", shift_type="k0", condition="new")).deviation
        for x in (0.0, 6.0)
    )
    assert far > 1.2 * near


def test_censored_costs_are_lower_bounds():
    rows = [TrainingExample((x,), 2.0 * x, False, "g", "k", x) for x in np.linspace(0, 1, 12)]
    cut = [dataclasses.replace(e, log_cost=min(e.log_cost, 1.2), censored=e.log_cost > 1.2) for e in rows]
    naive = [dataclasses.replace(e, censored=False) for e in cut]
    top = TrainingExample((1.0,), group="g", shift_type="k", condition="top")
    truth, known, ignored = (CostModel(each).predict(top).mean for each in (rows, cut, naive))
    assert ignored < 1.6 < known
    assert known == pytest.approx(truth, abs=0.35)


def test_fit_uses_one_thread_and_restores_the_number(monkeypatch):
    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    seen, cost = [], CostModel._objective
    monkeypatch.setattr(CostModel, "_objective", lambda model, at: seen.append(threads()) or cost(model, at))
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        CostModel(simulated(2, 2))
        assert threads() == before
    assert seen == [{1}] * len(seen) != []


def test_unnamed_shift_types_share_nothing():
    rows = [TrainingExample((0.0,), 1.0 + (i % 2), False, "g", None, i) for i in range(10)]
    parts = CostModel(rows)._kernel_matrices(rows, rows)
    assert (parts[-len(INTERCEPTS) + INTERCEPTS.index("shift_type")] == np.eye(10)).all()


def test_extrapolation_along_a_feature_that_hardly_varied_is_limited():
    """A head of 24 or 26 outputs is all that differs in size; a slope along that once predicted e^-134 steps."""
    sizes = 11.0, 11.001, 11.002
    rows = [TrainingExample((x,), 5.0 + 200.0 * (x - 11.0) + 0.1 * z, shift_type=k, condition=(x, k)) for x, k, z in (
        (sizes[0], "a", 0.3), (sizes[0], "b", -0.5), (sizes[1], "c", 0.1), (sizes[1], "d", 0.6), (sizes[2], "e", -0.2),
        (sizes[2], "f", -0.4))]  # fmt: skip
    model = CostModel(rows)
    near, far = (model.predict(TrainingExample((x,), shift_type="new", condition="new")) for x in (10.998, 10.3))
    assert far.mean == near.mean
    assert 4.0 < far.mean < 5.0 < model.predict(TrainingExample((11.003,), shift_type="new", condition="new")).mean
    assert far.deviation == near.deviation


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_model_with_given_variances_predicts_like_the_model_that_estimated_them(share):
    rows = simulated(6, 4)
    rows = [dataclasses.replace(row, censored=number < share * len(rows)) for number, row in enumerate(rows)]
    found = CostModel(rows)
    given = CostModel(rows, found.log_deviations)
    query = TrainingExample((0.5, -0.5), shift_type="new", group="g")
    assert (given.log_deviations == found.log_deviations).all()
    assert given.predict(query).mean == pytest.approx(found.predict(query).mean, abs=1e-9 if not share else 0.05)


def test_costs_without_noise_can_be_fitted():
    """Repeats with equal costs once made a covariance that could not be inverted."""
    rows = [
        TrainingExample((x,), 2.0 + x, False, "g", k, f"{k}{x}")
        for x in (0.0, 1.0, 2.0)
        for k in "abcd"
        for _ in range(3)
    ]
    prediction = CostModel(rows).predict(TrainingExample((1.0,), group="g", shift_type="a", condition="new"))
    assert prediction.mean == pytest.approx(3.0, abs=0.05)
    assert prediction.deviation < 0.1

"""The mixed model of log cost, against dense formulas and simulations; intervals against what they promise."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize, stats
from threadpoolctl import threadpool_info, threadpool_limits

from resque.forecasting.cost_model import NAMES, CostModel, NormalPrediction, TrainingExample
from resque.forecasting.intervals import PredictiveDistribution, held_out_errors, predict

DRAWS = stats.t(7).rvs(2_000_000, random_state=1)


def simulated(n_kinds=6, levels=5, seeds=2, shift_type=0.5, noise=0.3, seed=0, slopes=(1.0, 0.0)):
    random = np.random.default_rng(seed)
    found = []
    for k in range(n_kinds):
        offset = shift_type * random.normal()
        for level in range(levels):
            x = random.normal(size=len(slopes))
            mean = 3.0 + float(x @ slopes) + offset
            found += [
                TrainingExample(tuple(x), mean + noise * random.normal(), False, "g", f"k{k}", f"k{k}:{level}")
                for _ in range(seeds)
            ]
    return found


def test_the_gradient_of_the_likelihood_is_its_gradient():
    law = CostModel(simulated(3, 3))
    at = law.amplitudes + 0.1
    numeric = optimize.approx_fprime(at, lambda a: law._cost(a)[0], 1e-6)
    assert law._cost(at)[1] == pytest.approx(numeric, abs=1e-3)


def test_what_is_said_is_the_conditional_normal_distribution():
    """Against the covariance of all examples and the asked one together, by the Schur complement of the precision."""
    past = simulated(3, 3)
    law = CostModel(past)
    asked = TrainingExample((0.3, -1.0), math.nan, False, "g", "k1", "new")
    both = law._parts([*past, asked], [*past, asked])
    weights = np.exp(2 * law.amplitudes)
    joint = 25.0 + np.tensordot(weights[:-1], both, 1) + weights[-1] * np.eye(len(past) + 1)
    precision = np.linalg.inv(joint)
    y = np.array([example.log_cost for example in past])
    y = y - np.median(y)
    mean = -precision[-1, :-1] @ y / precision[-1, -1] + np.median([example.log_cost for example in past])
    said = law.expected(asked)
    assert said.mean == pytest.approx(mean, rel=1e-6)
    assert said.deviation == pytest.approx(precision[-1, -1] ** -0.5, rel=1e-6)


def test_leaving_out_is_what_is_learned_without():
    past = simulated(4, 3)
    law = CostModel(past)
    for fold in ("k0", "k2"):
        out = np.array([example.shift_type == fold for example in past])
        rest = CostModel.__new__(CostModel)
        rest.__dict__.update(law.__dict__)
        rest.examples = [example for example in past if example.shift_type != fold]
        rest._values = law._values[~out]
        rest._inverse = np.linalg.inv(law._covariance(law.amplitudes)[np.ix_(~out, ~out)])
        held = law.held_out([example.shift_type for example in past])
        for place in np.flatnonzero(out):
            direct = rest.expected(past[place])
            assert (held[place].mean, held[place].deviation) == pytest.approx((direct.mean, direct.deviation))
        asked = TrainingExample((0.0, 0.0), shift_type="k1", group="g", condition="x")
        (found,), direct = law.without([out], asked), rest.expected(asked)
        assert (found.mean, found.deviation) == pytest.approx((direct.mean, direct.deviation))


def test_a_feature_that_earns_nothing_gets_no_slope():
    law = CostModel(simulated(8, 6))
    useful, useless = law.amplitudes[:2]
    assert useful > useless + 1.0
    flat, steep = (law.expected(TrainingExample((x, 0.0), group="g", shift_type="new")).mean for x in (-1.0, 1.0))
    assert steep - flat == pytest.approx(2.0, abs=0.4)
    a, b = (law.expected(TrainingExample((0.0, x), group="g", shift_type="new")).mean for x in (-1.0, 1.0))
    assert abs(b - a) < 0.3


def test_a_kind_never_seen_is_less_certain_by_what_lies_between_kinds():
    law = CostModel(simulated(12, 6, shift_type=1.0, noise=0.2))
    seen = law.expected(TrainingExample((0.0, 0.0), group="g", shift_type="k3", condition="new"))
    unseen = law.expected(TrainingExample((0.0, 0.0), group="g", shift_type="fog", condition="new"))
    assert unseen.deviation == pytest.approx(math.hypot(1.0, 0.2), rel=0.35)
    assert seen.deviation < 0.5 * unseen.deviation


def test_a_cost_that_bends_is_followed():
    """Nearly level where a gap is closed, steep where it is not; a straight line is off by .7 at the corner."""
    random = np.random.default_rng(3)
    past = [
        TrainingExample((x,), max(0.0, 3.0 * x) + 0.1 * random.normal(), False, "g", f"k{i % 4}", i)
        for i, x in enumerate(np.linspace(-1, 1, 24))
    ]
    law = CostModel(past)
    for x in (-0.8, 0.0, 0.8):
        assert law.expected(TrainingExample((x,), group="g", shift_type="new", condition="n")).mean == pytest.approx(
            max(0.0, 3.0 * x), abs=0.25
        )


def test_far_from_all_others_nothing_is_sure():
    law = CostModel(simulated(4, 4, shift_type=0.1))
    near, far = (
        law.expected(TrainingExample((x, 0.0), group="g", shift_type="k0", condition="new")).deviation
        for x in (0.0, 6.0)
    )
    assert far > 1.2 * near


def test_censored_runs_count_as_longer():
    past = [TrainingExample((x,), 2.0 * x, False, "g", "k", x) for x in np.linspace(0, 1, 12)]
    cut = [dataclasses.replace(e, log_cost=min(e.log_cost, 1.2), censored=e.log_cost > 1.2) for e in past]
    naive = [dataclasses.replace(e, censored=False) for e in cut]
    top = TrainingExample((1.0,), group="g", shift_type="k", condition="top")
    truth, known, ignored = (CostModel(each).expected(top).mean for each in (past, cut, naive))
    assert ignored < 1.6 < known
    assert known == pytest.approx(truth, abs=0.35)


def test_a_fit_needs_one_thread_and_leaves_the_number_as_it_was(monkeypatch):
    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    seen, cost = [], CostModel._cost
    monkeypatch.setattr(CostModel, "_cost", lambda law, at: seen.append(threads()) or cost(law, at))
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        CostModel(simulated(2, 2))
        assert threads() == before
    assert seen == [{1}] * len(seen) != []


def test_unnamed_kinds_share_nothing():
    past = [TrainingExample((0.0,), 1.0 + (i % 2), False, "g", None, i) for i in range(10)]
    parts = CostModel(past)._parts(past, past)
    assert (parts[-len(NAMES) + NAMES.index("shift_type")] == np.eye(10)).all()


def test_a_normal_distribution_is_read_both_ways():
    said = NormalPrediction(2.0, 0.5)
    assert said.below(2.0) == 0.5
    assert said.below(said.quantile(0.9)) == pytest.approx(0.9)


@pytest.mark.parametrize("known", [True, False])
def test_intervals_hold_as_often_as_they_say(known):
    """80 % nominal; 200 draws, standard error 2.8 points."""
    hits = above = 0
    for seed in range(200):
        past = simulated(6, 4, 1, shift_type=0.5, noise=0.3, seed=seed)
        *history, asked = past
        if not known:
            history = [example for example in history if example.shift_type != asked.shift_type]
        found = predict(CostModel(history), asked, [True] * len(history), known, 0.8)
        hits += found.low <= asked.log_cost <= found.high
        above += asked.log_cost <= found.upper
        assert found.conformal == known
    assert 0.72 < hits / 200 < 0.92
    assert 0.72 < above / 200 < 0.92


def test_an_error_of_a_censored_run_is_at_least_its_bound():
    past = simulated(4, 4)
    past[0] = dataclasses.replace(past[0], censored=True, log_cost=past[0].log_cost - 5.0)
    past[1] = dataclasses.replace(past[1], censored=True, log_cost=past[1].log_cost + 5.0)
    z = held_out_errors(CostModel(past), [example.condition for example in past])
    assert z[0] == 0.0
    assert z[1] > 2.0


def test_the_chance_is_students():
    past = simulated(5, 4)
    asked = TrainingExample((0.0, 0.0), shift_type="new", group="g")
    found = predict(CostModel(past), asked, [True] * len(past), False, 0.8)
    assert found.chance(found.center) == pytest.approx(0.5)
    assert found.chance(found.high) == pytest.approx(0.9)
    assert found.freedom == 4
    assert found.upper - found.center == pytest.approx(found.expected.deviation * stats.t.ppf(0.8, 4))


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.85, 0.95, 1.0])
@pytest.mark.parametrize("longest", [-3.0, 0.0, 1.0, 9.0])
def test_what_is_said_of_steps_and_the_chance_are_one_distribution(chance, longest):
    """Against a sample: runs that arrive by the law, cut off at the longest; the others last that long."""
    found = PredictiveDistribution(0.0, -1.5, 1.5, 1.0, False, NormalPrediction(0.0, 1.0), 7)
    said = found.until(longest, chance, 0.8)
    arriving = DRAWS[longest >= DRAWS]
    assert said.center == pytest.approx(np.median(arriving), abs=0.02 if len(arriving) > 1e5 else 0.1)
    for share, end in ((0.1, said.low), (0.9, said.high), (0.8, said.upper)):
        expected = longest if share >= chance else np.quantile(arriving, share / chance)
        expected = min(expected, np.quantile(DRAWS, share)) if share < 0.5 else expected
        if (share < 0.5 and expected > said.center) or (share > 0.5 and expected < said.center):
            expected = said.center
        assert end == pytest.approx(expected, abs=0.05 if len(arriving) > 1e5 else 0.15)
    assert said.low <= said.center <= min(said.high, said.upper)


def test_what_the_law_rules_out_comes_as_late_as_it_can():
    found = PredictiveDistribution(0.0, -1.5, 1.5, 1.0, False, NormalPrediction(0.0, 1e-9), 200)
    assert found.until(-5.0, 0.9, 0.8).center == -5.0


def test_what_hardly_varied_does_not_lead_far_away():
    """A head of 24 or 26 outputs is all that differs in size; a slope along that once said e^-134 steps."""
    sizes = 11.0, 11.001, 11.002
    past = [TrainingExample((x,), 5.0 + 200.0 * (x - 11.0) + 0.1 * z, shift_type=k, condition=(x, k)) for x, k, z in (
        (sizes[0], "a", 0.3), (sizes[0], "b", -0.5), (sizes[1], "c", 0.1), (sizes[1], "d", 0.6), (sizes[2], "e", -0.2),
        (sizes[2], "f", -0.4))]  # fmt: skip
    law = CostModel(past)
    near, far = (law.expected(TrainingExample((x,), shift_type="new", condition="new")) for x in (10.998, 10.3))
    assert far.mean == near.mean
    assert 4.0 < far.mean < 5.0 < law.expected(TrainingExample((11.003,), shift_type="new", condition="new")).mean
    assert far.deviation == near.deviation


@pytest.mark.parametrize("far", [0.45, 1.2, 9.0])
def test_what_is_harder_than_all_is_not_said_to_be_easy(far):
    """A middle that follows a deviation without end once fell to the first step."""
    past = [
        TrainingExample((0.3 + 0.002 * i,), 5.0 + 0.02 * i + 0.1 * (i % 3), shift_type=f"k{i % 4}", condition=i)
        for i in range(16)
    ]
    law, longest = CostModel(past), math.log(1000.0)
    within, beyond = (
        predict(law, TrainingExample((x,), shift_type="new", condition="new"), [True] * 16, False, 0.8)
        for x in (0.33, far)
    )
    known, said = (each.until(longest, each.chance(longest), 0.8) for each in (within, beyond))
    assert known.center - 0.3 < said.center <= longest
    assert said.low <= said.center <= said.upper <= said.high + 1e-9
    assert beyond.expected.deviation > within.expected.deviation


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_law_of_given_variances_says_what_the_law_says_that_found_them(share):
    past = simulated(6, 4)
    past = [dataclasses.replace(row, censored=number < share * len(past)) for number, row in enumerate(past)]
    found = CostModel(past)
    given = CostModel(past, found.amplitudes)
    asked = TrainingExample((0.5, -0.5), shift_type="new", group="g")
    assert (given.amplitudes == found.amplitudes).all()
    assert given.expected(asked).mean == pytest.approx(found.expected(asked).mean, abs=1e-9 if not share else 0.05)


def test_costs_without_any_noise_can_be_learned():
    """Repeats that agree to the last step once made a covariance that could not be inverted."""
    past = [
        TrainingExample((x,), 2.0 + x, False, "g", k, f"{k}{x}")
        for x in (0.0, 1.0, 2.0)
        for k in "abcd"
        for _ in range(3)
    ]
    said = CostModel(past).expected(TrainingExample((1.0,), group="g", shift_type="a", condition="new"))
    assert said.mean == pytest.approx(3.0, abs=0.05)
    assert said.deviation < 0.1

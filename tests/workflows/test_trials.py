"""A way that a comparison tries, as a row: its accuracy at the end, what it keeps, and the doubt of its chance."""

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_forecast, synthetic_update
from resque.energy.price import Tariff
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT
from resque.ledger.components import MEASURED
from resque.ledger.records import Estimate, Pilot
from resque.training.recipe import Recipe, recipe_to_dict
from resque.types import Interval
from resque.workflows.trials import Trial
from resque.workflows.ways import ALL, Way

UPDATE = synthetic_update("u", index=0.3, steps=100)
SHARES = st.floats(0.0, 1.0)


def trial(*, pilot=None, before=None, recipe=None, **forecast):
    """A way with a forecast of it, on an original model whose accuracy was ``before``."""
    recipe = recipe or Recipe()
    source = SimpleNamespace(candidate=SimpleNamespace(license_price=0.0), name="m")
    start = SimpleNamespace(source=source, original_accuracy=before)
    job = SimpleNamespace(recipe=recipe, train=range(10))
    made = dataclasses.replace(synthetic_forecast(UPDATE), recipe=recipe_to_dict(recipe), pilot=pilot, **forecast)
    return Trial(Way(ALL, "all", recipe), start, job, made)


def piloted(kept=None, stopped_by=None):
    """A pilot that kept so much of the original accuracy."""
    return Pilot(50, 0, "", UPDATE.curve, UPDATE.energy, 0.1, stopped_by, kept, 1.0)


@given(
    bounds=st.lists(SHARES, min_size=3, max_size=3).map(sorted),
    ends=st.booleans(),
    settings=st.sampled_from([{}, {"fixed_epochs": 3}, {"trains": "norm"}]),
)
def test_accuracy_of_a_way_is_that_at_its_end(bounds, ends, settings):
    """At most the target, unless it was measured, the recipe goes on, or it is a single pass."""
    low, value, high = bounds
    best = Estimate(value, Interval(low, high, 0.8, ""))
    pilot = piloted(stopped_by="target") if ends else None
    recipe = Recipe(**settings)
    found = trial(pilot=pilot, recipe=recipe, best_accuracy=best).option(Tariff()).accuracy
    at_most = 1.0 if settings else 0.9
    expected = 3 * (pilot.curve.accuracy[-1],) if ends else tuple(min(each, at_most) for each in bounds)
    assert (found.interval.low, found.value, found.interval.high) == expected


@given(before=st.none() | SHARES, expected=st.none() | SHARES, kept=st.none() | SHARES, ended=st.booleans())
def test_what_a_way_keeps_is_at_most_what_its_pilot_kept(before, expected, kept, ended):
    pilot = None if kept is None else piloted(kept, "target" if ended else None)
    option = trial(pilot=pilot, before=before, expected_forgetting=expected).option(Tariff())
    known = None if before is None or expected is None else max(0.0, before - expected)
    if kept is not None and ended:
        assert (option.original_accuracy, option.original_known) == (kept, MEASURED)
    elif kept is None and known is None:
        assert (option.original_accuracy, option.original_known) == (None, None)
    else:
        assert option.original_accuracy == min(each for each in (kept, known) if each is not None)
        by = BY_PILOT if kept is not None and (known is None or kept <= known) else BY_HISTORY
        assert option.original_known == by


FEW, HARD = "bundled updates only: try `--pilot 100`, or do a few", "extrapolation: harder than all own updates: try it"


@pytest.mark.parametrize(
    ("issues", "first"), [((), ""), ((FEW,), FEW), ((HARD,), HARD), ((FEW, HARD), HARD), ((HARD, FEW), HARD)]
)
@pytest.mark.parametrize("is_piloted", [False, True])
def test_chance_is_doubted_where_the_forecast_is_not_reliable(issues, first, is_piloted):
    """With a pilot the whole reason counts; without, the advice to make one is of no use."""
    made = trial(pilot=piloted() if is_piloted else None, reliability_issues=issues)
    assert made.option(Tariff()).doubt == (first if is_piloted else first.rpartition(": ")[0])
    assert made.is_extrapolated == (first == HARD)  # thin evidence does not decide which pilots are made

"""What an update would have cost with another target."""

import dataclasses

import pytest

from doubles import synthetic_update
from resque.energy.grid import Grid


def test_cost_of_a_lower_target_shares_energy_by_time_and_the_rest_by_steps():
    update = synthetic_update("u", index=0.1, steps=40)
    curve = dataclasses.replace(update.curve, wall_s=(0.0, 0.3, 0.32, 0.36, 0.5))
    cost = dataclasses.replace(update.cost, wall_s=0.5, energy_kwh=2e-3, samples=1000, flops=8e9)
    update = dataclasses.replace(update, curve=curve, cost=cost, grid=Grid("TST", 400.0, "a table", pue=1.5))
    half = update.cost_at(0.7)  # half the steps, and more than half of the time
    assert (half.steps, half.epochs, half.samples, half.flops) == (20, 2.0, 500, 4e9)
    assert half.wall_s == 0.32
    assert half.energy_kwh == pytest.approx(2e-3 * 0.32 / 0.5)
    assert half.carbon_kg == pytest.approx(1.5 * 0.4 * half.energy_kwh)
    assert (half.gradient_norm, half.gradient_norm_last_batch) == (
        curve.gradient_norm[2],
        curve.gradient_norm_last_batch[2],
    )
    assert half.parameter_change == curve.parameter_change[2]
    whole = update.cost_at(0.9)
    assert (whole.wall_s, whole.energy_kwh, whole.flops) == (0.5, 2e-3, 8e9)
    assert update.cost_at(0.95) is None


def test_cost_of_a_lower_target_is_unknown_where_the_run_s_is_and_zero_for_no_step():
    update = synthetic_update("u", index=0.1, steps=40)
    unknown = dataclasses.replace(update.cost, energy_kwh=None, samples=None, flops=None)
    curve = dataclasses.replace(update.curve, steps_per_epoch=None)
    found = dataclasses.replace(update, cost=unknown, curve=curve).cost_at(0.7)
    assert (found.energy_kwh, found.samples, found.flops, found.epochs, found.carbon_kg) == (None,) * 5
    at_once = update.cost_at(0.5)
    assert (at_once.steps, at_once.wall_s, at_once.energy_kwh, at_once.samples) == (0, 0.0, 0.0, 0)
    timeless = dataclasses.replace(update, cost=dataclasses.replace(update.cost, wall_s=0.0))
    assert timeless.cost_at(0.7).energy_kwh == 0.0

"""Synthetic histories whose steps follow a power law of the index, and forecasts from them."""

import math

import numpy as np

from doubles import synthetic_update
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.forecasting.forecaster import forecast_from_features
from resque.ledger.records import Features, StepCost

READING = EnergyReading(1.0, 2e-6, {"cpu": 2e-6}, {"cpu": "measured"}, "replay")
STEP_COST = StepCost(wall_s=0.02, energy_kwh=1e-7, steps=50, reading=READING)
GRID = Grid("TST", 500.0, "test")


def power_law(index: float, noise: float = 0.0) -> int:
    return max(1, round(1000 * index**2 * math.exp(noise)))


def history(n=12, spread=0.2, types=("gaussian", "blur"), seed=0, never=()):
    generator = np.random.default_rng(seed)
    indices = np.geomspace(0.2, 0.9, n)
    return [
        synthetic_update(
            f"u{i}",
            index=index,
            steps=power_law(index, spread * generator.normal()),
            shift_type=types[i % len(types)],
            reached=i not in never,
        )
        for i, index in enumerate(indices)
    ]


def forecast_for(updates, job, index=0.5, accuracy=0.6, **options):
    features = Features(index, accuracy, 1.0)
    given = {"step_cost": STEP_COST, "overhead": READING, "parent": "p", "grid": GRID, **options}
    return forecast_from_features(updates, job, features, **given)

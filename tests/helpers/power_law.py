"""Synthetic histories whose steps follow a power law of the index, and forecasts from them."""

import dataclasses
import math

import numpy as np

from doubles import synthetic_update
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.forecasting.forecaster import forecast_from_features
from resque.ledger.records import Features, LearningCurve, StepCost

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


def forecast_for(updates, job, index=0.5, accuracy=0.6, scores=None, features=None, **options):
    features = features or Features(index, accuracy, 1.0, scores=scores or {})
    given = {"step_cost": STEP_COST, "overhead": READING, "parent": "p", "grid": GRID, **options}
    return forecast_from_features(updates, job, features, **given)


def runs(n, pace=40.0, seed=0):
    """Runs that end by themselves at accuracies between .8 and .97, which a refit head nearly reaches, too."""
    generator = np.random.default_rng(seed)
    made = []
    for i in range(n):
        best, speed = generator.uniform(0.8, 0.97), pace * math.exp(0.4 * generator.normal())
        steps = (0, *(10 * k for k in range(1, 16)), *(200, 300, 450, 700, 1000))
        accuracy = tuple(best - (best - 0.5) / (1.0 + (step / speed) ** 1.5) for step in steps)
        update = synthetic_update(f"r{i}", index=0.5, steps=1000, shift_type=f"k{i % 5}", reached=False)
        scores = {"adapted refit": float(best + 0.005 * generator.normal())}
        times, nothing = tuple(0.01 * step for step in steps), (None,) * len(steps)
        norms = tuple(0.1 * step for step in steps)
        curve = LearningCurve(steps, accuracy, nothing, times, norms, norms, tuple(0.001 * s for s in steps), 10)
        features = dataclasses.replace(update.features, scores=scores)
        made.append(dataclasses.replace(update, features=features, curve=curve))
    return made

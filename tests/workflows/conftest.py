"""Fixtures of the tests of whole jobs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from calibrated import NET, TARGET
from doubles import ReplayMeter
from resque.data.loading import load_data
from resque.energy.grid import Grid
from resque.indices.compute_profile import profile
from resque.ledger.bundled import bundled_updates
from resque.models.loading import load_model
from resque.models.weights import save_weights
from resque.training.recipe import Recipe
from resque.workflows.calibration_defaults import split_for_calibration
from resque.workflows.calibration_plan import CalibrationPlan, plan_calibration
from resque.workflows.calibration_request import CalibrationRequest


@pytest.fixture
def short_history(monkeypatch):
    """A sixth of the bundled history, whose fits take seconds."""
    some = tuple(bundled_updates()[::6])
    calibration = ("workflows.calibration_choice", "workflows.calibration_training", "workflows.calibration_outcome")
    for module in ("workflows.forecast", "forecasting.landmarking", *calibration):
        monkeypatch.setattr(f"resque.{module}.bundled_updates", lambda: some)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny network's code, and its weights after it was trained on the digits."""
    place = tmp_path_factory.mktemp("net")
    (place / "net.py").write_text(NET)
    model = load_model(f"{place}/net.py:build")
    digits = load_data("digits")
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.01), torch.Generator().manual_seed(0)
    for _ in range(8):
        order = torch.randperm(880, generator=generator)
        for inputs, labels in digits.part("train").part("original").batches(32, order=order):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    save_weights(model, place / "net.safetensors")
    return place / "net.py", place / "net.safetensors"


@pytest.fixture
def model(trained) -> nn.Module:
    return load_model(f"{trained[0]}:build", trained[1])


@pytest.fixture(scope="session")
def plan(trained) -> CalibrationPlan:
    model = load_model(f"{trained[0]}:build", trained[1])
    original, train, test = split_for_calibration(load_data("digits"))
    recipe = Recipe(learning_rate=3e-3, max_epochs=3, evaluate_every=3)
    request = CalibrationRequest(
        train, test, profile(model, original.batches()), (0.7, TARGET), recipe, updates=5, model_name="net"
    )
    return plan_calibration(model, request, meter=ReplayMeter(), grid=Grid("given", 50.0, "test"))


@pytest.fixture
def few_bundled(monkeypatch) -> None:
    """A part of the bundled history, whose fits take a second."""
    every = bundled_updates()
    some = (*every[::20], *[each for each in every if each.features.task_index is not None][::10])
    for module in ("workflows.compare", "forecasting.landmarking"):
        monkeypatch.setattr(f"resque.{module}.bundled_updates", lambda: some)

"""The retraining job of the forecasting tests."""

import pytest

from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe


@pytest.fixture
def job(small):
    return RetrainingJob(*small, 0.9, Recipe(max_epochs=100), shift_type="gaussian")

"""Fixtures of the tests of whole jobs."""

import pytest

from resque.ledger.bundled import bundled_updates


@pytest.fixture
def short_history(monkeypatch):
    """A sixth of the bundled history, whose fits take seconds."""
    some = tuple(bundled_updates()[::6])
    for module in ("workflows.forecast", "forecasting.landmarking"):
        monkeypatch.setattr(f"resque.{module}.bundled_updates", lambda: some)

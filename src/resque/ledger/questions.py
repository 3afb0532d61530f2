"""Which forecasts are still waiting for their update: of a question that was asked again, the newest."""

import json
from collections.abc import Iterable, Sequence

from resque.ledger.records import Forecast, Update

__all__ = ["waiting_forecasts"]


def waiting_forecasts(forecasts: Sequence[Forecast], settled: Iterable[tuple[Forecast, Update]]) -> list[Forecast]:
    """Return the newest forecast of each question, unless an update has settled it or an equal one since.

    Forecasts are of one question if they are for one model, data, recipe and target.

    Args:
        forecasts: Forecasts, oldest first; settled ones may be among them.
        settled: Settled forecasts with their updates.

    Example:
        >>> waiting_forecasts([], [])
        []
    """
    newest = {_question(forecast): forecast for forecast in forecasts}
    answered = {forecast.id for forecast, _ in settled}
    for forecast, update in settled:
        last = newest.get(_question(forecast))
        if last is not None and last.created_utc < update.created_utc:
            answered.add(last.id)
    open_ids = {forecast.id for forecast in newest.values()} - answered
    return [forecast for forecast in forecasts if forecast.id in open_ids]


def _question(forecast: Forecast) -> tuple[object, ...]:
    data = forecast.train_data, forecast.test_data, forecast.replay_data, forecast.shift_type
    return forecast.parent, *data, forecast.target_accuracy, json.dumps(dict(forecast.recipe), sort_keys=True)

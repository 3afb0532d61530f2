"""Forecast the price of an update: training, evaluation, and asking once.

It is the definition by which updates are priced and forecasts settled (:func:`resque.energy.price.price_of`).
"""

import dataclasses
from collections.abc import Mapping

from resque.energy.price import Spending, Tariff, price_of
from resque.ledger.records import Estimate, Forecast
from resque.training.evaluation_steps import EvaluationSchedule, evaluation_steps
from resque.types import Interval

__all__ = ["forecast_price", "price_estimate", "price_with_labels", "priced"]


def forecast_price(forecast: Forecast, tariff: Tariff) -> Estimate | None:
    """Return the price of an update: of training, evaluation, and asking once.

    Bounds are sums of bounds, because training and evaluation grow with the steps. A pilot is a part of the training,
    because the update goes on from it.

    Args:
        forecast: Forecast of the update.
        tariff: Prices of energy and machine time; labels are left out, see :func:`price_with_labels`.

    Returns:
        Price in the tariff's currency; None without prices, or if a priced part is unknown. Forecasts of earlier
        versions know the time of an evaluation from a pilot alone.

    Example:
        >>> from resque.energy.reading import EnergyReading
        >>> from resque.ledger.records import Features, StepCost
        >>> reading = EnergyReading(360.0, None, {}, {}, "clock")
        >>> hour = Estimate(3600.0, Interval(1800.0, 7200.0, 0.8, ""), 5400.0)
        >>> hours = Forecast(
        ...     "f", "", "m", "p", "d", "t", None, {}, 0.9, Features(None, 0.5, 1.0, evaluation_s=180.0), "",
        ...     {"steps": hour, "wall_s": hour}, 0.9, 9, (), 9000, StepCost(1.0, None, 5, reading), reading, None,
        ... )  # fmt: skip
        >>> round(forecast_price(hours, Tariff(per_hour=2.0)).value, 9)  # an hour, two evaluations, and the question
        2.4
    """
    training, asked = price_estimate(forecast.estimates, tariff), forecast.asking(continued=True)
    steps, asking = forecast.estimates.get("steps"), price_of(tariff, [asked])
    if training is None or asking is None or steps is None:
        return None

    def total(of_training: float | None, count: float | None) -> float | None:
        if of_training is None or count is None:
            return None
        evaluation = _evaluation(forecast, count)
        price = None if evaluation is None else price_of(tariff, [evaluation])
        return None if price is None else of_training + price + asking

    value, low = total(training.value, steps.value), total(training.interval.low, steps.interval.low)
    if value is None or low is None:
        return None
    high = total(training.interval.high, steps.interval.high)
    interval = dataclasses.replace(training.interval, low=low, high=high)
    return Estimate(value, interval, total(training.upper, steps.upper))


def priced(forecast: Forecast, tariff: Tariff) -> Forecast:
    """Return the forecast with its price by a tariff; as it is without prices."""
    if not tariff.is_given:
        return forecast
    return dataclasses.replace(forecast, tariff=tariff, price=forecast_price(forecast, tariff))


def price_estimate(estimates: Mapping[str, Estimate], tariff: Tariff) -> Estimate | None:
    """Return the price of time and energy of the training alone, see :func:`resque.forecasting.price.forecast_price`.

    Bounds are sums of bounds, because both costs grow with the steps.

    Args:
        estimates: Forecasts of the costs, by name.
        tariff: Price per hour and per kWh.

    Returns:
        Price in the tariff's currency; None without a tariff, or if a priced cost has no forecast.

    Example:
        >>> hour = Estimate(3600.0, Interval(1800.0, 7200.0, 0.8, ""), 5400.0)
        >>> price_estimate({"wall_s": hour}, Tariff(per_hour=2.0)).upper
        3.0
    """
    wall_s, energy_kwh = estimates.get("wall_s"), estimates.get("energy_kwh")
    if wall_s is None or not (tariff.per_kwh or tariff.per_hour) or (tariff.per_kwh and energy_kwh is None):
        return None
    time = wall_s.map(lambda seconds: tariff.per_hour * seconds / 3600.0)
    if energy_kwh is None:
        return time
    energy = energy_kwh.map(lambda kwh: tariff.per_kwh * kwh)

    def total(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one + other

    low, high = time.interval.low + energy.interval.low, total(time.interval.high, energy.interval.high)
    interval = dataclasses.replace(wall_s.interval, low=low, high=high)
    return Estimate(time.value + energy.value, interval, total(time.upper, energy.upper))


def price_with_labels(forecast: Forecast, tariff: Tariff, fees: float | None = None) -> Estimate | None:
    """Return the price of an update and of what is paid beside it.

    Args:
        forecast: Forecast of the update.
        tariff: Prices; a label without a price adds nothing.
        fees: Price of labels and license; None takes that of the labels that its data lack.

    Returns:
        Price in the tariff's currency; None where :func:`forecast_price` has none, unless labels alone have a price.
    """
    fees = fees or tariff.price_of_labels(forecast.missing_labels.total)
    price = forecast_price(forecast, tariff)
    if fees is None:
        return price
    if price is None and not (tariff.per_kwh or tariff.per_hour):
        return Estimate(fees, Interval(fees, fees, forecast.level, "the fees are known"), fees)
    return price and price.map(lambda amount: amount + fees)


def _evaluation(forecast: Forecast, steps: float) -> Spending | None:
    """Return what the evaluations of a run of so many steps take, at the power of its steps; None if unknown."""
    pilot, estimates, each_s = forecast.pilot, forecast.estimates, forecast.features.evaluation_s
    if pilot is not None:
        each_s = pilot.evaluation_s / len(pilot.curve.steps)
    if each_s is None:
        return None
    recipe = EvaluationSchedule(forecast.recipe.get("evaluate_every"), forecast.recipe.get("evaluate_growth", 0.0))
    epochs = estimates["epochs"].value if "epochs" in estimates else 0.0
    per_epoch = max(1, round(estimates["steps"].value / epochs)) if epochs else forecast.max_steps
    done = -1 if pilot is None else pilot.steps
    seconds = each_s * sum(step > done for step in evaluation_steps(min(steps, forecast.max_steps), per_epoch, recipe))
    seconds += 0.0 if pilot is None else pilot.evaluation_s
    return Spending(seconds, None if (power := _power(forecast)) is None else power * seconds)


def _power(forecast: Forecast) -> float | None:
    """Return the mean power of the training in kWh per second; None if it is unknown."""
    wall_s, energy_kwh = forecast.estimates["wall_s"], forecast.estimates.get("energy_kwh")
    if energy_kwh is not None and wall_s.value:
        return energy_kwh.value / wall_s.value
    return None if (kwh := forecast.step_cost.energy_kwh) is None else kwh / forecast.step_cost.wall_s

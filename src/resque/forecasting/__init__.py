"""Cost forecasts: cost model, prediction intervals, budget and evaluation."""

"""Evaluate forecasts: metrics, settlement against measured updates, cross-validation."""

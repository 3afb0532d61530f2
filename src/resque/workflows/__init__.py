"""Whole jobs: forecasts, updates, calibration runs, recording, the demo, many runs at once."""

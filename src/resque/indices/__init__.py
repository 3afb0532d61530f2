"""Indices of a shift or a new task from forward passes: RESQUE_dist, RESQUE_task, baselines, features of an update."""

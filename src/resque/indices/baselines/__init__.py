"""Baselines of the index: transferability scores and shift distances."""

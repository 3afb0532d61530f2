"""Classifiers by name, weights, layers and heads, feature extraction."""

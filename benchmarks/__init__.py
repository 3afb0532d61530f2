"""How fast resque is, beside its neighbors: ``python -m benchmarks``."""

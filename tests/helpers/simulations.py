"""Simulated training data for the cost model."""

import numpy as np

from resque.forecasting.mixed_model import TrainingExample


def simulated(n_types=6, levels=5, seeds=2, shift_type=0.5, noise=0.3, seed=0, slopes=(1.0, 0.0)):
    """Draw log costs from a linear mixed model with random intercepts of the shift types."""
    random = np.random.default_rng(seed)
    examples = []
    for k in range(n_types):
        offset = shift_type * random.normal()
        for level in range(levels):
            x = random.normal(size=len(slopes))
            mean = 3.0 + float(x @ slopes) + offset
            examples += [
                TrainingExample(tuple(x), mean + noise * random.normal(), False, "g", f"k{k}", f"k{k}:{level}")
                for _ in range(seeds)
            ]
    return examples

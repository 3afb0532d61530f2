"""Measure how far runs of one condition differ: what no forecast of the condition can avoid."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from resque._plain import Serializable
from resque.forecasting.history import update_group
from resque.ledger.records import Update

__all__ = ["SeedVariability", "seed_variability"]


@dataclass(frozen=True)
class SeedVariability(Serializable):
    """Variability of the steps between runs of one condition: same data, model name and recipe, another seed.

    The replicate error is that of a forecast which says what another run took. It holds the noise of both. The noise
    about the condition's mean is the error of a forecaster who knows that mean. For n runs with logs of steps x, the
    mean of their logs is m, and the noise of each is ``sqrt(n / (n - 1)) (x - m)``: m lies nearer to its own runs than
    the true mean does, and the factor undoes that. It is a reference, not a bound.

    Attributes:
        pairs: Number of ordered pairs of runs.
        replicate_factor: Median over pairs of the larger over the smaller; None without pairs.
        replicate_error: Median over pairs of ``|a - b| / b``; None without pairs.
        runs: Number of runs of conditions with two or more.
        noise_factor: Median factor between a run and its condition's mean; None without pairs.
        noise_error: Median of ``|mean - steps| / steps``, from the same noise; None without pairs.
    """

    pairs: int
    replicate_factor: float | None
    replicate_error: float | None
    runs: int
    noise_factor: float | None
    noise_error: float | None


def seed_variability(history: Sequence[Update], target_accuracy: float) -> SeedVariability:
    """Measure the variability of the steps between the runs of each condition that reached the target.

    Two runs of the same model and seed are the same run, and the first one counts.

    Args:
        history: Finished updates.
        target_accuracy: Target accuracy at which steps are read.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> found = seed_variability(bundled_updates(), target_accuracy=0.8)
        >>> found.pairs, round(found.replicate_error, 2), found.runs, round(found.noise_error, 2)
        (1932, 0.33, 423, 0.3)
    """
    conditions: dict[Hashable, dict[Hashable, float]] = defaultdict(dict)
    for update in history:
        at = update.curve.first_at(target_accuracy)
        if at is not None and update.curve.steps[at] and update.seed is not None:
            runs = conditions[update_group(update), update.train_data]
            runs.setdefault((update.parent, update.seed), math.log(update.curve.steps[at]))
    repeated = [[*runs.values()] for runs in conditions.values() if len(runs) > 1]
    differences = [a - b for logs in repeated for a, b in itertools.permutations(logs, 2)]
    noise = [
        math.sqrt(len(logs) / (len(logs) - 1)) * (statistics.fmean(logs) - each) for logs in repeated for each in logs
    ]
    return SeedVariability(len(differences), *_medians(differences), len(noise), *_medians(noise))


def _medians(log_errors: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the median factor and the median relative error of log errors; None without any."""
    if not log_errors:
        return None, None
    factor = math.exp(statistics.median(map(abs, log_errors)))
    return factor, statistics.median(abs(math.expm1(error)) for error in log_errors)

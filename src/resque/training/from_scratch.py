"""Retraining beside training from scratch: the same target and data, every cost as a ratio (the paper's Fig. 1 and 3).

Each pair has a seed of its own: of the order of the samples, and of the random weights of the model from scratch. A run
that never reached the target would have cost more, so its ratio is a bound and says so.
"""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from resque.errors import SettingError
from resque.ledger.records import COSTS, Update
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe

COMPARED = (*COSTS, "flops")


@dataclass(frozen=True)
class CostRatio:
    """A cost of retraining over the same from scratch.

    Attributes:
        median: Over the seeds.
        low: The least.
        high: The greatest.
        n: Seeds that have both costs.
        bound: Empty; ``"at most"`` where a run from scratch never reached the target, ``"at least"`` where a retraining
            did not.
    """

    median: float
    low: float
    high: float
    n: int
    bound: str = ""


@dataclass(frozen=True)
class ScratchComparison:
    """Retrainings beside trainings from scratch, seed by seed.

    Attributes:
        retrained: One update a seed.
        scratch: The same seeds from random weights.
    """

    retrained: tuple[Update, ...]
    scratch: tuple[Update, ...]

    @property
    def ratios(self) -> dict[str, CostRatio | None]:
        """Cost → retraining over scratch; None where it was not measured, or where both sides missed the target."""
        missed = [not all(update.reached for update in side) for side in (self.retrained, self.scratch)]
        bound = {(False, False): "", (False, True): "at most", (True, False): "at least"}.get((missed[0], missed[1]))
        return {cost: None if bound is None else self._ratio(cost, bound) for cost in COMPARED}

    def _ratio(self, cost: str, bound: str) -> CostRatio | None:
        pairs = [
            (getattr(a.cost, cost), getattr(b.cost, cost)) for a, b in zip(self.retrained, self.scratch, strict=True)
        ]
        found = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
        return CostRatio(statistics.median(found), min(found), max(found), len(found), bound) if found else None


def compare_with_scratch(
    model: nn.Module,
    fresh: Callable[[int], nn.Module],
    job: RetrainingJob,
    seeds: Sequence[int],
    run: Callable[[nn.Module, RetrainingJob], Update],
    recipe: Recipe | None = None,
) -> ScratchComparison:
    """Retrain a model, and train the same architecture from scratch to the same target, once a seed.

    Args:
        model: The model as it is now; left as it is.
        fresh: Seed → the architecture with random weights.
        job: The retraining.
        seeds: At least one; the spread over them is the only one that is known.
        run: What does and measures one, e.g. ``functools.partial(resque.retrain, meter=meter)``.
        recipe: For scratch; None takes the paper's rates for the same optimizer, see :meth:`Recipe.from_scratch`.

    Raises:
        SettingError: No seed.

    Example:
        >>> import functools
        >>> from resque import load_data, load_model, retrain
        >>> from resque.energy.meters import ClockMeter
        >>> digits = load_data("digits@16px")
        >>> job = RetrainingJob(digits.part("train"), digits.part("test"), 0.5)
        >>> build = functools.partial(load_model, "resque.networks:small_cnn", None)
        >>> learned = build(7)
        >>> _ = retrain(learned, dataclasses.replace(job, recipe=job.recipe.from_scratch()), meter=ClockMeter())
        >>> found = compare_with_scratch(learned, build, job, [0], functools.partial(retrain, meter=ClockMeter()))
        >>> found.ratios["steps"].median, found.scratch[0].from_scratch
        (0.0, True)
    """
    if not seeds:
        raise SettingError("no seed: expected at least one, three to see a spread")
    retrained, scratch = [], []
    for seed in seeds:
        own = dataclasses.replace(job, seed=seed)
        retrained.append(run(copy.deepcopy(model), own))
        other = dataclasses.replace(own, recipe=recipe or job.recipe.from_scratch(), from_scratch=True)
        scratch.append(run(fresh(seed), other))
    return ScratchComparison(tuple(retrained), tuple(scratch))

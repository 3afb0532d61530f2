"""Compare retraining with training from scratch to the same target: every cost as a ratio (the paper's Fig. 1 and 3).

Each seed gives one pair of runs; it sets the data order, and the random weights of the model from scratch. A run that
never reached the target would have cost more, so the ratio is a bound, and is marked as one.
"""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from resque._display import Display, Displayable
from resque._format import COST_NAMES, NOT_MEASURED, format_cost, format_share
from resque.data.spec import shorten_data
from resque.errors import SettingError
from resque.ledger.records import COSTS, Update
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe

__all__ = ["CostRatio", "ScratchComparison", "compare_with_scratch"]

_COMPARED = (*COSTS, "flops")
_BOUNDS = {(True, True): "", (True, False): "at most", (False, True): "at least"}


@dataclass(frozen=True)
class CostRatio:
    """Ratio of a cost of retraining to the same cost from scratch.

    Attributes:
        median: Median over the seeds.
        low: Minimum over the seeds.
        high: Maximum over the seeds.
        n: Number of seeds with both costs.
        bound: ``"at most"`` if a run from scratch did not reach the target, ``"at least"`` if a retraining did not;
            empty if all runs did.
    """

    median: float
    low: float
    high: float
    n: int
    bound: str = ""


@dataclass(frozen=True)
class ScratchComparison(Displayable):
    """Retrainings and trainings from scratch, one pair per seed.

    Attributes:
        retrained: Updates of the retrained model.
        scratch: Updates from random weights, for the same seeds.
    """

    retrained: tuple[Update, ...]
    scratch: tuple[Update, ...]

    @property
    def ratios(self) -> dict[str, CostRatio | None]:
        """Ratio of each cost; None if it was not measured, or if neither arm always reached the target."""
        reached = all(update.reached for update in self.retrained), all(update.reached for update in self.scratch)
        bound = _BOUNDS.get(reached)
        return {cost: None if bound is None else self._ratio(cost, bound) for cost in _COMPARED}

    def _ratio(self, cost: str, bound: str) -> CostRatio | None:
        pairs = [
            (getattr(a.cost, cost), getattr(b.cost, cost)) for a, b in zip(self.retrained, self.scratch, strict=True)
        ]
        ratios = [retrained / scratch for retrained, scratch in pairs if retrained is not None and scratch]
        return CostRatio(statistics.median(ratios), min(ratios), max(ratios), len(ratios), bound) if ratios else None

    def _display(self) -> Display:
        arms = {"retrained": self.retrained, "from scratch": self.scratch}
        rows = []
        for cost, ratio in self.ratios.items():
            value = span = NOT_MEASURED
            if ratio is not None:
                value, span = f"{ratio.bound} {ratio.median:.3g}", f"{ratio.low:.3g}–{ratio.high:.3g}, n = {ratio.n}"
            rows.append((COST_NAMES[cost], *(_median(cost, arm) for arm in arms.values()), value.strip(), span))
        lines = [_arm_sentence(name, arm) for name, arm in arms.items()]
        if not any(self.ratios.values()):
            lines.append("no ratios: in both arms a run missed the target, so neither cost is known")
        first = self.retrained[0]
        data = f"{shorten_data(first.train_data)} to accuracy {first.target_accuracy:g}"
        columns = "cost (median)", *arms, "ratio", "range"
        return Display(f"Retraining compared with training from scratch: {data}", columns, rows, lines)


def _median(cost: str, updates: Sequence[Update]) -> str:
    """Return the median of a cost over the updates of one arm; a dash if it was not measured for all of them."""
    values = [getattr(update.cost, cost) for update in updates]
    return format_cost(cost, None if None in values else statistics.median(values))


def _arm_sentence(name: str, updates: Sequence[Update]) -> str:
    """Return how many runs of one arm reached the target, why the others stopped, and their best accuracies."""
    reached = format_share(sum(update.reached for update in updates), len(updates))
    reasons = ", ".join(sorted({update.stopped_by for update in updates if not update.reached}))
    stopped = f" (the others stopped by {reasons})" if reasons else ""
    best = ", ".join(f"{update.peak_accuracy:.4f}" for update in updates)
    return f"{name}: target reached in {reached} runs{stopped}; best accuracy {best}"


def compare_with_scratch(
    model: nn.Module,
    fresh: Callable[[int], nn.Module],
    job: RetrainingJob,
    seeds: Sequence[int],
    run: Callable[[nn.Module, RetrainingJob], Update],
    recipe: Recipe | None = None,
) -> ScratchComparison:
    """Retrain a model, and train its architecture from scratch to the same target, once per seed.

    Args:
        model: Model to retrain; unchanged.
        fresh: Function of a seed that returns the architecture with random weights.
        job: Job of the retraining.
        seeds: Seeds, at least one.
        run: Function that does and measures one run, e.g. ``functools.partial(resque.retrain, meter=meter)``.
        recipe: Recipe from scratch; None takes :meth:`Recipe.from_scratch` of the job's.

    Raises:
        SettingError: There is no seed.

    Example:
        >>> import functools
        >>> from resque import load_data, load_model, retrain
        >>> from resque.energy.meters import ClockMeter
        >>> digits = load_data("digits@16px")
        >>> job = RetrainingJob(digits.part("train"), digits.part("test"), 0.5)
        >>> build = functools.partial(load_model, "resque.networks:small_cnn", None)
        >>> trained = build(7)
        >>> _ = retrain(trained, dataclasses.replace(job, recipe=job.recipe.from_scratch()), meter=ClockMeter())
        >>> comparison = compare_with_scratch(trained, build, job, [0], functools.partial(retrain, meter=ClockMeter()))
        >>> comparison.ratios["steps"].median, comparison.scratch[0].from_scratch
        (0.0, True)
    """
    if not seeds:
        raise SettingError("no seed: expected at least one, three to see a spread")
    retrained, scratch = [], []
    for seed in seeds:
        retraining = dataclasses.replace(job, seed=seed)
        training = dataclasses.replace(retraining, recipe=recipe or job.recipe.from_scratch(), from_scratch=True)
        retrained.append(run(copy.deepcopy(model), retraining))
        scratch.append(run(fresh(seed), training))
    return ScratchComparison(tuple(retrained), tuple(scratch))

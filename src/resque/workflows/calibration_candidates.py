"""Candidates of calibration runs: synthetic shifts that start below a target, measured on a few hundred samples.

A shift that starts near the target may start on the other side of it on all of the data.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.data.shifts import LEVELS, parse_shift
from resque.errors import DataError
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.profile import Profile
from resque.models.inference import device_of
from resque.training.evaluation import evaluate_dataset

__all__ = [
    "Candidate", "ShowProgress", "applicable_shifts", "log_gap", "screen_shifts", "select_around",
    "select_spread",
]  # fmt: skip

ShowProgress = Callable[[int, int, str], None]
"""Callback with ``(done, total, detail)``."""
_MIN_SAMPLES, _SAMPLES_PER_CLASS = 256, 5
_SHIFT_TYPES = ("gaussian", "blur", "salt_pepper", "rotation", "contrast", "jpeg", "bit_depth", "desaturate")
_CHANNELS = {"jpeg": (1, 3), "desaturate": (3, 4)}
_SMALLEST_GAP = 1e-3


@dataclass(frozen=True)
class Candidate:
    """A shift with which the model starts below the target.

    Attributes:
        shift: Shift type and level, e.g. ``"gaussian:5"``.
        index_rad: RESQUE_dist of the shift, in radians.
        accuracy: Accuracy of the model on shifted test data.
        gap: Log of the distance from there to the accuracy below which a shift is a candidate.
    """

    shift: str
    index_rad: float
    accuracy: float
    gap: float

    @property
    def shift_type(self) -> str:
        """Type of the shift."""
        return self.shift.partition(":")[0]


def log_gap(accuracy: float, target: float) -> float:
    """Return the log of the distance to a target, on which the cost of an update depends almost linearly.

    Example:
        >>> round(log_gap(0.5, 0.9), 3)
        -0.916
    """
    return math.log(max(target - accuracy, _SMALLEST_GAP))


def applicable_shifts(data: LabeledDataset) -> list[str]:
    """Return the shifts for calibration runs that apply to these images: eight types, each at every level.

    Each prefix of the list has every type, at levels that lie apart.

    Raises:
        DataError: The data are not images, or have values outside [0, 1].

    Example:
        >>> from resque.data.loading import load_data
        >>> len(applicable_shifts(load_data("digits"))), len(applicable_shifts(load_data("digits@rgb")))
        (70, 80)
    """
    if not (isinstance(data.inputs, Tensor) and data.inputs.ndim == 4):
        raise DataError(
            f"{data.name} holds no images, and synthetic shifts need images: build a history with `resque retrain` "
            "on your own new data"
        )
    low, high = float(data.images.min()), float(data.images.max())
    if data.images.is_floating_point() and not 0.0 <= low <= high <= 1.0:
        raise DataError(
            f"{data.name}: values from {low:.3g} to {high:.3g}; synthetic shifts are of images in [0, 1]: leave the "
            "normalization to the model"
        )
    channels = data.images.shape[1]
    types = [name for name in _SHIFT_TYPES if channels in _CHANNELS.get(name, (channels,))]
    levels = sorted(LEVELS, key=lambda level: (7 * level % len(LEVELS), level))  # 10, 3, 6, 9, 2, …
    return [f"{name}:{level}" for level in levels for name in types]


def screen_shifts(
    model: nn.Module,
    train: LabeledDataset,
    test: LabeledDataset,
    original: Profile,
    below: float,
    on_progress: ShowProgress = lambda done, total, detail: None,
    goes_on: Callable[[], bool] = lambda: True,
) -> tuple[list[Candidate], int]:
    """Return the shifts with which the model starts below an accuracy, and the number of shifts that were evaluated.

    Args:
        model: Model to retrain; unchanged.
        train: Training data to shift, for the index.
        test: Test data to shift, for the accuracy.
        original: Profile of the data that the model was trained on.
        below: Accuracy below which a shift starts.
        on_progress: Callback with ``(done, total, detail)``.
        goes_on: Whether there is time for another shift.
    """
    limit = max(_MIN_SAMPLES, _SAMPLES_PER_CLASS * len(train.classes))
    train_subset, test_subset = train.limited(limit), test.limited(limit)
    names, candidates, done = applicable_shifts(train), [], 0
    for done, name in enumerate(names, start=1):
        on_progress(done - 1, len(names), f"evaluating {name}")
        shift = parse_shift(name)
        accuracy, _ = evaluate_dataset(model, test_subset.shifted(shift))
        if accuracy < below:
            index = _index(model, train_subset.shifted(shift), original)
            candidates.append(Candidate(name, index, accuracy, log_gap(accuracy, below)))
        if not goes_on():
            break
    return candidates, done


def _index(model: nn.Module, data: LabeledDataset, original: Profile) -> float:
    origin = original.origin
    shifted = profile(
        model,
        data.batches(device=device_of(model)),
        origin.layer,
        origin.reduction,
        classes=data.classes,
        preprocessing=data.preprocessing if origin.preprocessing else "",
    )
    return resque_dist(original, shifted, undefined="skip").value


def select_spread(candidates: Iterable[Candidate], n: int) -> tuple[Candidate, ...]:
    """Select shifts that span the starting gaps, spread as evenly over the shift types as the candidates allow.

    The selection is greedy, and starts with the smallest gap. Each next shift is of a type selected least often so far,
    and of these the one whose log gap is farthest from all selected ones (farthest-point sampling). Every prefix of the
    selection therefore spans the gaps, too.

    Args:
        candidates: Shifts in any order.
        n: Number of shifts to select; all are returned if there are fewer.

    Example:
        >>> mild, medium, strong = (Candidate(f"blur:{level}", 0.1, 0.8, 0.1 * level) for level in (1, 2, 3))
        >>> [candidate.shift for candidate in select_spread([medium, strong, mild], 2)]
        ['blur:1', 'blur:3']
    """
    left = sorted(candidates, key=lambda candidate: (candidate.gap, candidate.shift))
    selected: list[Candidate] = []

    def distance(candidate: Candidate) -> float:
        return min((abs(candidate.gap - other.gap) for other in selected), default=-candidate.gap)

    while left and len(selected) < n:
        best = max(_of_rarest_type(left, selected), key=distance)
        selected.append(best)
        left.remove(best)
    return tuple(selected)


def select_around(candidates: Iterable[Candidate], n: int, gap: float) -> tuple[Candidate, ...]:
    """Select shifts whose starting gaps surround a given one: in turn an easier and a harder one, of many types.

    Args:
        candidates: Shifts in any order.
        n: Number of shifts to select; all are returned if there are fewer.
        gap: Log gap to surround.

    Example:
        >>> shifts = [Candidate(f"blur:{level}", 0.1, 0.8, 0.1 * level) for level in range(1, 8)]
        >>> [candidate.shift for candidate in select_around(shifts, 4, gap=0.42)]
        ['blur:4', 'blur:5', 'blur:3', 'blur:6']
    """
    left = sorted(candidates, key=lambda candidate: (abs(candidate.gap - gap), candidate.shift))
    selected: list[Candidate] = []
    while left and len(selected) < n:
        harder = len(selected) % 2 == 1
        side = [candidate for candidate in left if (candidate.gap >= gap) == harder]
        best = _of_rarest_type(side or left, selected)[0]
        selected.append(best)
        left.remove(best)
    return tuple(selected)


def _of_rarest_type(left: Sequence[Candidate], selected: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of the types that were selected least often, in their order."""
    counts = Counter(candidate.shift_type for candidate in selected)
    fewest = min(counts[candidate.shift_type] for candidate in left)
    return [candidate for candidate in left if counts[candidate.shift_type] == fewest]

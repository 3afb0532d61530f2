"""Select synthetic shifts for calibration runs: those that start below a target, spread over the RESQUE index.

Index and accuracy of a shift are measured on a few hundred samples. A shift that starts near the target may therefore
start on the other side of it on all of the data.
"""

from collections import Counter
from collections.abc import Callable, Iterable
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

__all__ = ["Candidate", "ShowProgress", "applicable_shifts", "select_spread", "shifts_below_target"]

ShowProgress = Callable[[int, int, str], None]
"""Callback with ``(done, total, detail)``."""
_MIN_SAMPLES, _SAMPLES_PER_CLASS = 256, 5
_SHIFT_TYPES = ("gaussian", "blur", "salt_pepper", "rotation", "contrast", "jpeg", "bit_depth", "desaturate")
_CHANNELS = {"jpeg": (1, 3), "desaturate": (3, 4)}


@dataclass(frozen=True)
class Candidate:
    """A shift with which the model starts below the target.

    Attributes:
        shift: Shift type and level, e.g. ``"gaussian:5"``.
        index_rad: RESQUE_dist of the shift, in radians.
        accuracy: Accuracy of the model on shifted test data.
    """

    shift: str
    index_rad: float
    accuracy: float

    @property
    def shift_type(self) -> str:
        """Type of the shift."""
        return self.shift.partition(":")[0]


def applicable_shifts(data: LabeledDataset) -> list[str]:
    """Return the shifts for calibration runs that apply to these images: eight types, each at every level.

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
    return [f"{name}:{level}" for name in types for level in LEVELS]


def shifts_below_target(
    model: nn.Module,
    train: LabeledDataset,
    test: LabeledDataset,
    original: Profile,
    target_accuracy: float,
    on_progress: ShowProgress = lambda done, total, detail: None,
) -> list[Candidate]:
    """Return the shifts with which the model starts below the target.

    Args:
        model: Model to retrain; unchanged.
        train: Training data to shift, for the index.
        test: Test data to shift, for the accuracy.
        original: Profile of the data that the model was trained on.
        target_accuracy: Target accuracy of the retrainings.
        on_progress: Callback with ``(done, total, detail)``.
    """
    limit = max(_MIN_SAMPLES, _SAMPLES_PER_CLASS * len(train.classes))
    train_subset, test_subset, origin = train.limited(limit), test.limited(limit), original.origin
    names, candidates = applicable_shifts(train), []
    for done, name in enumerate(names):
        on_progress(done, len(names), f"evaluating {name}")
        shift = parse_shift(name)
        accuracy, _ = evaluate_dataset(model, test_subset.shifted(shift))
        if accuracy >= target_accuracy:
            continue
        shifted = profile(
            model,
            train_subset.shifted(shift).batches(device=device_of(model)),
            origin.layer,
            origin.reduction,
            classes=train_subset.classes,
            preprocessing=train_subset.preprocessing if origin.preprocessing else "",
        )
        candidates.append(Candidate(name, resque_dist(original, shifted, undefined="skip").value, accuracy))
    return candidates


def select_spread(candidates: Iterable[Candidate], n: int) -> tuple[Candidate, ...]:
    """Select shifts that span the index, spread as evenly over the shift types as the candidates allow.

    The selection is greedy, and starts with the smallest index. Each next shift is of a type selected least often so
    far, and of these the one whose index is farthest from all selected ones (farthest-point sampling). Every prefix of
    the selection therefore spans the index, too, and calibration runs can be stopped early or extended.

    Args:
        candidates: Shifts in any order.
        n: Number of shifts to select; all are returned if there are fewer.

    Example:
        >>> mild, medium, strong = (Candidate(f"blur:{level}", 0.1 * level, 0.5) for level in (1, 2, 3))
        >>> [candidate.shift for candidate in select_spread([medium, strong, mild], 2)]
        ['blur:1', 'blur:3']
    """
    left = sorted(candidates, key=lambda candidate: (candidate.index_rad, candidate.shift))
    selected: list[Candidate] = []

    def distance(candidate: Candidate) -> float:
        distances = (abs(candidate.index_rad - other.index_rad) for other in selected)
        return min(distances, default=-candidate.index_rad)

    while left and len(selected) < n:
        counts = Counter(candidate.shift_type for candidate in selected)
        fewest = min(counts[candidate.shift_type] for candidate in left)
        best = max((candidate for candidate in left if counts[candidate.shift_type] == fewest), key=distance)
        selected.append(best)
        left.remove(best)
    return tuple(selected)

"""Synthetic shifts that a history can be made of: which begin below a target, and which of them span the index.

Known from passes over some hundred samples each; a shift that begins near the target may do so on one side of it there
and on the other on all of the data.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.data.shifts import LABEL_SHIFTS, LEVELS, SHIFT_TYPES, parse_shift
from resque.errors import DataError
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.profile import Profile
from resque.models.inference import device_of
from resque.training.evaluation import evaluate_dataset

_SAMPLES, _PER_CLASS = 256, 5
_CHANNELS = {"jpeg": (1, 3), "desaturate": (3, 4)}
Watch = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Candidate:
    """A shift that brings the model below the target, as some hundred samples tell.

    Attributes:
        shift: Kind and level, ``"gaussian:5"``.
        index_rad: RESQUE_dist, radians.
        accuracy: Of the model on shifted test data.
    """

    shift: str
    index_rad: float
    accuracy: float

    @property
    def shift_type(self) -> str:
        """Kind of shift."""
        return self.shift.partition(":")[0]


def all_shifts(data: LabeledDataset) -> list[str]:
    """Every kind and level of shift that keeps labels, as far as these images can have it.

    Raises:
        DataError: The data hold no images, or values outside [0, 1].

    Example:
        >>> from resque.data.loading import load_data
        >>> len(all_shifts(load_data("digits"))), len(all_shifts(load_data("digits@rgb")))
        (70, 80)
    """
    if not (isinstance(data.inputs, Tensor) and data.inputs.ndim == 4):
        raise DataError(
            f"{data.name} holds no images, which synthetic shifts are made of: make the history with `resque retrain` "
            "on new data of yours"
        )
    images = data.images
    low, high = float(images.min()), float(images.max())
    if images.is_floating_point() and not 0.0 <= low <= high <= 1.0:
        raise DataError(
            f"{data.name}: values from {low:.3g} to {high:.3g}; synthetic shifts are of images in [0, 1]: leave the "
            "normalisation to the model"
        )
    channels = images.shape[1]
    kinds = [kind for kind in SHIFT_TYPES if kind not in LABEL_SHIFTS and channels in _CHANNELS.get(kind, (channels,))]
    return [f"{kind}:{level}" for kind in kinds for level in LEVELS]


def candidates(
    model: nn.Module,
    train: LabeledDataset,
    test: LabeledDataset,
    original: Profile,
    target_accuracy: float,
    on_progress: Watch = lambda done, total, detail: None,
) -> list[Candidate]:
    """Which shifts begin below the target.

    Args:
        model: As it is now.
        train: To be shifted, for the index.
        test: To be shifted, for the accuracy.
        original: Profile of the data that the model was trained on.
        target_accuracy: Of the retrainings.
        on_progress: Called with ``(done, all, detail)``.
    """
    most = max(_SAMPLES, _PER_CLASS * len(train.classes))
    some, tested, origin, found = train.limited(most), test.limited(most), original.origin, []
    names = all_shifts(train)
    for done, name in enumerate(names):
        on_progress(done, len(names), f"looking at {name}")
        shift = parse_shift(name)
        accuracy, _ = evaluate_dataset(model, tested.shifted(shift))
        if accuracy >= target_accuracy:
            continue
        seen = profile(
            model,
            some.shifted(shift).batches(device=device_of(model)),
            origin.layer,
            origin.reduction,
            classes=some.classes,
            preprocessing=some.preprocessing if origin.preprocessing else "",
        )
        found.append(Candidate(name, resque_dist(original, seen, undefined="skip").value, accuracy))
    return found


def select_spread(candidates: Iterable[Candidate], n: int) -> tuple[Candidate, ...]:
    """Choose shifts that span the index, as evenly over the kinds as there are candidates.

    One after the other: of the kinds that were taken least often so far, the shift whose index lies farthest from all
    that are taken; the mildest is the first. So every beginning of the choice spans the index, too, and a campaign that
    is cut short or made longer keeps what it has.

    Args:
        candidates: In any order.
        n: How many; fewer come back where there are fewer.

    Example:
        >>> mild, middle, strong = (Candidate(f"blur:{level}", 0.1 * level, 0.5) for level in (1, 2, 3))
        >>> [candidate.shift for candidate in select_spread([middle, strong, mild], 2)]
        ['blur:1', 'blur:3']
    """
    left = sorted(candidates, key=lambda candidate: (candidate.index_rad, candidate.shift))
    taken: list[Candidate] = []

    def distance(candidate: Candidate) -> float:
        away = (abs(candidate.index_rad - other.index_rad) for other in taken)
        return min(away, default=-candidate.index_rad)

    while left and len(taken) < n:
        times = Counter(candidate.shift_type for candidate in taken)
        fewest = min(times[candidate.shift_type] for candidate in left)
        best = max((candidate for candidate in left if times[candidate.shift_type] == fewest), key=distance)
        taken.append(best)
        left.remove(best)
    return tuple(taken)

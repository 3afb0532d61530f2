"""Estimate RESQUE_dist from as few samples as a precision needs.

The pass reads random samples in rounds, half as many again each time, and ends after the first round whose interval is
within the precision. The schedule of rounds is fixed beforehand by the numbers of samples alone. Each of its K looks
has the level ``level^(1/K)``. So all intervals together hold with the nominal level, however the estimates at the looks
are correlated (Šidák, Journal of the American Statistical Association 62, 1967), and with it the last one.

With true labels each class is a stratum, and as many samples are read of each, because each counts alike in the index.
With pseudo-labels, which only the pass tells, the order is simply random, and no pass ends before each class of the
original data was predicted once: what a class that is rare adds to the index is not known before.

The estimate is of the plain index that a full pass over the same data would give. It is made from the sample without
the angle that the missing samples would otherwise add (:mod:`resque.indices.sampled_angles`).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from resque.data.dataset import BATCH, Inputs
from resque.data.random_access import IndexedDataset
from resque.energy.clock import now
from resque.errors import DataError, SettingError, UndefinedDirectionError
from resque.indices.angles import noise_floor
from resque.indices.class_sums import HALVES, ClassSums, ScratchBuffer
from resque.indices.compute_profile import check_labels, default_reduction
from resque.indices.distribution import UNITS, check_options, resque_dist
from resque.indices.profile import Origin, Profile, check_finite
from resque.indices.results import DistributionIndex, Sampling
from resque.indices.sampled_angles import GROUPS, GroupSums, estimate_sampled
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import representation_layer
from resque.models.weights import check_weights, fingerprint
from resque.types import Interval

__all__ = ["Precision", "SamplingOptions", "sample_index"]

_FIRST = 4 * GROUPS  # samples of each class in the first round
_GROWTH = 1.5
_GUARANTEE = "approximate; covers the index that a full pass would give, at all looks together"
_PIECE = 4096  # samples in memory at a time
_Observe = Callable[[Inputs], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Precision:
    """Half width of the interval at which a pass ends: it is enough that one of the two bounds holds.

    Attributes:
        relative: Share of the index; None for no such bound.
        radians: Angle; None for no such bound.

    Example:
        >>> Precision.parse("0.03"), Precision.parse("0.03,0.002rad")
        (Precision(relative=0.03, radians=None), Precision(relative=0.03, radians=0.002))
    """

    relative: float | None
    radians: float | None

    @classmethod
    def parse(cls, text: str | float) -> "Precision":
        """Return the precision of ``"0.03"`` (3 % of the index), ``"0.002rad"``, ``"0.001pi"``, or two with a comma.

        Raises:
            SettingError: It is none of these.
        """
        found: dict[str, float] = {}
        for part in str(text).split(","):
            unit = next((unit for unit in UNITS if part.endswith(unit)), "")
            try:
                value = float(part.removesuffix(unit)) * UNITS.get(unit, 1.0)
            except ValueError:
                value = math.nan
            name = "radians" if unit else "relative"
            if not 0.0 < value < (math.pi if unit else 1.0) or name in found:
                raise SettingError(
                    f"precision {str(text)[:40]!r}: expected a share of the index such as 0.03, an angle such as "
                    "0.002rad, or both: 0.03,0.002rad"
                )
            found[name] = value
        return cls(found.get("relative"), found.get("radians"))

    def holds(self, value: float, reach: float) -> bool:
        """Return whether an index is known well enough, both in radians."""
        return reach <= max((self.relative or 0.0) * value, self.radians or 0.0)


@dataclass(frozen=True)
class SamplingOptions:
    """How an index is sampled. Layer, reduction, labels, unit, undefined and level are those of the plain index.

    Attributes:
        precision: Half width of the interval at which the pass ends, see :meth:`Precision.parse`.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions on the shifted data.
        layer: Module name; None takes the profile's, else the paper's layer.
        reduction: How a representation is flattened; None takes the profile's, else the default.
        unit: ``"rad"``, or ``"pi"`` for fractions of pi.
        undefined: Treatment of a class that is missing in one dataset: ``"error"`` or ``"skip"``.
        level: Nominal coverage of the interval.
        seed: Seed of the order of the samples.
        on_progress: Called with ``(samples read, samples in all)`` after each batch.
    """

    precision: str | float
    labels: str = "true"
    layer: str | None = None
    reduction: str | None = None
    unit: str = "rad"
    undefined: str = "error"
    level: float = 0.9
    seed: int = 0
    on_progress: Callable[[int, int], None] = lambda done, total: None


def sample_index(
    model: nn.Module, original: Profile | IndexedDataset, shifted: IndexedDataset, options: SamplingOptions
) -> DistributionIndex:
    """Estimate the index that a full pass would give, from as few samples as the precision needs.

    Args:
        model: Classifier; it is left as it was found.
        original: Profile of the original data, or the data, which are sampled, too.
        shifted: Shifted data.
        options: Precision, and the options of the index.

    Returns:
        The estimate. If all samples had to be read it is the plain index, and its interval has no width.

    Raises:
        SettingError: An option is unknown or out of range.
        UndefinedDirectionError: A class has no direction in one dataset.

    Example:
        >>> from resque import load_data, load_model, profile
        >>> from resque.data.random_access import open_data
        >>> model, clean = load_model("resque.networks:small_cnn"), load_data("digits@16px")
        >>> new, before = open_data("digits@16px+rotation:9"), profile(model, clean)
        >>> index = sample_index(model, before, new, SamplingOptions("0.03"))
        >>> index.sampling.n_read < 1797, index.interval.low < index.value < index.interval.high
        (True, True)
    """
    precision = Precision.parse(options.precision)
    check_options(options.unit, options.undefined, options.level)
    check_labels(options.labels)
    check_weights(model)
    look = _Look(_origin(model, original, shifted, options), options)
    classes = len(original.counts) if isinstance(original, Profile) else len(original.header.classes)
    after = _Sample(shifted, options.labels, classes, options.seed)
    before = original if isinstance(original, Profile) else _Sample(original, "true", classes, options.seed + 1)
    samples = [each for each in (before, after) if isinstance(each, _Sample)]
    total, ends = sum(len(each) for each in samples), _schedule(max(each.largest for each in samples))
    level = options.level ** (1.0 / max(1, len(ends) - 1))  # the last look is exact
    device = device_of(model)
    start, n, index, pace = now(device), 0, None, 0.0
    with capture_features(model, look.origin.layer, look.origin.reduction) as observe:
        for end in ends:
            began, n_before_round = now(device), n
            for sample in samples:
                for added in sample.read_until(end, observe, device):
                    options.on_progress(n := n + added, total)
            pace = (now(device) - began) / max(1, n - n_before_round)  # of the last round: the first one is slower
            found = look.exact(before, after) if n == total else look.estimate(before, after, level)
            if found is not None and precision.holds(*found[1:]):
                index = found[0]
                break
    assert index is not None  # the last look is exact, or has raised an error
    seconds = now(device) - start
    n_before = before.n if isinstance(before, _Sample) else 0
    sampling = Sampling(str(options.precision), n_before, after.n, total, ends.index(end) + 1, seconds, pace * total)
    return dataclasses.replace(index, sampling=sampling)


def _schedule(largest: int) -> list[int]:
    """Return how many samples of each class have been read at the end of each round; the last is all.

    Example:
        >>> _schedule(100), _schedule(5)
        ([32, 48, 72, 100], [5])
    """
    ends = [min(_FIRST, largest)]
    while ends[-1] < largest:
        ends.append(min(largest, int(ends[-1] * _GROWTH)))
    return ends


def _origin(
    model: nn.Module, original: Profile | IndexedDataset, shifted: IndexedDataset, options: SamplingOptions
) -> Origin:
    """Return the representation space: the profile's, else that of the options."""
    preprocessing = shifted.header.preprocessing
    if isinstance(original, Profile):
        known = original.origin
        named = preprocessing if known.preprocessing else ""  # the profile may not have named it
        return dataclasses.replace(known, model=fingerprint(model) if known.model else "", preprocessing=named)
    layer, reduction = representation_layer(model, options.layer), options.reduction
    if reduction is None:
        reduction = default_reduction(next(shifted.read(torch.tensor([0])).batches())[0], layer)
    return Origin(fingerprint(model), layer, preprocessing, reduction)


class _Sample:
    """Random samples of a dataset that were read so far, as sums of random groups of each class.

    Args:
        data: The dataset.
        labels: ``"true"`` or ``"pseudo"``.
        classes: Number of classes, for as many pseudo-labeled samples in a round as of true classes.
        seed: Seed of the order.
    """

    def __init__(self, data: IndexedDataset, labels: str, classes: int, seed: int) -> None:
        header, generator = data.header, np.random.default_rng(seed)
        if labels == "true" and not header.labeled:
            raise DataError(f"{header.name} has no labels: use the model's own predictions, --labels pseudo")
        self.data, self.labels, self.n = data, labels, 0
        self._classes = torch.unique(header.labels) if labels == "true" else torch.arange(0)
        strata = [torch.nonzero(header.labels == label)[:, 0] for label in self._classes] or [torch.arange(len(self))]
        self._orders = [torch.from_numpy(generator.permutation(stratum.numpy())) for stratum in strata]
        self._at_once = 1 if labels == "true" else max(1, classes)
        self._table: ClassSums | None = None
        self._end, self._scratch = 0, ScratchBuffer()

    def __len__(self) -> int:
        return len(self.data.header)

    @property
    def largest(self) -> int:
        """Number of samples that the schedule counts for the largest class."""
        return math.ceil(max(map(len, self._orders)) / self._at_once)

    def read_until(self, end: int, observe: _Observe, device: torch.device) -> Iterator[int]:
        """Read and pass the next samples, up to a number for each class; yield the number of each batch."""
        start, self._end = self._end * self._at_once, end
        spans = [torch.arange(start, max(start, min(end * self._at_once, len(order)))) for order in self._orders]
        rows = torch.cat([order[span] for order, span in zip(self._orders, spans, strict=True)])
        rows, places = torch.sort(rows)  # files are read in their order
        groups = torch.cat(spans)[places] % GROUPS
        for first in range(0, len(rows), _PIECE):
            group = groups[first : first + _PIECE]
            batches = self.data.read(rows[first : first + _PIECE]).batches(BATCH, device)
            for number, (inputs, labels) in enumerate(batches):
                part = group[number * BATCH : (number + 1) * BATCH].to(device)
                representations, logits = observe(inputs)
                self._add(representations, logits, labels, part)
                yield len(part)

    def _add(self, rows: Tensor, logits: Tensor, labels: Tensor, group: Tensor) -> None:
        if self._table is None:
            check_finite(torch.isfinite(logits).all())
            if self.labels == "pseudo":
                self._classes = torch.arange(logits.shape[1])
            cells = torch.arange(len(self._classes) * GROUPS // HALVES)
            self._table = ClassSums.zeros(cells, rows.shape[1], rows.device)
        labels = logits.argmax(1) if self.labels == "pseudo" else labels
        column = torch.searchsorted(self._classes.to(labels.device), labels)
        cell = column * (GROUPS // HALVES) + torch.div(group, HALVES, rounding_mode="floor")
        self._table.add(rows, cell, group % HALVES, self._scratch, compensated=False)
        self.n += len(rows)

    def profile(self, origin: Origin) -> Profile:
        """Return the profile of the samples read."""
        sums, counts = self._parts()
        unknown = torch.zeros((), dtype=torch.int64)
        table = ClassSums(self._classes.to(sums.device), sums.sum(2), counts.sum(2), unknown)
        found = Profile.from_sums(table, origin, self.labels)
        found.class_names = self.data.header.class_names if self.labels == "true" else ()
        return found

    def group_sums(self, labels: Sequence[int]) -> GroupSums:
        """Return the group sums of some classes, and the number of their samples in all data.

        With pseudo-labels that is known from their share of the samples alone.
        """
        sums, counts = self._parts()
        keep = torch.searchsorted(self._classes, torch.tensor(labels))
        groups = counts[:, keep.to(counts.device)].permute(1, 2, 0).flatten(1).cpu().numpy().astype(float)
        if self.labels == "true":
            totals = np.array([len(self._orders[place]) for place in keep.tolist()], dtype=float)
        else:
            totals = groups.sum(1) * (len(self) / self.n)
        return GroupSums(sums[:, keep.to(sums.device)].permute(1, 2, 0, 3).flatten(1, 2), groups, totals)

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Return sums and counts, both by half, class and group of that half."""
        assert self._table is not None
        shape = HALVES, len(self._classes), GROUPS // HALVES
        return self._table.sums.view(*shape, -1), self._table.counts.view(*shape)


@dataclass(frozen=True)
class _Look:
    """What a look at the samples read so far tells: an index, its value and the reach of its interval in radians."""

    origin: Origin
    options: SamplingOptions

    def exact(self, before: "Profile | _Sample", after: _Sample) -> tuple[DistributionIndex, float, float]:
        """Return the plain index of all samples."""
        index = self._plain(before, after)[0]
        interval = Interval(index.value, index.value, self.options.level, "exact; all samples were read")
        return dataclasses.replace(index, interval=interval), index.value, 0.0

    def estimate(
        self, before: "Profile | _Sample", after: _Sample, level: float
    ) -> tuple[DistributionIndex, float, float] | None:
        """Return the estimate from a part of the samples; None while they are too few for one."""
        try:
            index, profiles = self._plain(before, after)
        except UndefinedDirectionError:
            if after.labels == "true":
                raise
            return None  # the next round may have samples of that class
        if after.labels == "pseudo" and profiles[0].counts.keys() - profiles[1].counts.keys():
            return None  # samples that are not read may have such a class, and its angle could be any
        labels = [label for label, angle in index.per_class.items() if angle is not None]
        sums = _group_sums(before, labels), after.group_sums(labels)
        found = estimate_sampled(*sums, level)
        if found is None or found.low is None or found.high is None:
            return None
        scale, halves = UNITS[self.options.unit], [each.split_halves for each in profiles]
        sizes = list(zip(*(each.totals.tolist() for each in sums), strict=True))
        floor = noise_floor([(halves[0][label], halves[1][label]) for label in labels], sizes)
        angles = dict(zip(labels, found.per_class, strict=True))
        index = dataclasses.replace(
            index,
            value=found.value / scale,
            per_class={label: angles[label] / scale if label in angles else None for label in index.per_class},
            n_original=before.n if isinstance(before, Profile) else len(before),
            n_shifted=len(after),
            interval=Interval(found.low / scale, found.high / scale, self.options.level, _GUARANTEE),
            floor=None if floor is None else floor / scale,
            debiased=True,
            sub_sums=GROUPS,
        )
        return index, found.value, max(found.high - found.value, found.value - found.low)

    def _plain(self, before: "Profile | _Sample", after: _Sample) -> tuple[DistributionIndex, tuple[Profile, Profile]]:
        options = self.options
        original = before if isinstance(before, Profile) else before.profile(self.origin)
        profiles = original, after.profile(self.origin)
        return resque_dist(*profiles, options.unit, False, options.undefined, options.level), profiles


def _group_sums(data: Profile | _Sample, labels: Sequence[int]) -> GroupSums:
    """Return the group sums of some classes; those of a profile are one group, read in full."""
    if isinstance(data, _Sample):
        return data.group_sums(labels)
    sums, counts = data.sums, data.counts
    n = np.array([counts[label] for label in labels], dtype=float)
    return GroupSums(torch.from_numpy(np.stack([sums[label] for label in labels]))[:, None], n[:, None], n)

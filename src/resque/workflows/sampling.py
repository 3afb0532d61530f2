"""Estimate RESQUE_dist from as few samples as a precision needs, of what a user names."""

import dataclasses
from typing import Any

from torch import nn

from resque.data.random_access import IndexedDataset, open_data
from resque.errors import SettingError
from resque.indices.profile import Profile
from resque.indices.results import DistributionIndex
from resque.indices.sampled_dist import Precision, SamplingOptions, sample_index
from resque.workflows.inputs import InputLoader, ModelOptions, is_profile

__all__ = ["check_precision", "open_indexed", "sampled_dist", "sampled_index"]


def sampled_dist(
    model: str | nn.Module,
    original: Any,
    shifted: Any,
    precision: str | float,
    *,
    labels: str = "true",
    layer: str | None = None,
    reduction: str | None = None,
    unit: str = "rad",
    undefined: str = "error",
    level: float = 0.9,
    seed: int = 0,
    options: ModelOptions | None = None,
) -> DistributionIndex:
    """Estimate RESQUE_dist from as few random samples as a precision needs, instead of a full pass.

    The pass reads samples in growing rounds, and ends when the interval is within the precision. The estimate is of
    the plain index that a full pass over the same data would give. The interval is valid although it is looked at
    after each round, see :mod:`resque.indices.sampled_dist`. Only the samples that are passed are read from an
    ``npz:`` or ``idx:`` file or a ``folder:``; other sources are in memory, and streams are refused.

    Args:
        model: Model or its specification.
        original: Profile of the original data or its file, which counts as exact; or the data, which are sampled, too.
        shifted: Shifted data: specification, dataset, or arrays ``(x, y)``.
        precision: Half width of the interval: a share of the index (``0.03``), an angle (``"0.002rad"``), or both with
            a comma, of which one must hold.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions on the shifted data.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        unit: ``"rad"``, or ``"pi"`` for fractions of pi.
        undefined: Treatment of a class that is missing in one dataset: ``"error"`` or ``"skip"``.
        level: Nominal coverage of the interval.
        seed: Seed of the order of the samples.
        options: Loading of a specified model and of the data.

    Returns:
        The index with its interval; ``sampling`` says what was read, and what a full pass would have cost.

    Raises:
        DataError: The data are a stream, or cannot be read.
        SettingError: An option is unknown or out of range.
        UndefinedDirectionError: A class has no direction in one dataset.

    Example:
        >>> import resque
        >>> index = resque.sampled_dist("resque.networks:small_cnn", "digits@16px", "digits@16px+rotation:9", "0.05")
        >>> index.sampling.n_shifted_read < 1797, index.interval.high - index.value <= 0.05 * index.value
        (True, True)
    """
    Precision.parse(precision)  # refused before anything is read
    loader = InputLoader(model, options or ModelOptions(), labels=labels)
    new = open_indexed(loader, shifted, labels)
    network = loader.network(new.header)
    settings = SamplingOptions(precision, labels, layer, reduction, unit, undefined, level, seed)
    return sampled_index(loader, network, original, new, settings)


def sampled_index(
    loader: InputLoader, network: nn.Module, original: Any, shifted: IndexedDataset, options: SamplingOptions
) -> DistributionIndex:
    """Estimate the index of shifted data and of original data, or their profile, as a user names these.

    Args:
        loader: Loader of the original data.
        network: The model.
        original: Profile, its file, or the original data.
        shifted: The shifted data.
        options: Precision, and the options of the index.
    """
    before: Profile | IndexedDataset
    if is_profile(original):
        before = loader.original_profile(network, original, options.layer, options.reduction)
    else:
        before = open_indexed(loader, original)
    with loader.options.show_progress(f"sampling {shifted.header.name}") as show:
        shown = dataclasses.replace(options, on_progress=lambda done, total: show(done, total, "samples"))
        return sample_index(network, before, shifted, shown)


def check_precision(precision: str | float | None, original: Any, is_new_task: bool) -> None:
    """Raise SettingError for a precision that is malformed, or where there is no index."""
    if precision is not None:
        Precision.parse(precision)
        if original is None or is_new_task:
            raise SettingError("--precision is of RESQUE_dist, which needs --original and new data of the same classes")


def open_indexed(loader: InputLoader, source: Any, labels: str = "true") -> IndexedDataset:
    """Open data that a user names, with true labels numbered as the model does."""
    given = loader.options
    data = open_data(source, given.limit, loader.preprocessing(), given.data_root, given.download)
    return data.numbered(loader.numbered) if labels == "true" else data

"""Explain a shift class by class: the index, the errors, what is free, and names that were exchanged."""

from typing import Any

from torch import nn

from resque.errors import DataError
from resque.indices.class_report import ClassReport, class_report
from resque.indices.distribution import resque_dist
from resque.workflows.inputs import InputLoader, ModelOptions

__all__ = ["explain"]


def explain(
    model: str | nn.Module,
    original: Any,
    shifted: Any,
    *,
    layer: str | None = None,
    reduction: str | None = None,
    options: ModelOptions | None = None,
) -> ClassReport:
    """Explain which classes carry a shift and its errors, and what would help most.

    Forward passes over the shifted data tell the angle of each class, its errors, and those that are left after
    normalization is re-estimated, if that raises the accuracy. Classes that exchanged names are recognized by their
    predictions.

    Args:
        model: Model or its specification; it is left as it was.
        original: Data that the model was trained on, or their profile.
        shifted: New labeled data of the same classes: specification, dataset, or arrays ``(x, y)``.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        options: Loading of a specified model and of the data.

    Returns:
        Angle and errors of each class, and findings in sentences.

    Raises:
        DataError: The shifted data have no labels.

    Example:
        >>> import resque
        >>> report = resque.explain("resque.networks:small_cnn", "digits@16px@train", "digits@16px@test+exchange:2")
        >>> len(report.classes), report.exchanged  # random weights recognize nothing
        (10, ())
    """
    loader = InputLoader(model, options or ModelOptions())
    data = loader.data(shifted, for_training=False)
    if not data.labeled:
        raise DataError(f"{data.name} has no labels: errors cannot be told class by class without them")
    data = loader.numbered(data)
    network = loader.network(data)
    before = loader.original_profile(network, original, layer, reduction)
    after = loader.profile(network, data, layer or before.origin.layer, reduction or before.origin.reduction)
    with loader.options.show_progress("counting errors"):
        return class_report(network, data, resque_dist(before, after, undefined="skip"))

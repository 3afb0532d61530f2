"""Compute a profile in one forward pass over a dataset."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resque._arrays import as_labels
from resque.errors import RepresentationError
from resque.indices.class_sums import ScratchBuffers
from resque.indices.profile import Origin, Profile, check_finite
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of, iterate_batches
from resque.models.layers import PENULTIMATE, representation_layer
from resque.models.weights import fingerprint


def profile(
    model: nn.Module,
    loader: Iterable[Any],
    layer: str | None = None,
    reduction: str = "flatten",
    classes: Sequence[int] | int | None = None,
    labels: str = "true",
    preprocessing: str = "",
    beside: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Profile:
    """The profile of a data set in a model's representation space, from one forward pass.

    Args:
        model: The classifier; it is left as it was found.
        loader: Yields ``(inputs, labels)``, or inputs alone with pseudo-labels; each sample is passed once.
        layer: A module's name, ``"penultimate"``, or None for the paper's layer.
        reduction: See :func:`resque.models.feature_extraction.reduce_features`.
        classes: The labels that may occur, or their number; None takes those that do.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions (the loader's labels are ignored).
        preprocessing: What was done to the inputs; two profiles must agree in it.
        beside: Called with each batch's inputs of the head ``(n, d)``, logits and labels, in the same pass.

    Raises:
        RepresentationError: NaN or infinity, or labels that are no integers.
        ModelError: No such layer, or the model does not take the inputs.

    Example:
        >>> import torch
        >>> from resque.models.networks import small_cnn
        >>> clean = profile(small_cnn(), [(torch.rand(6, 1, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1]))])
        >>> clean.n, clean.width, clean.origin.layer
        (6, 1024, '7')
    """
    if labels not in ("true", "pseudo"):
        raise RepresentationError(f"labels={labels!r}: use 'true' or 'pseudo'")
    name = representation_layer(model, layer)
    made = Profile(Origin(fingerprint(model), name, preprocessing, reduction), classes, labels)
    also = [] if beside is None else [(PENULTIMATE, "mean")]
    with capture_features(model, name, reduction, also) as observe:
        for inputs, target in iterate_batches(loader, device_of(model), labels == "true"):
            rows, *others, logits = observe(inputs)
            if made.empty:  # a broken model shows it in its first batch: no need to pass all the data
                check_finite(torch.isfinite(logits).all())
            if labels == "pseudo":
                made._declared = torch.arange(logits.shape[1]) if made._declared is None else made._declared
                target = logits.argmax(1)
            made._add(rows, target)
            if beside is not None:
                beside(others[0], logits, as_labels(target, len(logits)))
    if made.empty:
        raise RepresentationError("the loader gave no batch: there is nothing to make a profile of")
    made.check()
    made._scratch = ScratchBuffers()  # give its memory back
    return made

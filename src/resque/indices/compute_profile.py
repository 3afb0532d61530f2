"""Compute the profile of a dataset in one forward pass."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from resque._arrays import as_labels
from resque.data.dataset import Inputs, LabeledDataset
from resque.data.shards import Shard
from resque.data.streams import DataStream
from resque.errors import RepresentationError, SettingError
from resque.indices.profile import Origin, Profile, check_finite
from resque.models.batchnorm import has_running_statistics
from resque.models.channel_matching import ObservedChannels
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of, iterate_batches
from resque.models.layers import PENULTIMATE, representation_layer
from resque.models.weights import check_weights, fingerprint

__all__ = ["check_labels", "default_reduction", "profile"]

_OnBatch = Callable[[Tensor, Tensor, Tensor], None]


def profile(
    model: nn.Module,
    loader: Iterable[Any],
    layer: str | None = None,
    reduction: str | None = None,
    classes: Sequence[int] | int | None = None,
    labels: str = "true",
    preprocessing: str = "",
    *,
    on_batch: _OnBatch | None = None,
    shard: tuple[int, int] | Shard | None = None,
) -> Profile:
    """Compute the profile of a dataset in a model's representation space, in one forward pass.

    The same pass collects :attr:`Profile.channels` if the model has no statistics of batch normalization.

    Args:
        model: Classifier; it is left as it was found.
        loader: Batches ``(inputs, labels)``, or inputs alone for pseudo-labels; each sample is passed once.
        layer: Name of a module, ``"penultimate"``, or None for the paper's layer.
        reduction: See :func:`resque.models.feature_extraction.reduce_features`; None is ``token-mean`` for token ids,
            else ``flatten``.
        classes: Labels that may occur, or their number; None takes those that do.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions instead of the loader's labels.
        preprocessing: Description of the preprocessing of the inputs; comparable profiles agree in it.
        on_batch: Called in the same pass with each batch's inputs of the head ``(n, d)``, logits and labels.
        shard: Number from 1 and count of shards, to pass one part of a :class:`resque.LabeledDataset`; or the
            :class:`resque.Shard` whose batches alone the loader yields. :func:`resque.merge` puts the
            profiles of all shards together.

    Raises:
        SettingError: There is no such shard, or the loader has no known number of samples.
        RepresentationError: NaN or infinity, labels that are not integers, or no batch.
        ModelError: The layer does not exist, a weight is not finite, or the model does not take the inputs.

    Example:
        >>> import torch
        >>> from resque.models.networks import small_cnn
        >>> clean = profile(small_cnn(), [(torch.rand(6, 1, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1]))])
        >>> clean.n, clean.width, clean.origin.layer
        (6, 1024, '7')
    """
    check_labels(labels)
    check_weights(model)
    name = representation_layer(model, layer)
    class_names = loader.class_names if labels == "true" and isinstance(loader, LabeledDataset | DataStream) else ()
    if isinstance(shard, tuple):
        reduction = reduction or default_reduction(_dataset(loader).inputs, name)
        shard = Shard.cut(_dataset(loader), *shard)
        loader = _dataset(loader).batches(device=device_of(model), order=shard.rows)
    batches = iterate_batches(loader, device_of(model), labels == "true")
    first = next(batches, None)
    if first is None and not (shard is not None and len(shard) == 0):
        raise RepresentationError("the loader gave no batch: expected at least one")
    reduction = reduction or ("flatten" if first is None else default_reduction(first[0], name))
    result = Profile(Origin(fingerprint(model), name, preprocessing, reduction), classes, labels, shard)
    result.class_names = class_names
    if first is None:
        return result
    also = [] if on_batch is None else [(PENULTIMATE, "mean")]
    channels = None if has_running_statistics(model) else ObservedChannels()
    hooks = nullcontext() if channels is None else channels.attached(model)
    with hooks, capture_features(model, name, reduction, also) as observe:
        for inputs, target in itertools.chain([first], batches):
            rows, *head_inputs, logits = observe(inputs)
            if channels is not None:
                channels.end_batch()
            if result.empty:  # a broken model shows it in its first batch: no need to pass all the data
                check_finite(torch.isfinite(logits).all())
            if labels == "pseudo":
                result.declare(logits.shape[1])
                target = logits.argmax(1)
            result.add_rows(rows, target)
            if on_batch is not None:
                on_batch(head_inputs[0], logits, as_labels(target, len(logits)))
    result.finish()
    result.channels = None if channels is None else channels.channels or None
    return result


def _dataset(loader: Iterable[Any]) -> LabeledDataset:
    if not isinstance(loader, LabeledDataset):
        raise SettingError(
            f"shard= cuts a dataset, and the loader is a {type(loader).__name__}: pass what resque.load_data returns, "
            "or a resque.Shard with the batches of that shard alone"
        )
    return loader


def default_reduction(inputs: Inputs, layer: str) -> str:
    """Return the mean over tokens for a text classifier's layer, and the whole output for any other.

    Example:
        >>> import torch
        >>> default_reduction({"input_ids": torch.zeros(2, 9)}, "7"), default_reduction(torch.zeros(2, 3), "7")
        ('token-mean', 'flatten')
    """
    is_text = isinstance(inputs, Mapping) and "input_ids" in inputs
    return "token-mean" if is_text and layer != PENULTIMATE else "flatten"


def check_labels(labels: str) -> None:
    """Raise RepresentationError unless the labels are ``"true"`` or ``"pseudo"``."""
    if labels not in ("true", "pseudo"):
        raise RepresentationError(f"labels={labels!r}: use 'true' or 'pseudo'")

"""Compute the features of an update before it starts, from forward passes without training."""

import dataclasses

import torch
from torch import nn

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.errors import ModelError
from resque.indices.baselines.model_outputs import KNN_SAMPLES, OutputCollector
from resque.indices.baselines.scores import baseline_scores
from resque.indices.baselines.transferability import knn_accuracy
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.profile import Profile
from resque.indices.results import DistributionIndex
from resque.ledger.records import Features
from resque.models.batchnorm import adapt_batchnorm
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import PENULTIMATE, head
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob

__all__ = ["batchnorm_adapted_scores", "model_knn_accuracy", "shift_features"]

_MAX_PRODUCT_BYTES = 2**30


def shift_features(
    model: nn.Module,
    job: RetrainingJob,
    original: Profile | None = None,
    labels: str = "true",
) -> tuple[Features, DistributionIndex | None, float]:
    """Compute the features of an update to shifted data, without training.

    ==== ============================== =======================================================================
    Pass Data                           Result
    ==== ============================== =======================================================================
    1    training data                  RESQUE_dist with its noise floor, and the baselines; only with ``original``
    2    test data                      accuracy and loss
    3    training data                  the model with batch norm adapted to it; only with batch norm
    4    test data                      accuracy and loss of the adapted model; only with batch norm
    5    at most 2,000 training samples k-NN accuracy of the adapted model; without batch norm only if not known
    ==== ============================== =======================================================================

    Baselines and passes 3 to 5 need labels of the training data. Baselines also need a dense head, whose inputs have
    products of at most 1 GiB.

    Args:
        model: Model as it is now; it is left as it was found.
        job: Update to be forecast.
        original: Profile of the data the model was trained on; None computes no index and no baselines.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions instead of the training labels.

    Returns:
        The features, the index or None, and the wall time in seconds.

    Raises:
        ProfileMismatchError: The profile belongs to another model, layer or preprocessing.
        UndefinedDirectionError: A class has no samples in one dataset.

    Example:
        >>> from resque import RetrainingJob, load_data, load_model, profile
        >>> model, data = load_model("resque.networks:small_cnn"), load_data("digits@16px@train")
        >>> job = RetrainingJob(load_data("digits@16px@train+blur:5"), load_data("digits@16px@test+blur:5"), 0.9)
        >>> features, index, seconds = shift_features(model, job, profile(model, data.batches()))
        >>> features.index_rad == index.value > index.floor, features.samples, features.layer
        (True, 1258, '7')
    """
    start = now(device_of(model))
    labeled = labels == "true" and job.train.labeled
    index, scores = None, {}
    if original is not None:
        collector = _output_collector(model, job.train) if labeled else None
        index = resque_dist(original, _profile_like(original, model, job.train, labels, collector))
        if collector is not None:
            scores = {name: score.value for name, score in baseline_scores(collector.outputs()).items()}
    accuracy, loss = evaluate_dataset(model, job.test)
    if labeled:
        scores |= batchnorm_adapted_scores(model, job, accuracy, loss, scores.get("k-NN accuracy"))
    features = Features(
        None,
        accuracy,
        loss,
        samples=len(job.train),
        classes=len(job.train.classes),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        scores=scores,
    )
    if index is not None:
        features = dataclasses.replace(
            features,
            index_rad=index.value,
            floor_rad=index.floor,
            layer=index.layer,
            reduction=index.reduction,
            labels=index.labels,
        )
    return features, index, now(device_of(model)) - start


def batchnorm_adapted_scores(
    model: nn.Module, job: RetrainingJob, accuracy: float, loss: float, knn: float | None = None
) -> dict[str, float]:
    """Compute accuracy, loss and k-NN accuracy of the model with batch norm statistics of the new training data.

    A model without batch norm keeps the values it has.

    Args:
        model: Model as it is now; it is left as it was found.
        job: Update to be forecast.
        accuracy: Accuracy of the model on the test data.
        loss: Mean cross-entropy of the model on the test data, in nats.
        knn: k-NN accuracy of the model on the training data; None if it is not known.

    Returns:
        Scores by name; without ``"BN-adapted k-NN"`` if the model has no suitable head.

    Example:
        >>> from resque import RetrainingJob, load_data, load_model
        >>> job = RetrainingJob(load_data("digits@16px@train"), load_data("digits@16px@test"), 0.9)
        >>> list(batchnorm_adapted_scores(load_model("resque.networks:small_cnn"), job, accuracy=0.1, loss=2.3))
        ['BN-adapted accuracy', 'BN-adapted loss', 'BN-adapted k-NN']
    """
    adapted = adapt_batchnorm(model, job.train.batches(device=device_of(model)))
    if adapted is not model:
        accuracy, loss = evaluate_dataset(adapted, job.test)
    if adapted is not model or knn is None:
        knn = model_knn_accuracy(adapted, job.train.limited(KNN_SAMPLES))
    scores = {"BN-adapted accuracy": accuracy, "BN-adapted loss": loss}
    return scores if knn is None else scores | {"BN-adapted k-NN": knn}


def model_knn_accuracy(model: nn.Module, data: LabeledDataset) -> float | None:
    """Compute leave-one-out k-NN accuracy of a dataset, with the inputs of the model's head as features.

    Returns:
        The accuracy; None if no head is found, or if it takes more than one row per sample.

    Example:
        >>> from resque import load_data, load_model
        >>> model_knn_accuracy(load_model("resque.networks:small_cnn"), load_data("digits@16px@100")) > 0.5
        True
    """
    if _head_width(model, data) is None:
        return None
    with capture_features(model, PENULTIMATE, "flatten") as observe:
        rows = torch.cat([observe(inputs)[0].double().cpu() for inputs, _ in data.batches(device=device_of(model))])
    return knn_accuracy(rows.numpy(), data.labels.cpu().numpy())


def _profile_like(
    original: Profile, model: nn.Module, data: LabeledDataset, labels: str, collector: OutputCollector | None
) -> Profile:
    """Compute a profile that is comparable with the original one, and feed the collector in the same pass."""
    origin = original.origin
    return profile(
        model,
        data.batches(device=device_of(model)),
        layer=origin.layer,
        reduction=origin.reduction,
        classes=data.classes if labels == "true" else None,
        labels=labels,
        preprocessing=data.preprocessing if origin.preprocessing else "",  # the original may not have named it
        on_batch=None if collector is None else collector.update,
    )


def _output_collector(model: nn.Module, data: LabeledDataset) -> OutputCollector | None:
    """Return a collector for the baselines; None without a dense head, or if the products would not fit."""
    width = _head_width(model, data)
    if width is None or 8 * len(data.classes) * width**2 > _MAX_PRODUCT_BYTES:
        return None
    return OutputCollector(data.classes, len(data))


def _head_width(model: nn.Module, data: LabeledDataset) -> int | None:
    """Return the width of a dense head's input; None without such a head, or if it takes a row per token."""
    try:
        width = getattr(head(model), "in_features", None)
    except ModelError:
        return None
    inputs, _ = next(data.batches(2, device_of(model)))
    with capture_features(model, PENULTIMATE, "flatten") as observe:
        rows = observe(inputs)[0]
    return width if width is not None and rows.shape[1] == width else None

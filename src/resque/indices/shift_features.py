"""What can be known of an update before it is done, and what it takes to know it: the passes and the probe."""

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

_LARGEST_PRODUCTS = 2**30  # bytes


def shift_features(
    model: nn.Module,
    job: RetrainingJob,
    original: Profile | None = None,
    labels: str = "true",
) -> tuple[Features, DistributionIndex | None, float]:
    """What passes over the new data tell, with nothing trained: ``(features, index, seconds)``.

    One pass over the training data gives the index and the scores of its rivals, one over the test data accuracy and
    loss. A model with batch normalisation passes over both once more, recalibrated.

    Args:
        model: The model as it is now; left as it was found.
        job: The update to be judged.
        original: Profile of the data the model was trained on; without it there is no index.
        labels: ``"pseudo"`` lets the model's own predictions stand in for the training labels.

    Raises:
        ProfileMismatchError: The profile belongs to another model, layer or preprocessing.
        UndefinedDirectionError: A class has no samples on one side.
    """
    start, index = now(device_of(model)), None
    labeled = labels == "true" and job.train.labeled
    seen = _viewing(model, job.train) if labeled and original is not None else None
    if original is not None:
        origin = original.origin
        shifted = profile(
            model,
            job.train.batches(device=device_of(model)),
            layer=origin.layer,
            reduction=origin.reduction,
            classes=job.train.classes if labels == "true" else None,
            labels=labels,
            preprocessing=job.train.preprocessing if origin.preprocessing else "",  # else it was not said
            beside=seen.update if seen else None,
        )
        index = resque_dist(original, shifted)
    accuracy, loss = evaluate_dataset(model, job.test)
    scores: dict[str, float] = {}
    if seen is not None:
        scores |= {name: score.value for name, score in baseline_scores(seen.outputs()).items()}
    if labeled:
        scores |= batchnorm_adapted_scores(model, job, accuracy, loss, scores.get("k-NN accuracy"))
    features = Features(
        None if index is None else index.value,
        accuracy,
        loss,
        None if index is None else index.floor,
        "" if index is None else index.layer,
        "" if index is None else index.reduction,
        "" if index is None else index.labels,
        samples=len(job.train),
        classes=len(job.train.classes),
        parameters=sum(p.numel() for p in model.parameters()),
        scores=scores,
    )
    return features, index, now(device_of(model)) - start


def batchnorm_adapted_scores(
    model: nn.Module, job: RetrainingJob, accuracy: float, loss: float, near: float | None = None
) -> dict[str, float]:
    """What the model would tell if its batch normalisation followed the new data; the same again where it has none.

    Args:
        model: As it is now.
        job: The update to be judged.
        accuracy: On the test data as the model is.
        loss: There.
        near: Accuracy of the training data's neighbours as the model is, where it is known.
    """
    other = adapt_batchnorm(model, job.train.batches(device=device_of(model)))
    if other is not model:
        accuracy, loss = evaluate_dataset(other, job.test)
    if other is not model or near is None:
        near = model_knn_accuracy(other, job.train.limited(KNN_SAMPLES))
    found = {"BN-adapted accuracy": accuracy, "BN-adapted loss": loss}
    return found if near is None else found | {"BN-adapted k-NN": near}


def model_knn_accuracy(model: nn.Module, data: LabeledDataset) -> float | None:
    """Accuracy of each sample's nearest neighbours among the others, by the inputs of the head.

    None where the model has no head that could be found, or one that sees more than a row a sample.
    """
    if _width(model, data) is None:
        return None
    with capture_features(model, PENULTIMATE, "flatten") as observe:
        rows = torch.cat([observe(inputs)[0].double().cpu() for inputs, _ in data.batches(device=device_of(model))])
    return knn_accuracy(rows.numpy(), data.labels.cpu().numpy())


def _viewing(model: nn.Module, data: LabeledDataset) -> OutputCollector | None:
    """What gathers the rivals' view beside the index; None without a dense head, or where products would not fit."""
    width = _width(model, data)
    if width is None or 8 * len(data.classes) * width**2 > _LARGEST_PRODUCTS:
        return None
    return OutputCollector(data.classes, len(data))


def _width(model: nn.Module, data: LabeledDataset) -> int | None:
    """Of the row that a dense head sees of each sample; None without such a head, or where it sees a row a token."""
    try:
        width = getattr(head(model), "in_features", None)
    except ModelError:
        return None
    inputs, _ = next(data.batches(2, device_of(model)))
    with capture_features(model, PENULTIMATE, "flatten") as observe:
        rows = observe(inputs)[0]
    return width if width is not None and rows.shape[1] == width else None

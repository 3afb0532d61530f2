"""Compute the features of an update before it starts, from forward passes without training."""

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now, timed
from resque.indices.accuracy_estimate import estimate_accuracy
from resque.indices.baselines.model_outputs import OutputCollector
from resque.indices.baselines.refit import RefitSums
from resque.indices.baselines.scores import baseline_scores
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.head_inputs import HeadInputs, evaluate_with_refit, head_width
from resque.indices.profile import Profile
from resque.indices.results import DistributionIndex
from resque.ledger.records import Features
from resque.models.adaptation import adapt, can_adapt
from resque.models.batchnorm import has_running_statistics
from resque.models.channel_matching import Channels
from resque.models.inference import device_of
from resque.models.weights import check_weights
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob

__all__ = ["adapted_scores", "shift_features"]

_OnBatch = Callable[[Tensor, Tensor, Tensor], None]


def shift_features(
    model: nn.Module,
    job: RetrainingJob,
    original: Profile | None = None,
    labels: str = "true",
    sampled: DistributionIndex | None = None,
) -> tuple[Features, DistributionIndex | None, float]:
    """Compute the features of an update to shifted data, without training.

    A model with batch norm, or with convolutions whose channels ``original`` knows, is adapted to the new data:

    ==== ============= ===============================================================================
    Pass Data          Result
    ==== ============= ===============================================================================
    1    training data RESQUE_dist with its noise floor, and the baselines; only with ``original``
    2    test data     accuracy and loss
    3    training data the adapted model
    4    training data k-NN accuracy and refit head of the adapted model
    5    test data     accuracy and loss of the adapted model, and the accuracy of its refit head
    ==== ============= ===============================================================================

    Any other model takes two passes. Then k-NN accuracy and refit head are those of the model as it is, from pass 1
    (which is there without ``original``, too), and pass 2 evaluates the refit head as well.

    Baselines, pass 4 and the refit head need a dense head and labels of the training data. Without labels of the test
    data pass 4 is left out, and passes 2 and 5 together estimate the accuracy
    (:func:`resque.indices.accuracy_estimate.estimate_accuracy`). The products of the head's inputs may take at most
    1 GiB, or baselines and refit head are left out. Without a refit head, pass 4 takes at most 2,000 samples.
    TransRate, which takes more memory, is no feature.

    Args:
        model: Model as it is now; it is left as it was found.
        job: Update to be forecast.
        original: Profile of the data the model was trained on; None computes no index and no baselines.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions instead of the training labels.
        sampled: Index from a sample, in radians, in place of pass 1 and what comes from it. It is the score
            ``"sampled index"``, a feature of its own: a plain index is never compared with it.

    Returns:
        The features, the index or None, and the wall time in seconds.

    Raises:
        ModelError: A weight is not finite.
        ProfileMismatchError: The profile belongs to another model, layer or preprocessing.
        UndefinedDirectionError: A class has no samples in one dataset; with pseudo-labels it is left out.

    Example:
        >>> from resque import RetrainingJob, load_data, load_model, profile
        >>> model, data = load_model("resque.networks:small_cnn"), load_data("digits@16px@train")
        >>> job = RetrainingJob(load_data("digits@16px@train+blur:5"), load_data("digits@16px@test+blur:5"), 0.9)
        >>> features, index, seconds = shift_features(model, job, profile(model, data.batches()))
        >>> features.index_rad == index.value > index.floor, features.samples, features.layer
        (True, 1258, '7')
    """
    start = now(device_of(model))
    check_weights(model)
    width = head_width(model, job.train) if labels == "true" and job.train.labeled else None
    channels = None if original is None else original.channels
    index, scores, inputs = None, {}, None
    adapts = can_adapt(model, channels)
    if sampled is not None:
        scores = {"sampled index": sampled.value}
    elif original is not None:
        collector = _output_collector(job.train, width)
        inputs = None if adapts or width is None else HeadInputs(job.train, width)
        on_batch = _each([observer.update for observer in (collector, inputs) if observer is not None])
        undefined = "skip" if labels == "pseudo" else "error"  # a class that the model never predicts
        index = resque_dist(original, _profile_like(original, model, job.train, labels, on_batch), undefined=undefined)
        if collector is not None:
            scores = {name: score.value for name, score in baseline_scores(collector.outputs()).items()}
    features = Features(
        None,
        None,
        None,
        samples=len(job.train),
        classes=len(job.train.classes) if job.train.labeled else None,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    if not job.test.labeled:
        adapted = adapt(model, job.train.batches(device=device_of(model)), channels)
        found, seconds = timed(device_of(model), lambda: estimate_accuracy(model, job.test, adapted))
        features = dataclasses.replace(
            features,
            accuracy=found.accuracy,
            accuracy_method=found.method,
            accuracy_error_logit=found.error_logit,
            scores=scores,
            evaluation_s=seconds / (1 if adapted is None else 2),
        )
    else:
        if adapts:
            (accuracy, loss), seconds = timed(device_of(model), lambda: evaluate_dataset(model, job.test))
            more = adapted_scores(model, job, channels, width)
        else:
            accuracy, loss, more, seconds = _evaluate(model, job, width, inputs, scores.get("k-NN accuracy"))
        features = dataclasses.replace(
            features,
            accuracy=accuracy,
            loss=loss,
            scores=scores | more,
            evaluation_s=seconds,
            free_accuracy=more.get("adapted accuracy") if has_running_statistics(model) else None,
        )
    if index is not None:
        features = dataclasses.replace(features, index_rad=index.value, floor_rad=index.floor)
    if (index := sampled or index) is not None:
        features = dataclasses.replace(features, layer=index.layer, reduction=index.reduction, labels=index.labels)
    return features, index, now(device_of(model)) - start


def adapted_scores(
    model: nn.Module, job: RetrainingJob, channels: Channels | None = None, width: int | None = None
) -> dict[str, float]:
    """Compute the scores of the model adapted to the new training data, see :func:`resque.models.adaptation.adapt`.

    Args:
        model: Model as it is now; it is left as it was found.
        job: Update to be forecast.
        channels: Sums over the channels on the original data; None if unknown.
        width: Width of the inputs of its dense head; None leaves out the scores that need such a head, or labels of
            the training data.

    Returns:
        Scores by name; none if the model has nothing to adapt, or if the test data have no labels.

    Example:
        >>> from resque import RetrainingJob, load_data, load_model
        >>> job = RetrainingJob(load_data("digits@16px@train"), load_data("digits@16px@test"), 0.9)
        >>> list(adapted_scores(load_model("resque.networks:small_cnn"), job, width=64))
        ['adapted accuracy', 'adapted loss', 'adapted k-NN', 'adapted refit']
    """
    adapted = adapt(model, job.train.batches(device=device_of(model)), channels) if job.test.labeled else None
    if adapted is None:
        return {}
    accuracy, loss, scores, _ = _evaluate(adapted, job, width)
    return {"adapted accuracy": accuracy, "adapted loss": loss, **scores}


def _evaluate(
    model: nn.Module,
    job: RetrainingJob,
    width: int | None,
    inputs: HeadInputs | None = None,
    knn: float | None = None,
) -> tuple[float, float, dict[str, float], float]:
    """Return accuracy and loss on the test data, the scores that take inputs of the head, and the seconds of testing.

    Args:
        model: Model, adapted if it can be.
        job: Update to be forecast.
        width: Width of the head's inputs; None leaves the scores out.
        inputs: The inputs of the head; None passes the training data.
        knn: k-NN accuracy; None if it is not known.
    """
    refit, scores = None, dict[str, float]()
    if width is not None:
        inputs = HeadInputs.of(model, job.train, width) if inputs is None else inputs
        scores["adapted k-NN"] = inputs.knn_accuracy if knn is None else knn
        refit = inputs.refit() if job.test.labeled else None
    if refit is None:
        (accuracy, loss), seconds = timed(device_of(model), lambda: evaluate_dataset(model, job.test))
        return accuracy, loss, scores, seconds
    (accuracy, loss, scores["adapted refit"]), seconds = timed(
        device_of(model), lambda: evaluate_with_refit(model, job.test, refit)
    )
    return accuracy, loss, scores, seconds


def _each(functions: list[_OnBatch]) -> _OnBatch | None:
    """Return a function that calls each; None without any."""

    def call(rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        for function in functions:
            function(rows, logits, labels)

    return call if functions else None


def _profile_like(
    original: Profile, model: nn.Module, data: LabeledDataset, labels: str, on_batch: _OnBatch | None
) -> Profile:
    """Compute a profile that is comparable with the original one, and feed others in the same pass."""
    origin = original.origin
    found = profile(
        model,
        data.batches(device=device_of(model)),
        layer=origin.layer,
        reduction=origin.reduction,
        classes=data.classes if labels == "true" else None,
        labels=labels,
        preprocessing=data.preprocessing if origin.preprocessing else "",  # the original may not have named it
        on_batch=on_batch,
    )
    found.class_names = data.class_names if labels == "true" else ()
    return found


def _output_collector(data: LabeledDataset, width: int | None) -> OutputCollector | None:
    """Return a collector for the baselines; None without a dense head, or if the products would not fit."""
    if width is None or not RefitSums.fit_into_memory(width):
        return None
    return OutputCollector(data.classes, len(data))

"""Candidate predictors of what an update costs: what forward passes, and at most ten steps, tell before training.

Three things are told apart. What can still be reached with the features as they are is seen by refitting the head.
What was lost is the difference from the same refit on the original data. What is merely displaced is seen by moving
the new features, or the statistics of the layers, back to where the original ones were.

*Features* are the inputs of the last dense layer, after pooling, in float64. *Adapted* is the model whose layers follow
the new data: with batch norm, its statistics are re-estimated; without, each convolution's channels get the mean and
variance that they had on the original data. All numbers are deterministic, given the model, the data and the seed.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.indices.baselines.model_outputs import KNN_SAMPLES
from resque.indices.baselines.transferability import knn_accuracy
from resque.models.adaptation import adapt
from resque.models.channel_matching import Channels, ObservedChannels, matching
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of, eval_mode, forward
from resque.models.layers import PENULTIMATE, head
from resque.models.randomness import isolated_random_state
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.trainer import Trainer

SHRINKAGE = 1e-2
PENALTIES = tuple(np.logspace(-6, 2, 17).tolist())
STEPS = (1, 10)
GRADIENT_SAMPLES = 1024
Moments = tuple[Tensor, Tensor]
Values = dict[str, float]
Candidates = dict[str, float | None]


@dataclass(frozen=True)
class Pass:
    """Outputs of a model on a dataset.

    Attributes:
        features: ``(n, d)`` float64, inputs of the head.
        logits: ``(n, classes)`` float64.
        labels: ``(n,)`` class numbers.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        """Share of the samples that the model classifies correctly."""
        return share_correct(self.logits, self.labels)

    @property
    def means(self) -> dict[int, Tensor]:
        """Class → ``(d,)`` mean of its features."""
        return {label: self.features[self.labels == label].mean(0) for label in torch.unique(self.labels).tolist()}


@dataclass(frozen=True)
class Original:
    """What is kept of a model and its original data, computed once.

    Attributes:
        train: Outputs on the data that the model was trained on.
        test: Outputs on held-out original data.
        refit: Head refit on the original features.
        channels: Convolution → sums over its channels.
        values: Candidates that depend on the original data alone.
    """

    train: Pass
    test: Pass
    refit: "LinearHead"
    channels: Channels
    values: Values


@dataclass(frozen=True)
class LinearHead:
    """Linear map from features to one number per class.

    Attributes:
        weight: ``(classes, d)``.
        bias: ``(classes,)``.
        penalty: Ridge penalty that was chosen.
    """

    weight: Tensor
    bias: Tensor
    penalty: float

    def accuracy(self, outputs: Pass) -> float:
        """Return the share of samples whose own class gets the largest number."""
        return share_correct(outputs.features @ self.weight.T + self.bias, outputs.labels)


def share_correct(scores: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest score is that of their label."""
    return float((scores.argmax(1) == labels).double().mean())


def outputs_on(model: nn.Module, data: LabeledDataset) -> Pass:
    """Collect the features, logits and labels of a dataset in one forward pass."""
    parts = []
    with capture_features(model, PENULTIMATE) as extract:
        for inputs, labels in data.batches(device=device_of(model)):
            features, logits = extract(inputs)
            parts.append((features.double().cpu(), logits.double().cpu(), labels.cpu()))
    return Pass(*(torch.cat(column) for column in zip(*parts, strict=True)))


def refit_head(outputs: Pass, classes: int, penalties: tuple[float, ...] = PENALTIES) -> LinearHead:
    """Refit a linear head in closed form: ridge regression on one-hot labels, with an intercept.

    With the singular values ``s`` of the centered features, a penalty ``p`` is a factor times the mean of ``s²``. The
    factor with the smallest mean squared leave-one-out residual ``(y - ŷ) / (1 - h)`` is taken, where ``h`` is the
    leverage of a sample. What a head can reach shows whether features still tell the classes apart.

    References:
        Hoerl and Kennard, Ridge regression, 1970; Allen, PRESS, 1974; Golub, Heath and Wahba, GCV, 1979. Linear
        probes: Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016.
    """
    targets = F.one_hot(outputs.labels, classes).double()
    center, share = outputs.features.mean(0), targets.mean(0)
    left, singular, right = torch.linalg.svd(outputs.features - center, full_matrices=False)
    square, projected = singular**2, left.T @ (targets - share)
    best: tuple[float, float] | None = None
    for penalty in (factor * float(square.mean()) for factor in penalties):
        shrunk = square / (square + penalty)
        leverage = 1.0 / len(targets) + (left**2) @ shrunk
        residuals = (targets - share - left @ (shrunk[:, None] * projected)) / (1.0 - leverage)[:, None]
        error = float((residuals**2).mean())
        best = (error, penalty) if best is None or error < best[0] else best
    assert best is not None
    weight = (right.T @ ((singular / (square + best[1]))[:, None] * projected)).T
    return LinearHead(weight, share - weight @ center, best[1])


def fisher_ratio(outputs: Pass) -> float:
    """Compute ``tr(S_between) / tr(S_within)``: how far classes lie apart, for their spread.

    References:
        Fisher, The use of multiple measurements in taxonomic problems, 1936; Fukunaga, 1990 (ratio of traces).
    """
    means, center = outputs.means, outputs.features.mean(0)
    own = torch.stack([means[label] for label in outputs.labels.tolist()])
    return float(((own - center) ** 2).sum() / ((outputs.features - own) ** 2).sum())


def nearest_neighbors(outputs: Pass) -> float:
    """Compute the leave-one-out accuracy of five nearest neighbors, on at most 2,000 samples drawn at random.

    References:
        Cover and Hart, Nearest neighbor pattern classification, 1967.
    """
    rows = np.random.default_rng(0).permutation(len(outputs.labels))[:KNN_SAMPLES]
    return knn_accuracy(outputs.features.numpy()[rows], outputs.labels.numpy()[rows])


def moments(values: Tensor) -> Moments:
    """Return mean and variance of each column."""
    return values.mean(0), values.var(0, correction=0)


def aligned_features(test: Tensor, new: Tensor, original: Tensor) -> Tensor:
    """Move features to the mean and variance of the original ones: ``(f - m_new) · s_old / s_new + m_old``.

    No label is used. A shift that scales and moves features is undone, one that destroys information is not.

    References:
        Nado et al., Evaluating prediction-time batch normalization, 2020 (the same, within layers).
    """
    scale, offset = matching(moments(new), moments(original))
    return test * scale + offset


def coral_features(test: Tensor, new: Tensor, original: Tensor, shrinkage: float = SHRINKAGE) -> Tensor:
    """Move features to mean and covariance of the original ones: ``(f - m_new) C_new^(-1/2) C_old^(1/2) + m_old``.

    A share of the mean original variance is added to the diagonals of both covariances, where the source adds 1.

    References:
        Sun, Feng and Saenko, Return of frustratingly easy domain adaptation, AAAI 2016.
    """
    old = torch.cov(original.T, correction=0)
    extra = shrinkage * old.diagonal().mean() * torch.eye(len(old), dtype=old.dtype)
    whitened = matrix_power(torch.cov(new.T, correction=0) + extra, -0.5)
    return (test - new.mean(0)) @ whitened @ matrix_power(old + extra, 0.5) + original.mean(0)


def matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """Raise a symmetric positive definite matrix to a real power."""
    values, vectors = torch.linalg.eigh(matrix)
    powers: Tensor = values.clamp_min(torch.finfo(values.dtype).tiny) ** exponent
    power: Tensor = (vectors * powers) @ vectors.T
    return power


def head_accuracy(model: nn.Module, features: Tensor, labels: Tensor) -> float:
    """Compute the accuracy of the model's own head on features."""
    last = head(model)
    with torch.no_grad():
        return share_correct(last(features.to(device_of(last), torch.float32)).cpu(), labels)


def channel_sums(model: nn.Module, data: LabeledDataset) -> Channels:
    """Sum the channels of each convolution's output, without labels; the model is left as it was found."""
    observed = ObservedChannels()
    with observed.attached(model), eval_mode(model):
        for inputs, _ in data.batches(device=device_of(model)):
            forward(model, inputs)
            observed.end_batch()
    return observed.channels or {}


def certainty(outputs: Pass) -> Values:
    """Compute mean entropy in nats, mean confidence, and mean margin (largest minus second probability).

    References:
        Guillory et al., Predicting with confidence on unseen distributions, ICCV 2021 (difference of confidences).
    """
    logs = outputs.logits.log_softmax(1)
    largest = logs.exp().topk(2).values
    return {
        "entropy": float(-(logs.exp() * logs).sum(1).mean()),
        "confidence": float(largest[:, 0].mean()),
        "margin": float((largest[:, 0] - largest[:, 1]).mean()),
    }


def displacement(new: Pass, original: Pass) -> Values:
    """Compare where classes are with where they were, over the classes that both have.

    ``displacement``: mean over classes of ``||m_new - m_old|| / s_old``, where ``s_old²`` is the mean squared distance
    of the class's original features from their mean. ``separation``: mean distance of two class means, new over old.

    References:
        The RESQUE index takes the angle of the first; see Sangarya and Kim, RESQUE, AAAI 2025.
    """
    means, before = new.means, original.means
    shared = [label for label in means if label in before]
    moved = [
        float((means[label] - before[label]).norm() / rms_distance(original, label, before[label])) for label in shared
    ]
    distances = [torch.pdist(torch.stack([each[label] for label in shared])).mean() for each in (means, before)]
    return {"displacement": float(np.mean(moved)), "separation": float(distances[0] / distances[1])}


def rms_distance(outputs: Pass, label: int, mean: Tensor) -> Tensor:
    """Return the root of the mean squared distance of a class's features from their mean."""
    return ((outputs.features[outputs.labels == label] - mean) ** 2).sum(1).mean().sqrt()


def first_steps(model: nn.Module, job: RetrainingJob) -> Values:
    """Take the first steps of the very update on a copy, and evaluate it on the test data after 1 and 10 of them.

    The copy, the data order and the recipe are those of the run, so that its curve has the same values. Ten steps are
    far fewer than a pilot.
    """
    stepped = copy.deepcopy(model)
    values: Values = {}
    with isolated_random_state(device_of(model), job.seed):
        trainer = Trainer(stepped, job.train, job.recipe, job.seed)
        for count in STEPS:
            while trainer.step_count < count:
                trainer.step()
            accuracy, loss = evaluate_dataset(stepped, job.test)
            values |= {f"accuracy after {count}": accuracy, f"loss after {count}": loss}
        trainer.end()
    return values


def gradient_norms(model: nn.Module, job: RetrainingJob) -> Values:
    """Compute the squared norm and the 1-norm of the loss's gradient on 1,024 training samples, before any step.

    To first order, a step of gradient descent lowers the loss by rate × squared norm. A first step of Adam, which
    takes signs, lowers it by rate × 1-norm.

    References:
        Kingma and Ba, Adam, 2015; Balles and Hennig, Dissecting Adam, 2018 (signs).
    """
    probe = copy.deepcopy(model).train()
    inputs, labels = next(job.train.limited(GRADIENT_SAMPLES).batches(GRADIENT_SAMPLES, device_of(model)))
    with isolated_random_state(device_of(model), job.seed):
        torch.autograd.backward(F.cross_entropy(forward(probe, inputs), labels))
    flat = torch.cat([p.grad.flatten() for p in probe.parameters() if p.grad is not None]).double()
    return {"gradient squared norm": float(flat @ flat), "gradient 1-norm": float(flat.abs().sum())}


def original_state(model: nn.Module, train: LabeledDataset, test: LabeledDataset) -> Original:
    """Compute what is kept of a model and its original data."""
    trained, held_out = outputs_on(model, train), outputs_on(model, test)
    refit = refit_head(trained, trained.logits.shape[1])
    values = {
        "accuracy": held_out.accuracy,
        "refit accuracy": refit.accuracy(held_out),
        "Fisher ratio": fisher_ratio(trained),
        "k-NN accuracy": nearest_neighbors(trained),
        **certainty(held_out),
    }
    channels = channel_sums(model, train)
    return Original(trained, held_out, refit, channels, {f"{name}, original": value for name, value in values.items()})


def scores_of(train: Pass, test: Pass, original: Original) -> Values:
    """Compute the candidates that need outputs on new data alone, for the model as it is or adapted."""
    refit = refit_head(train, train.logits.shape[1])
    return {
        "accuracy": test.accuracy,
        "loss": float(F.cross_entropy(test.logits, test.labels)),
        "refit accuracy": refit.accuracy(test),
        "original refit accuracy": original.refit.accuracy(test),
        "Fisher ratio": fisher_ratio(train),
        "k-NN accuracy": nearest_neighbors(train),
        **certainty(test),
        **displacement(train, original.train),
    }


def alignment(model: nn.Module, train: Pass, test: Pass, original: Original) -> Values:
    """Compute the accuracy of the model's own head on features moved to the original moments; see the two maps."""
    maps: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "aligned accuracy": aligned_features,
        "CORAL accuracy": coral_features,
    }
    return {
        name: head_accuracy(model, move(test.features, train.features, original.train.features), test.labels)
        for name, move in maps.items()
    }


def candidates(model: nn.Module, job: RetrainingJob, original: Original) -> tuple[Candidates, dict[str, float]]:
    """Compute all candidates of an update.

    Args:
        model: Model as it is now; it is left as it was found.
        job: Update to be forecast.
        original: What is kept of the model and its original data.

    Returns:
        Candidate → value, None if it is undefined on these data; and group of candidates → seconds.
    """
    values: Values = dict(original.values)
    seconds: dict[str, float] = {}
    start = now(device_of(model))

    def timed(group: str, compute: Callable[[], Values]) -> None:
        nonlocal start
        values.update(compute())
        end = now(device_of(model))
        seconds[group], start = end - start, end

    train, test = outputs_on(model, job.train), outputs_on(model, job.test)
    timed("passes", lambda: scores_of(train, test, original))
    timed("alignment", partial(alignment, model, train, test, original))

    def adapted() -> Values:
        copied = adapt(model, job.train.batches(device=device_of(model)), original.channels) or model
        scores = scores_of(outputs_on(copied, job.train), outputs_on(copied, job.test), original)
        return {f"{name}, adapted": value for name, value in scores.items()}

    timed("adapted", adapted)
    timed("first steps", partial(first_steps, model, job))
    timed("gradient", partial(gradient_norms, model, job))
    return {name: value if math.isfinite(value) else None for name, value in values.items()}, seconds

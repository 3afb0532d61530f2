"""What others would use in the index's place, from one pass: transfer scores, distances, what people look at first.

Transfer scores tell how well features fit labels: larger means better, so a cost runs the other way. Distances, drop in
accuracy and loss grow with the cost. Each score says which, and of how many samples and features it is, because most
depend on both.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from resque._arrays import as_tensor
from resque.errors import RepresentationError
from resque.indices.baselines.moments import Moments

_EPS = 1e-4
FEWEST_FOR_SHRINKAGE = 5.0
_ROUNDS = 200


def h_score(moments: Moments) -> float:
    """``tr(cov(f)^+ cov(E[f | y]))``, in [0, classes - 1]; on pure noise it is at its largest once n ≤ d.

    References:
        Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019.

    Example:
        >>> moments = Moments([0, 1])
        >>> moments.update([[0.0], [0.2], [1.0], [1.2]], [0, 0, 1, 1])
        >>> round(h_score(moments), 4)
        0.9615
    """
    return float(np.trace(np.linalg.pinv(moments.covariance, hermitian=True) @ moments.covariance_of_means))


def shrunk_h_score(moments: Moments) -> float:
    """The H-score with a covariance shrunk as Ledoit and Wolf have it: meaningful also for few samples.

    References:
        Ibrahim, Ponomareva and Mazumder, Newer is not always better, arXiv 2110.06893.
    """
    share, covariance = moments.shrinkage, moments.covariance
    identity = np.eye(moments.width) * np.trace(covariance) / moments.width
    shrunk = (1.0 - share) * covariance + share * identity
    between = (1.0 - share) * moments.covariance_of_means
    return float(np.trace(np.linalg.pinv(shrunk, hermitian=True) @ between))


def logme(moments: Moments) -> float:
    """The log evidence per sample of linear models of the one-hot labels, mean over classes.

    With k, the rank of the features, where the authors' code has the width: theirs is wrong for fewer samples than
    features.

    References:
        You et al., LogME: practical assessment of pre-trained models for transfer learning, ICML 2021.
    """
    origin = np.zeros(moments.width)
    squares, vectors = np.linalg.eigh(moments.products_about(origin).sum(0))
    kept = squares > max(squares.max(), 0.0) * max(moments.width, 1) * np.finfo(float).eps
    squares, vectors = squares[kept], vectors[:, kept]
    counts = moments.counts[moments.counts > 0]
    towards = (moments.means * counts[:, None]) @ vectors  # F^T y of each one-hot column, in the eigenvectors
    return float(
        np.mean(
            [_evidence(squares, own**2 / squares, float(n), moments.n) for own, n in zip(towards, counts, strict=True)]
        )
    )


def _evidence(s: np.ndarray, explained: np.ndarray, square: float, n: int) -> float:
    """The largest log evidence per sample of one column: ``s`` eigenvalues, ``explained`` its squares along them."""
    rest, ratio = max(square - float(explained.sum()), 0.0), 1.0
    for _ in range(_ROUNDS):
        known = float((s / (s + ratio)).sum())
        weights = float((s * explained / (ratio + s) ** 2).sum())
        misfit = float((explained / (1.0 + s / ratio) ** 2).sum()) + rest
        alpha, beta = known / (weights + 1e-5), (n - known) / (misfit + 1e-5)
        before, ratio = ratio, alpha / beta
        if abs(ratio - before) <= 1e-9 * before:
            break
    weights = float((s * explained / (ratio + s) ** 2).sum())
    misfit = float((explained / (1.0 + s / ratio) ** 2).sum()) + rest
    evidence = (
        0.5 * len(s) * math.log(alpha)
        + 0.5 * n * math.log(beta)
        - 0.5 * float(np.log(alpha + beta * s).sum())
        - 0.5 * beta * misfit
        - 0.5 * alpha * weights
        - 0.5 * n * math.log(2.0 * math.pi)
    )
    return evidence / n


def transrate(moments: Moments) -> float:
    """``R(F) - sum_c (n_c / n) R(F_c)`` with ``R(F) = logdet(I + F^T F / (n eps)) / 2``, centred once.

    It depends on n and on how unequal the classes are: compare at equal n and width alone.

    References:
        Huang et al., Frustratingly easy transferability estimation, ICML 2022.
    """
    products, counts = moments.products_about(moments.mean), moments.counts[moments.counts > 0]
    return _rate(products.sum(0), moments.n) - float(
        sum(share * _rate(own, n) for own, n, share in zip(products, counts, moments.shares, strict=True))
    )


def _rate(products: np.ndarray, n: float) -> float:
    return 0.5 * float(np.linalg.slogdet(np.eye(len(products)) + products / (n * _EPS))[1])


def gbc(moments: Moments) -> float:
    """``-log sum_{i != j} exp(-D_B(i, j))``: how little the classes, as diagonal Gaussians, overlap.

    The published form, ``-sum exp``, underflows to 0 for classes that are well apart; this one orders alike.

    References:
        Pandy et al., Transferability estimation using Bhattacharyya class separability, CVPR 2022.
    """
    means, variances = moments.means, np.maximum(moments.variances, _EPS * max(float(moments.variances.mean()), 1e-12))
    if len(means) < 2:
        raise RepresentationError("separability needs two classes or more")
    both = (variances[:, None] + variances[None, :]) / 2.0
    distance = ((means[:, None] - means[None, :]) ** 2 / both).sum(-1) / 8.0
    distance += (np.log(both) - (np.log(variances)[:, None] + np.log(variances)[None, :]) / 2.0).sum(-1) / 2.0
    return -float(logsumexp(-distance[~np.eye(len(means), dtype=bool)]))


def frechet_distance(one: Moments, other: Moments) -> float:
    """``|m - m'|^2 + tr(S + S' - 2 (S S')^{1/2})`` of two sets of features.

    References:
        Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017.
    """
    _check_widths(one, other)
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other.covariance @ root), 0.0)).sum()
    spread = float(np.trace(one.covariance) + np.trace(other.covariance) - 2.0 * cross)
    return linear_mmd(one, other) + max(spread, 0.0)


def linear_mmd(one: Moments, other: Moments) -> float:
    """``|m - m'|^2``: the squared distance of the mean features, noise included."""
    _check_widths(one, other)
    return float(((one.mean - other.mean) ** 2).sum())


def _check_widths(one: Moments, other: Moments) -> None:
    if one.width != other.width:
        raise RepresentationError(f"features of widths {one.width} and {other.width} have no distance")


def nce(predicted: Any, labels: Any) -> float:
    """``-H(Y | Z)`` in nats, of the new labels given the old classes that the model predicts.

    Args:
        predicted: ``(n,)`` integers.
        labels: ``(n,)`` integers.

    References:
        Tran, Nguyen and Hassner, Transferability and hardness of supervised classification tasks, ICCV 2019.

    Example:
        >>> nce([0, 0, 1, 1], [5, 5, 7, 7]) == 0.0
        True
    """
    joint = np.zeros((len(np.unique(labels)), len(np.unique(predicted))))
    rows, columns = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (labels, predicted))
    np.add.at(joint, (rows, columns), 1.0 / len(rows))
    given = joint / joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log(given[joint > 0])).sum())


def leep(probabilities: Any, labels: Any) -> float:
    """``mean log sum_z P(y | z) theta(x)_z``, the log likelihood of the labels given the old classes' probabilities.

    Args:
        probabilities: ``(n, old classes)``, the model's softmax.
        labels: ``(n,)`` integers.

    References:
        Nguyen et al., LEEP: a new measure to evaluate transferability of learned representations, ICML 2020.
    """
    theta = as_tensor(probabilities).double().cpu().numpy()
    theta = theta[:, theta.sum(0) > 0.0]
    classes, own = np.unique(np.asarray(labels), return_inverse=True)
    joint = np.zeros((len(classes), theta.shape[1]))
    np.add.at(joint, own, theta)
    given = joint / joint.sum(0, keepdims=True)
    return float(np.log((given[own] * theta).sum(1)).mean())


def average_thresholded_confidence(source: Any, correct: Any, target: Any) -> float:
    """The accuracy on new data without their labels: the share above the confidence that the original accuracy sets.

    Args:
        source: ``(n,)`` confidences on original data held out.
        correct: ``(n,)`` whether each was classified correctly.
        target: ``(m,)`` confidences on the new data.

    References:
        Garg et al., Leveraging unlabeled data to predict out-of-distribution performance, ICLR 2022.

    Example:
        >>> average_thresholded_confidence([0.9, 0.8, 0.6, 0.4], [True, True, True, False], [0.7, 0.5, 0.3, 0.99])
        0.75
    """
    known, right = np.sort(np.asarray(source, dtype=float)), float(np.mean(correct))
    below = round((1.0 - right) * len(known))
    threshold = -math.inf if below == 0 else known[below - 1]
    return float((np.asarray(target, dtype=float) > threshold).mean())


def knn_accuracy(rows: np.ndarray, labels: np.ndarray, neighbours: int = 5) -> float:
    """The share of samples whose nearest others vote for their class; each is held out in turn."""
    few = min(neighbours, len(rows) - 1)
    if few < 1:
        raise RepresentationError("neighbours need two samples or more")
    distances = torch.cdist(torch.from_numpy(rows), torch.from_numpy(rows)).fill_diagonal_(math.inf)
    near = distances.topk(few, largest=False).indices.numpy()
    classes, own = np.unique(labels, return_inverse=True)
    votes = (own[near][:, :, None] == np.arange(len(classes))).sum(1)
    return float((votes.argmax(1) == own).mean())

"""Define the baselines of the index: transferability scores and distances between datasets.

Transferability scores tell how well features fit labels: the larger, the lower the cost. Distances between datasets
grow with the cost. Most depend on the number of samples and of features: compare them at equal numbers only.

Notation: ``f`` is a representation ``(d,)``, ``y`` its label, ``n`` the number of samples, ``z`` a class of the model
and ``theta(x)_z`` its softmax probability; ``^+`` is the pseudoinverse.
"""

import math
from typing import Any

import numpy as np
import torch

from resque._arrays import as_tensor
from resque.errors import RepresentationError
from resque.indices.baselines.moments import Moments

__all__ = [
    "average_thresholded_confidence", "frechet_distance", "gbc", "h_score", "knn_accuracy", "leep", "linear_mmd",
    "logme", "nce", "shrunk_h_score", "transrate",
]  # fmt: skip

_EPS = 1e-4
_MAX_ITERATIONS = 200
_PSEUDOINVERSE_TOLERANCE = 1e-15


def h_score(moments: Moments) -> float:
    """Compute the H-score ``tr(cov(f)^+ cov(E[f | y]))``, in [0, classes - 1].

    It reaches its maximum on pure noise once n ≤ d: use :func:`shrunk_h_score` for few samples.

    References:
        Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019.

    Example:
        >>> moments = Moments([0, 1])
        >>> moments.update([[0.0], [0.2], [1.0], [1.2]], [0, 0, 1, 1])
        >>> round(h_score(moments), 4)
        0.9615
    """
    return _explained(moments.covariance, moments)


def shrunk_h_score(moments: Moments) -> float:
    """Compute the H-score with a shrunk covariance: ``tr(S_w^-1 (1 - w) cov(E[f | y]))``.

    ``S_w = (1 - w) cov(f) + w (tr cov(f) / d) I`` with the weight ``w`` of Ledoit and Wolf.

    References:
        Ibrahim, Ponomareva and Mazumder, Newer is not always better, arXiv 2110.06893.

    Example:
        >>> moments = Moments([0, 1])
        >>> moments.update([[0.0], [0.2], [1.0], [1.2]], [0, 0, 1, 1])
        >>> round(shrunk_h_score(moments), 4)
        0.9615
    """
    weight, covariance = moments.shrinkage, moments.covariance
    identity = np.eye(moments.width) * np.trace(covariance) / moments.width
    shrunk = (1.0 - weight) * covariance + weight * identity
    return (1.0 - weight) * _explained(shrunk, moments)


def _explained(covariance: np.ndarray, moments: Moments) -> float:
    """Return ``tr(covariance^+ cov(E[f | y]))``, along eigenvectors: rounding is no variance between the classes."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    kept = eigenvalues > max(eigenvalues.max(), 0.0) * _PSEUDOINVERSE_TOLERANCE
    between = moments.shares @ ((moments.means - moments.mean) @ vectors[:, kept]) ** 2
    return float((between / eigenvalues[kept]).sum())


def logme(moments: Moments) -> float:
    """Compute LogME: the maximal log evidence per sample of linear models of the one-hot labels, mean over classes.

    ``(1/n) max over alpha, beta of log p(y | F, alpha, beta)`` for the features ``F`` ``(n, d)``, the prior precision
    ``alpha`` and the noise precision ``beta``. The evidence takes the rank of the features, where the authors' code
    takes d: theirs is wrong for fewer samples than features.

    References:
        You et al., LogME: practical assessment of pre-trained models for transfer learning, ICML 2021.

    Example:
        >>> moments = Moments([0, 1])
        >>> moments.update([[0.0], [0.2], [1.0], [1.2]], [0, 0, 1, 1])
        >>> round(logme(moments), 4)
        -0.514
    """
    origin = np.zeros(moments.width)
    eigenvalues, vectors = np.linalg.eigh(moments.products_about(origin))
    kept = eigenvalues > _rounding(eigenvalues)
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    counts = moments.counts[moments.counts > 0]
    projected = (moments.means * counts[:, None]) @ vectors  # F^T y of each one-hot column y, in the eigenvectors
    explained = projected**2 / eigenvalues
    return float(_evidences(eigenvalues, explained, counts.astype(float), moments.n).mean())


def _rounding(eigenvalues: np.ndarray) -> float:
    """Return the size up to which eigenvalues are rounding of zero."""
    return max(float(eigenvalues.max()), 0.0) * len(eigenvalues) * float(np.finfo(float).eps)


def _evidences(s: np.ndarray, explained: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """Maximize the log evidence per sample of each column y by MacKay's fixed-point iteration of ``alpha / beta``.

    Args:
        s: ``(k,)`` eigenvalues of ``F^T F``.
        explained: ``(c, k)`` squares of each y along the eigenvectors.
        squares: ``(c,)`` ``||y||^2`` of each.
        n: Number of samples.
    """
    residual, ratio = np.maximum(squares - explained.sum(1), 0.0), np.ones(len(squares))
    alpha, beta, active = np.ones(len(squares)), np.ones(len(squares)), np.arange(len(squares))

    def fit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the number of well-determined parameters, and the squared norms of the weights and of the misfit."""
        kept = s / (s + ratio[rows, None])
        misfit = explained[rows] * (1.0 - kept) ** 2
        return kept.sum(1), (explained[rows] * kept**2 / s).sum(1), misfit.sum(1) + residual[rows]

    for _ in range(_MAX_ITERATIONS):
        effective, weights, misfit = fit(active)
        alpha[active], beta[active] = effective / (weights + 1e-5), (n - effective) / (misfit + 1e-5)
        before, ratio[active] = ratio[active], alpha[active] / beta[active]
        active = active[np.abs(ratio[active] - before) > 1e-9 * before]
        if not len(active):
            break
    _, weights, misfit = fit(np.arange(len(squares)))
    evidences: np.ndarray = (
        (0.5 * len(s) * np.log(alpha) if len(s) else 0.0)  # all features are zero
        + 0.5 * n * np.log(beta)
        - 0.5 * np.log(alpha[:, None] + beta[:, None] * s).sum(1)
        - 0.5 * beta * misfit
        - 0.5 * alpha * weights
        - 0.5 * n * math.log(2.0 * math.pi)
    )
    return evidences / n


def transrate(moments: Moments) -> float:
    """Compute TransRate ``R(F) - sum_c (n_c / n) R(F_c)``, where F is centered once, by the mean of all samples.

    ``R(F) = logdet(I + F^T F / (n eps)) / 2`` with eps = 1e-4. It depends on n and on the class shares: compare it at
    equal n, width and shares only. It takes the products of one class after another.

    Args:
        moments: Moments with products by class.

    Raises:
        RepresentationError: The products were not kept by class.

    References:
        Huang et al., Frustratingly easy transferability estimation, ICML 2022.

    Example:
        >>> moments = Moments([0, 1], by_class=True)
        >>> moments.update([[0.0], [0.2], [1.0], [1.2]], [0, 0, 1, 1])
        >>> round(transrate(moments), 4)
        0.0
    """
    mean, counts = moments.mean, moments.counts[moments.counts > 0]
    rates = (_coding_rate(own, n) for own, n in zip(moments.class_products_about(mean), counts, strict=True))
    within = sum(share * rate for share, rate in zip(moments.shares, rates, strict=True))
    return _coding_rate(moments.products_about(mean), moments.n) - float(within)


def _coding_rate(products: np.ndarray, n: float) -> float:
    return 0.5 * float(np.linalg.slogdet(np.eye(len(products)) + products / (n * _EPS))[1])


def gbc(moments: Moments) -> float:
    """Compute the Gaussian Bhattacharyya coefficient ``-log sum_{i != j} exp(-D_B(i, j))``: class separability.

    ``D_B`` is the Bhattacharyya distance of two classes as diagonal Gaussians. The published form, ``-sum exp``,
    underflows to 0 for well separated classes; this one has the same order.

    Raises:
        RepresentationError: Fewer than two classes.

    References:
        Pandy et al., Transferability estimation using Bhattacharyya class separability, CVPR 2022.

    Example:
        >>> moments = Moments([0, 1])
        >>> moments.update([[0.0], [0.2], [1.0], [1.2]], [0, 0, 1, 1])
        >>> round(gbc(moments), 4)
        11.8069
    """
    means, variances = moments.means, np.maximum(moments.variances, _EPS * max(float(moments.variances.mean()), 1e-12))
    if len(means) < 2:
        raise RepresentationError("separability needs two classes or more")
    distances = [_bhattacharyya(means[i:], variances[i:]) for i in range(len(means) - 1)]
    return -float(np.logaddexp.reduce(-np.concatenate(distances))) - math.log(2.0)  # each pair counts in both orders


def _bhattacharyya(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return the Bhattacharyya distances of the first diagonal Gaussian from each of the others."""
    pooled = (variances[0] + variances[1:]) / 2.0
    distance: np.ndarray = ((means[0] - means[1:]) ** 2 / pooled).sum(1) / 8.0
    distance += (np.log(pooled) - (np.log(variances[0]) + np.log(variances[1:])) / 2.0).sum(1) / 2.0
    return distance


def frechet_distance(first: Moments, second: Moments) -> float:
    """Compute the Fréchet distance ``||m - m'||^2 + tr(S + S' - 2 (S S')^{1/2})`` of two sets of features.

    ``m`` and ``S`` are the mean and the covariance of a set.

    Raises:
        RepresentationError: The widths differ.

    References:
        Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017.

    Example:
        >>> first, second = Moments([0]), Moments([0])
        >>> first.update([[0.0], [2.0]], [0, 0])
        >>> second.update([[3.0], [9.0]], [0, 0])
        >>> frechet_distance(first, second)
        29.0
    """
    _check_widths(first, second)
    covariances = first.covariance, second.covariance
    root = _root(covariances[0])
    eigenvalues = np.linalg.eigvalsh(root.T @ covariances[1] @ root)
    cross = np.sqrt(eigenvalues[eigenvalues > _rounding(eigenvalues)]).sum()
    spread = float(np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * cross)
    return linear_mmd(first, second) + max(spread, 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return a matrix R with ``R R^T`` = covariance: Cholesky's, a tenth of the time, where it is positive definite."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0))
        return root


def linear_mmd(first: Moments, second: Moments) -> float:
    """Compute ``||m - m'||^2``, the squared distance of the mean features; it includes sampling noise.

    Raises:
        RepresentationError: The widths differ.

    Example:
        >>> first, second = Moments([0]), Moments([0])
        >>> first.update([[0.0], [2.0]], [0, 0])
        >>> second.update([[3.0], [9.0]], [0, 0])
        >>> linear_mmd(first, second)
        25.0
    """
    _check_widths(first, second)
    return float(((first.mean - second.mean) ** 2).sum())


def _check_widths(first: Moments, second: Moments) -> None:
    if first.width != second.width:
        raise RepresentationError(f"features of widths {first.width} and {second.width} have no distance")


def nce(predicted: Any, labels: Any) -> float:
    """Compute the negative conditional entropy ``-H(Y | Z)`` in nats, of the new labels given the predicted classes.

    Args:
        predicted: ``(n,)`` integers, classes that the model predicts.
        labels: ``(n,)`` integers, labels of the new data.

    References:
        Tran, Nguyen and Hassner, Transferability and hardness of supervised classification tasks, ICCV 2019.

    Example:
        >>> nce([0, 0, 1, 1], [5, 5, 7, 7]) == 0.0
        True
    """
    joint = np.zeros((len(np.unique(labels)), len(np.unique(predicted))))
    rows, columns = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (labels, predicted))
    np.add.at(joint, (rows, columns), 1.0 / len(rows))
    conditional = joint / joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log(conditional[joint > 0])).sum())


def leep(probabilities: Any, labels: Any) -> float:
    """Compute LEEP ``mean log sum_z P(y | z) theta(x)_z``, the log likelihood of the labels given the softmax.

    ``P(y | z)`` comes from ``P(y, z) = (1/n) sum of theta(x_i)_z over i with y_i = y``. Classes z without any mass are
    left out.

    Args:
        probabilities: ``(n, classes of the model)`` softmax of the model.
        labels: ``(n,)`` integers, labels of the new data.

    References:
        Nguyen et al., LEEP: a new measure to evaluate transferability of learned representations, ICML 2020.

    Example:
        >>> leep([[1.0, 0.0], [0.0, 1.0]], [5, 7])
        0.0
    """
    theta = as_tensor(probabilities).double().cpu().numpy()
    theta = theta[:, theta.sum(0) > 0.0]
    classes, class_index = np.unique(np.asarray(labels), return_inverse=True)
    joint = np.zeros((len(classes), theta.shape[1]))
    np.add.at(joint, class_index, theta)
    conditional = joint / joint.sum(0, keepdims=True)
    return float(np.log((conditional[class_index] * theta).sum(1)).mean())


def average_thresholded_confidence(source: Any, correct: Any, target: Any) -> float:
    """Estimate the accuracy on new data without their labels (ATC).

    It is the share of new samples whose confidence exceeds the threshold above which, on original data, the share of
    samples equals the accuracy.

    Args:
        source: ``(n,)`` confidences on held-out original data.
        correct: ``(n,)`` whether each of those samples was classified correctly.
        target: ``(m,)`` confidences on the new data.

    References:
        Garg et al., Leveraging unlabeled data to predict out-of-distribution performance, ICLR 2022.

    Example:
        >>> average_thresholded_confidence([0.9, 0.8, 0.6, 0.4], [True, True, True, False], [0.7, 0.5, 0.3, 0.99])
        0.75
    """
    confidences, accuracy = np.sort(np.asarray(source, dtype=float)), float(np.mean(correct))
    below = round((1.0 - accuracy) * len(confidences))
    threshold = -math.inf if below == 0 else confidences[below - 1]
    return float((np.asarray(target, dtype=float) > threshold).mean())


def knn_accuracy(rows: np.ndarray, labels: np.ndarray, neighbors: int = 5) -> float:
    """Compute leave-one-out k-NN accuracy: the share of samples whose nearest others vote for their class.

    Args:
        rows: ``(n, d)`` float64 features.
        labels: ``(n,)`` integers.
        neighbors: Number k of neighbors; n - 1 at most are used.

    Raises:
        RepresentationError: Fewer than two samples.

    Example:
        >>> knn_accuracy(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([3, 3, 8, 8]), neighbors=1)
        1.0
    """
    k = min(neighbors, len(rows) - 1)
    if k < 1:
        raise RepresentationError("neighbors need two samples or more")
    distances = torch.cdist(torch.from_numpy(rows), torch.from_numpy(rows)).fill_diagonal_(math.inf)
    nearest = distances.topk(k, largest=False).indices.numpy()
    classes, class_index = np.unique(labels, return_inverse=True)
    votes = (class_index[nearest][:, :, None] == np.arange(len(classes))).sum(1)
    return float((votes.argmax(1) == class_index).mean())

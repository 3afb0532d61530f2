"""Baselines of the RESQUE indices: transferability scores, shift distances and plain metrics, from one forward pass."""

from resque.indices.baselines.model_outputs import ModelOutputs, collect_outputs
from resque.indices.baselines.moments import Moments
from resque.indices.baselines.scores import BaselineScore, baseline_scores
from resque.indices.baselines.transferability import (
    average_thresholded_confidence,
    frechet_distance,
    gbc,
    h_score,
    knn_accuracy,
    leep,
    linear_mmd,
    logme,
    nce,
    shrunk_h_score,
    transrate,
)

__all__ = [
    "BaselineScore", "ModelOutputs", "Moments", "average_thresholded_confidence", "baseline_scores", "collect_outputs",
    "frechet_distance", "gbc", "h_score", "knn_accuracy", "leep", "linear_mmd", "logme", "nce", "shrunk_h_score",
    "transrate",
]  # fmt: skip

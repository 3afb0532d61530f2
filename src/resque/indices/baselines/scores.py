"""Compute every baseline score of a shift from model outputs, with its direction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from resque.indices.baselines.model_outputs import ModelOutputs
from resque.indices.baselines.moments import Moments
from resque.indices.baselines.transferability import (
    FEWEST_FOR_SHRINKAGE,
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

TRANSFERABILITY: Mapping[str, Callable[[Moments], float]] = {
    "H-score": h_score,
    "shrunk H-score": shrunk_h_score,
    "LogME": logme,
    "TransRate": transrate,
    "GBC": gbc,
}
"""Scores of features and labels alone; larger is better."""
SHIFT_DISTANCES: Mapping[str, Callable[[Moments, Moments], float]] = {
    "Fréchet distance": frechet_distance,
    "linear MMD": linear_mmd,
}
"""Scores of two data sets' features; larger is farther."""


@dataclass(frozen=True)
class BaselineScore:
    """One rival's number.

    Attributes:
        value: The score.
        grows_with_cost: Whether a larger one foretells a larger cost.
        n: Samples it was computed from.
        width: Of the features; 0 where none are used.
        note: What the reader has to know; empty where nothing.
    """

    value: float
    grows_with_cost: bool
    n: int
    width: int = 0
    note: str = ""


def baseline_scores(shifted: ModelOutputs, original: ModelOutputs | None = None) -> dict[str, BaselineScore]:
    """Every rival of the index.

    Args:
        shifted: The model's view of the new data.
        original: Its view of original data held out; without it there is neither drop nor distance.

    Returns:
        Name → score.

    Example:
        >>> from resque import load_data, load_model
        >>> from resque.indices.baselines.model_outputs import collect_outputs
        >>> model, data = load_model("resque.networks:small_cnn"), load_data("digits@16px@test")
        >>> found = baseline_scores(
        ...     collect_outputs(model, load_data("digits@16px@test+blur:5")), collect_outputs(model, data)
        ... )
        >>> found["loss"].grows_with_cost, found["LogME"].grows_with_cost, found["LogME"].width
        (True, False, 64)
    """
    moments, n, d = shifted.moments, shifted.moments.n, shifted.moments.width
    few = (
        f"{n} samples of {d} features: fewer than {FEWEST_FOR_SHRINKAGE:g} each" if n < FEWEST_FOR_SHRINKAGE * d else ""
    )
    found = {
        "loss": BaselineScore(shifted.loss, True, n),
        "mean confidence": BaselineScore(float(shifted.confidence.mean()), False, n),
        "NCE": BaselineScore(nce(shifted.predicted, shifted.labels), False, n),
        "LEEP": BaselineScore(leep(shifted.probabilities, shifted.labels), False, n),
        "k-NN accuracy": BaselineScore(
            knn_accuracy(shifted.sample, shifted.sample_labels), False, len(shifted.sample), d
        ),
    }
    found |= {name: BaselineScore(score(moments), False, n, d, few) for name, score in TRANSFERABILITY.items()}
    if original is None:
        return found
    confident = average_thresholded_confidence(
        original.confidence, original.predicted == original.labels, shifted.confidence
    )
    found["accuracy drop"] = BaselineScore(original.accuracy - shifted.accuracy, True, n)
    found["ATC"] = BaselineScore(confident, False, n, note="without labels of the new data")
    return found | {
        name: BaselineScore(score(original.moments, moments), True, n, d) for name, score in SHIFT_DISTANCES.items()
    }

"""Compute every baseline score of a shift from model outputs, with the direction in which cost grows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from resque.indices.baselines import transferability
from resque.indices.baselines.model_outputs import ModelOutputs
from resque.indices.baselines.moments import Moments

__all__ = ["SHIFT_DISTANCES", "TRANSFERABILITY", "BaselineScore", "baseline_scores"]

TRANSFERABILITY: Mapping[str, Callable[[Moments], float]] = {
    "H-score": transferability.h_score,
    "shrunk H-score": transferability.shrunk_h_score,
    "LogME": transferability.logme,
    "TransRate": transferability.transrate,
    "GBC": transferability.gbc,
}
"""Scores by name of the features and labels of one dataset; the larger, the lower the cost. TransRate is on request."""
SHIFT_DISTANCES: Mapping[str, Callable[[Moments, Moments], float]] = {
    "Fréchet distance": transferability.frechet_distance,
    "linear MMD": transferability.linear_mmd,
}
"""Distances by name between the features of two datasets; the larger, the higher the cost."""
_FEWEST_PER_FEATURE = 5.0


@dataclass(frozen=True)
class BaselineScore:
    """Value of a baseline with its direction and the sizes it depends on.

    Attributes:
        value: Value of the score.
        grows_with_cost: Whether a larger value predicts a higher cost.
        n: Number of samples it was computed from.
        width: Number of features; 0 if none are used.
        note: Caveat for the reader; empty if there is none.
    """

    value: float
    grows_with_cost: bool
    n: int
    width: int = 0
    note: str = ""


def baseline_scores(shifted: ModelOutputs, original: ModelOutputs | None = None) -> dict[str, BaselineScore]:
    """Compute every baseline of the index.

    Args:
        shifted: Outputs of the model on the new data. Labels that are not outputs of the model, those of a new task,
            leave out loss, accuracy drop and ATC; NCE and LEEP take the outputs as the classes of the old task.
            Without products by class, TransRate is left out.
        original: Outputs on held-out original data; None leaves out accuracy drop, ATC and distances.

    Returns:
        Scores by name.

    Example:
        >>> from resque import load_data, load_model
        >>> from resque.indices.baselines import collect_outputs
        >>> model = load_model("resque.networks:small_cnn")
        >>> original, shifted = (
        ...     collect_outputs(model, load_data(f"digits@16px@test{shift}")) for shift in ("", "+blur:5")
        ... )
        >>> scores = baseline_scores(shifted, original)
        >>> scores["loss"].grows_with_cost, scores["LogME"].grows_with_cost, scores["LogME"].width
        (True, False, 64)
    """
    moments, labels = shifted.moments, shifted.labels
    n, d = moments.n, moments.width
    few = f"{n} samples of {d} features: fewer than {_FEWEST_PER_FEATURE:g} each" if n < _FEWEST_PER_FEATURE * d else ""
    near = transferability.knn_accuracy(shifted.sample, shifted.sample_labels)
    scores = {
        "mean confidence": BaselineScore(float(shifted.confidence.mean()), False, n),
        "NCE": BaselineScore(transferability.nce(shifted.predicted, labels), False, n),
        "LEEP": BaselineScore(transferability.leep(shifted.probabilities, labels), False, n),
        "k-NN accuracy": BaselineScore(near, False, len(shifted.sample), d),
    }
    for name, score in TRANSFERABILITY.items():
        if moments.by_class or score is not transferability.transrate:
            scores[name] = BaselineScore(score(moments), False, n, d, few)
    if shifted.loss is not None:
        scores["loss"] = BaselineScore(shifted.loss, True, n)
    if original is None:
        return scores
    if shifted.loss is not None:
        atc = transferability.average_thresholded_confidence(original.confidence, original.correct, shifted.confidence)
        scores["accuracy drop"] = BaselineScore(original.accuracy - shifted.accuracy, True, n)
        scores["ATC"] = BaselineScore(atc, False, n, note="without labels of the new data")
    for name, distance in SHIFT_DISTANCES.items():
        scores[name] = BaselineScore(distance(original.moments, moments), True, n, d)
    return scores

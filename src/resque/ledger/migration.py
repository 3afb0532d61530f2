"""Migration of stored records: former names of fields, scores, predictors and energy methods become today's.

Nothing is rewritten. A ledger, an export, a checkpoint or a published result of any version is read through
:func:`modernize`, for good.
"""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["FIELDS", "FORMER_PREFIX", "PREDICTORS", "SCORES", "modernize", "modernize_scores"]

FIELDS = {
    "kind": "shift_type",
    "kinds_history": "shift_types_history",
    "renewals": "revisions",
    "asking": "overhead",
    "doubts": "reliability_issues",
    "n_shipped": "n_bundled",
    "moved_parent_rad": "angle_to_parent_rad",
    "moved_origin_rad": "angle_to_root_rad",
}
"""Former name of a field of a record → today's."""
SCORES = {
    "BN-adapted accuracy": "adapted accuracy",
    "BN-adapted loss": "adapted loss",
    "BN-adapted k-NN": "adapted k-NN",
    "neighbours": "k-NN accuracy",
    "recalibrated accuracy": "adapted accuracy",
    "recalibrated loss": "adapted loss",
    "recalibrated neighbours": "adapted k-NN",
    "warm-up neighbours": "warm-up k-NN",
}
"""Former name of a score in :class:`resque.ledger.records.Features` → today's."""
_UNKNOWN_TEXTS = "train_data", "test_data"
"""Texts that former versions of :func:`resque.record` stored as null where a caller passed None."""
PREDICTORS = SCORES | {"recalibrated gap": "adapted gap", "BN-adapted gap": "adapted gap"}
"""Former name of a predictor in :class:`resque.ledger.records.Forecast` → today's."""
FORMER_PREFIX = "BN-adapted"
"""Beginning of the former names that records with today's fields can have."""


def modernize(record: Any) -> Any:
    """Return an update, a forecast or a run's checkpoint with today's names; one that has them is returned unchanged.

    Args:
        record: A decoded JSON object; any other value is returned unchanged.

    Example:
        >>> modernize({"kind": "blur", "features": {"scores": {"neighbours": 0.9}}})
        {'shift_type': 'blur', 'features': {'scores': {'k-NN accuracy': 0.9}}}
    """
    if not isinstance(record, dict):
        return record
    if "shift_type" not in record:
        record = _rename_keys(record, FIELDS)
        record |= {name: "" for name in _UNKNOWN_TEXTS if record.get(name, "") is None}
        record = _replace(record, "energy.methods", _rename_unknown)
    record = _replace(record, "features", modernize_scores)
    record = _replace(record, "alternatives", lambda steps: _rename_keys(steps, PREDICTORS))
    return _replace(record, "predictor", _rename_predictors, str)


def modernize_scores(features: dict[str, Any]) -> dict[str, Any]:
    """Return features whose scores have today's names.

    A network that had nothing to adapt was given its own accuracy and loss under the former names. Both are unknown
    for it today, and left out.

    Args:
        features: Accuracy, loss and scores, as :class:`resque.ledger.records.Features` has them.

    Example:
        >>> modernize_scores({"accuracy": 0.5, "loss": 1.0, "scores": {"BN-adapted accuracy": 0.6}})
        {'accuracy': 0.5, 'loss': 1.0, 'scores': {'adapted accuracy': 0.6}}
        >>> scores = {"BN-adapted accuracy": 0.5, "BN-adapted loss": 1.0, "BN-adapted k-NN": 0.7}
        >>> modernize_scores({"accuracy": 0.5, "loss": 1.0, "scores": scores})["scores"]
        {'adapted k-NN': 0.7}
    """
    scores = features.get("scores")
    if not isinstance(scores, dict) or not scores.keys() & SCORES.keys():
        return features
    for former in (FORMER_PREFIX, "recalibrated"):
        names = f"{former} accuracy", f"{former} loss"
        accuracy, loss = (scores.get(name) for name in names)
        same_loss = loss == features.get("loss") or None in (loss, features.get("loss"))
        if accuracy is not None and accuracy == features.get("accuracy") and same_loss:  # by chance, losses differ
            scores = {name: value for name, value in scores.items() if name not in names}
    return features | {"scores": _rename_keys(scores, SCORES)}


def _rename_keys(values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    if not values.keys() & names.keys():
        return values
    return {names.get(name, name): value for name, value in values.items()}


def _rename_predictors(names: str) -> str:
    return ", ".join(PREDICTORS.get(name, name) for name in names.split(", "))


def _rename_unknown(methods: dict[str, Any]) -> dict[str, Any]:
    return {device: "unknown" if method == "not told" else method for device, method in methods.items()}


def _replace(record: dict[str, Any], path: str, change: Callable[[Any], Any], expected: type = dict) -> dict[str, Any]:
    """Return a copy with the value at a dotted path changed; a value that is absent or of another type is kept."""
    name, _, rest = path.partition(".")
    value = record.get(name)
    if rest and isinstance(value, dict):
        return record | {name: _replace(value, rest, change, expected)}
    if rest or not isinstance(value, expected):
        return record
    changed = change(value)
    return record if changed == value else record | {name: changed}

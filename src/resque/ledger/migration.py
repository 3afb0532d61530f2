"""Migration of stored records: former names of fields, scores, predictors and energy methods become today's.

Nothing is rewritten. A ledger, an export, a checkpoint or a published result of any version is read through
:func:`modernize`, for good.
"""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["FIELDS", "PREDICTORS", "SCORES", "modernize"]

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
    "neighbours": "k-NN accuracy",
    "recalibrated accuracy": "BN-adapted accuracy",
    "recalibrated loss": "BN-adapted loss",
    "recalibrated neighbours": "BN-adapted k-NN",
    "warm-up neighbours": "warm-up k-NN",
}
"""Former name of a score in :class:`resque.ledger.records.Features` → today's."""
_UNKNOWN_TEXTS = "train_data", "test_data"
"""Texts that former versions of :func:`resque.record` stored as null where a caller passed None."""
PREDICTORS = SCORES | {"recalibrated gap": "BN-adapted gap"}
"""Former name of a predictor in :class:`resque.ledger.records.Forecast` → today's."""


def modernize(record: Any) -> Any:
    """Return an update, a forecast or a run's checkpoint with today's names; one that has them is returned unchanged.

    Args:
        record: A decoded JSON object; any other value is returned unchanged.

    Example:
        >>> modernize({"kind": "blur", "features": {"scores": {"neighbours": 0.9}}})
        {'shift_type': 'blur', 'features': {'scores': {'k-NN accuracy': 0.9}}}
    """
    if not isinstance(record, dict) or "shift_type" in record:
        return record
    record = _rename_keys(record, FIELDS)
    record |= {name: "" for name in _UNKNOWN_TEXTS if record.get(name, "") is None}
    record = _replace(record, "features.scores", lambda scores: _rename_keys(scores, SCORES))
    record = _replace(record, "alternatives", lambda steps: _rename_keys(steps, PREDICTORS))
    record = _replace(record, "predictor", _rename_predictors, str)
    return _replace(record, "energy.methods", _rename_unknown)


def _rename_keys(values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
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
    return record | {name: change(value)} if not rest and isinstance(value, expected) else record

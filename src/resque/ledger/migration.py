"""Read records that older versions of resque wrote: former names of fields, scores and predictors become today's.

Nothing is rewritten. A ledger, an export, a checkpoint or a published row of any version is read through
:func:`modernize`, for good.
"""

from typing import Any

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
PREDICTORS = SCORES | {"recalibrated gap": "BN-adapted gap"}
"""Former name of a predictor in :class:`resque.ledger.records.Forecast` → today's."""


def modernize(record: Any) -> Any:
    """Return an update or a forecast with today's names; one that has them already comes back as it is.

    Args:
        record: A record as JSON holds it.

    Example:
        >>> modernize({"kind": "blur", "features": {"scores": {"neighbours": 0.9}}})
        {'shift_type': 'blur', 'features': {'scores': {'k-NN accuracy': 0.9}}}
    """
    if not isinstance(record, dict) or "shift_type" in record:
        return record
    record = {FIELDS.get(name, name): value for name, value in record.items()}
    features = record.get("features")
    if isinstance(features, dict) and isinstance(features.get("scores"), dict):
        record["features"] = features | {"scores": _renamed(features["scores"], SCORES)}
    if isinstance(record.get("predictor"), str):
        record["predictor"] = ", ".join(PREDICTORS.get(name, name) for name in record["predictor"].split(", "))
    if isinstance(record.get("alternatives"), dict):
        record["alternatives"] = _renamed(record["alternatives"], PREDICTORS)
    return record


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}

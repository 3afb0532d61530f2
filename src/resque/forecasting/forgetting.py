"""Expect what an update forgets from what earlier updates of the same model forgot."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from resque.ledger.decision import trained_part
from resque.ledger.records import Update

__all__ = ["expected_forgetting"]


def expected_forgetting(history: Sequence[Update], parent: str, recipe: Mapping[str, Any]) -> float | None:
    """Return the median accuracy that earlier updates lost on the original data; None if it was not measured.

    Args:
        history: Finished updates.
        parent: Fingerprint of the model.
        recipe: Settings of the recipe; only updates count that trained the same parts, with or without replay.

    Example:
        >>> import dataclasses
        >>> from resque.ledger.bundled import bundled_updates
        >>> known = {"parent": "p", "original_accuracy_before": 0.75, "original_accuracy_after": 0.5}
        >>> expected_forgetting([dataclasses.replace(bundled_updates()[0], **known)], "p", {})
        0.25
    """
    lost = [
        update.original_accuracy_before - update.original_accuracy_after
        for update in history
        if update.parent == parent
        and not update.from_scratch
        and trained_part(update.recipe) == trained_part(recipe)
        and update.original_accuracy_before is not None
        and update.original_accuracy_after is not None
    ]
    return statistics.median(lost) if lost else None

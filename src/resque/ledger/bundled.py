"""The bundled history: updates that the project's own studies measured, one JSON line each.

``studies/bundled_history.py`` made it from the published rows: small networks on Fashion-MNIST, on glyphs and on
scanned digits. It shapes the cost model where the user has few updates, and carries no coverage guarantee: see
:func:`resque.forecasting.forecaster.forecast_from_features`.
"""

import functools
from importlib import resources

from resque.ledger.records import Update
from resque.ledger.serialization import decode

__all__ = ["bundled_updates"]


@functools.cache
def bundled_updates() -> tuple[Update, ...]:
    """Return the updates of the studies, in their order.

    Example:
        >>> shift_types = {update.shift_type for update in bundled_updates()}
        >>> {"gaussian", "blur", "salt_pepper"} <= shift_types
        True
    """
    text = resources.files("resque.ledger").joinpath("bundled.jsonl").read_text(encoding="utf-8")
    return tuple(decode(Update, line) for line in text.splitlines())

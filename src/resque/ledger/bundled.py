"""The bundled history: updates that the project's own studies measured, one JSON line each.

``studies/bundled_history.py`` made it from the published rows: small networks on Fashion-MNIST, on glyphs and on
scanned digits. It shapes the cost model where own updates are few, and carries no coverage guarantee: see
:func:`resque.forecasting.forecaster.forecast_from_features`.
"""

import functools
from importlib import resources

from resque.ledger.records import Update
from resque.ledger.serialization import decode


@functools.cache
def bundled_updates() -> tuple[Update, ...]:
    """Updates of the studies, in their order.

    Example:
        >>> kinds = {update.shift_type for update in bundled_updates()}
        >>> {"gaussian", "blur", "salt_pepper"} <= kinds
        True
    """
    text = resources.files("resque.ledger").joinpath("bundled.jsonl").read_text(encoding="utf-8")
    return tuple(decode(Update, line) for line in text.splitlines())

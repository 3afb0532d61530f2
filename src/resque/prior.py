"""The history that ships with this package: what the project's own studies measured, one update a line.

It was made by ``studies/prior.py`` from the published rows of the studies: small networks on Fashion-MNIST, on glyphs
and on scanned digits. It shapes the law where own updates are few, and promises nothing: see
:func:`resque.forecasting.forecast`.
"""

import functools
import json
from importlib import resources

from resque.plain import from_plain
from resque.records import Update


@functools.cache
def shipped() -> tuple[Update, ...]:
    """Updates of the studies, in their order.

    Example:
        >>> kinds = {update.kind for update in shipped()}
        >>> {"gaussian", "blur", "salt_pepper"} <= kinds
        True
    """
    text = resources.files("resque").joinpath("prior.jsonl").read_text(encoding="utf-8")
    return tuple(from_plain(Update, json.loads(line)) for line in text.splitlines())

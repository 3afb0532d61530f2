"""Read the pictures of inputs that are kept beside a ledger."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from resque.ledger.records import Forecast
from resque.ledger.store import Ledger

__all__ = ["PictureStrip", "kept_strip"]


@dataclass(frozen=True)
class PictureStrip:
    """A strip as it was kept.

    Attributes:
        content: PNG file.
        description: Text for those who cannot see it.
        width: Width in pixels.
        height: Height in pixels.
    """

    content: bytes
    description: str
    width: int
    height: int


def kept_strip(ledger: Ledger, forecasts: Sequence[Forecast]) -> PictureStrip | None:
    """Return the strip of the newest of the forecasts that has one; None if none has.

    Args:
        ledger: Ledger beside which strips are kept.
        forecasts: Forecasts, oldest first.
    """
    for train_data in dict.fromkeys(forecast.train_data for forecast in reversed(forecasts)):
        with suppress(OSError, SyntaxError, ValueError):  # none, or another file
            content = ledger.picture_file(train_data).read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
                return PictureStrip(content, str(picture.info["Description"]), *picture.size)
    return None

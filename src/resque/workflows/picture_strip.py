"""A strip of a few inputs before and after a shift, kept beside the ledger for the report."""

import io
from collections.abc import Sequence
from contextlib import suppress

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from resque._files import write_atomically
from resque.data.dataset import LabeledDataset
from resque.data.preprocessing import as_float
from resque.data.spec import shorten_data
from resque.errors import DataError
from resque.ledger.store import Ledger

__all__ = ["draw_strip", "keep_strip"]

_PAIRS, _SIDE, _GAP, _COLORS = 6, 40, 4, 31


def keep_strip(ledger: Ledger, new: LabeledDataset, original: LabeledDataset | None) -> None:
    """Keep the strip of new data beside the ledger, in place of a former one; nothing for data that are no images.

    Args:
        ledger: The ledger.
        new: New training data.
        original: Data before the shift; None where they are not in memory.
    """
    with suppress(OSError, DataError):
        content = draw_strip(new, original)
        with write_atomically(ledger.picture_file(new.name)) as scratch:
            scratch.write_bytes(content)


def draw_strip(new: LabeledDataset, original: LabeledDataset | None) -> bytes:
    """Return at most six new inputs as a PNG of a few kilobytes, below original ones of the same sample or class.

    Args:
        new: New data.
        original: Data before the shift; None draws the new ones alone.

    Returns:
        The picture; its text ``Description`` says what it shows.

    Raises:
        DataError: The data are no images.

    Example:
        >>> from resque.data.loading import load_data
        >>> picture = draw_strip(load_data("digits@train+blur:5"), load_data("digits@train"))
        >>> Image.open(io.BytesIO(picture)).size, len(picture) < 8000
        ((260, 84), True)
    """
    rows = _one_of_each_class(new, original)
    lines, text = [new.take(rows)], f"{len(rows)} inputs of {shorten_data(new.name)}"
    if original is not None:
        lines.insert(0, original.take(torch.tensor([_counterpart(new, int(row), original) for row in rows])))
        text += f", each below one of {shorten_data(original.name)}"
        text += ": the same sample, or one of its class" if new.labeled and original.labeled else ""
    described, content = PngImagePlugin.PngInfo(), io.BytesIO()
    described.add_itxt("Description", text)  # a keyword of the PNG standard
    strip = _arrange([_tiles(data.images) for data in lines])
    strip.save(content, "PNG", optimize=True, pnginfo=described, transparency=_COLORS)
    return content.getvalue()


def _arrange(lines: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return tiles in rows, in few colors; one more color stands for the gaps, which are transparent."""
    size, step = (_SIDE * len(lines[0]), _SIDE * len(lines)), _SIDE + _GAP
    close = Image.new("RGB", size)
    places = [(column, row) for row in range(len(lines)) for column in range(len(lines[0]))]
    for column, row in places:
        close.paste(lines[row][column], (_SIDE * column, _SIDE * row))
    close = close.quantize(_COLORS)
    strip = Image.new("P", (step * len(lines[0]) - _GAP, step * len(lines) - _GAP), _COLORS)
    palette = (close.getpalette() or [])[: 3 * _COLORS]
    strip.putpalette(palette + [0] * (3 * (_COLORS + 1) - len(palette)))
    for column, row in places:
        left, top = _SIDE * column, _SIDE * row
        strip.paste(close.crop((left, top, left + _SIDE, top + _SIDE)), (step * column, step * row))
    return strip


def _one_of_each_class(new: LabeledDataset, original: LabeledDataset | None) -> Tensor:
    """Return the row of the first sample of each of the first classes that both have; without labels, the first rows.

    Raises:
        DataError: They have no class in common.
    """
    if not new.labeled:
        return torch.arange(min(len(new), _PAIRS))
    known = new.classes if original is None or not original.labeled else {*original.classes}
    shared = [label for label in new.classes if label in known]
    if not shared:
        raise DataError(f"{new.name} has no class of the original data: there are no inputs to show beside each other")
    return torch.tensor([int((new.labels == label).nonzero()[0]) for label in shared[:_PAIRS]])


def _counterpart(new: LabeledDataset, row: int, original: LabeledDataset) -> int:
    """Return the row of the same sample in the original data, else of one of its class, else of any."""
    comparable = new.labeled and original.labeled
    alike = original.labels == new.labels[row] if comparable else torch.ones(len(original), dtype=torch.bool)
    same = alike & (original.indices == new.indices[row])
    for found in (same, alike):
        if found.any():
            return int(found.nonzero()[0])
    return row % len(original)


def _tiles(images: Tensor) -> Sequence[Image.Image]:
    values = as_float(images.cpu())
    if not 0.0 <= float(values.min()) <= float(values.max()) <= 1.0:  # normalized already
        low, high = values.amin(dim=(1, 2, 3), keepdim=True), values.amax(dim=(1, 2, 3), keepdim=True)
        values = (values - low) / (high - low).clamp(min=1e-12)
    colors = values if values.shape[1] == 3 else values[:, :1].expand(-1, 3, -1, -1)
    arrays = (255.0 * colors.nan_to_num()).round().byte().permute(0, 2, 3, 1).numpy()
    is_small = max(arrays.shape[1:3]) <= _SIDE
    how = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return [Image.fromarray(each).resize((_SIDE, _SIDE), how) for each in arrays]

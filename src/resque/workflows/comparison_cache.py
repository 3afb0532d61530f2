"""Keep what a comparison has learned so far beside its ledger, so that one that was interrupted goes on."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from resque._files import write_atomically
from resque.data.dataset import LabeledDataset
from resque.errors import ResqueError
from resque.ledger.serialization import decode, encode
from resque.ledger.store import Ledger
from resque.models.inference import device_of, eval_mode, forward
from resque.models.weights import fingerprint

__all__ = ["ComparisonCache", "content_key", "model_content"]

Record = TypeVar("Record")
_SAMPLES = 8  # whose outputs identify what a model computes


@dataclass(frozen=True)
class ComparisonCache:
    """Records by the content that they are of: scores and features of a model on data, forecasts whose pilots go on.

    A record that cannot be read or written is one that is not there: it is computed anew.

    Attributes:
        folder: Folder of the records.
    """

    folder: Path

    @classmethod
    def of(cls, ledger: Ledger) -> "ComparisonCache":
        """Return the cache of a ledger."""
        return cls(ledger.path.with_name(f"{ledger.path.name}.comparisons"))

    def read(self, key: str, cls: type[Record]) -> Record | None:
        """Return a record; None if there is none."""
        try:
            return decode(cls, self._file(key).read_text(encoding="utf-8"))
        except (OSError, ValueError, ResqueError):
            return None

    def write(self, key: str, record: object) -> None:
        """Keep a record, in place of a former one."""
        with suppress(OSError, ResqueError):
            self.folder.mkdir(exist_ok=True)
            with write_atomically(self._file(key)) as scratch:
                scratch.write_text(encode(record), encoding="utf-8")

    def remove(self, key: str) -> None:
        """Delete a record, and the folder with the last of them."""
        with suppress(OSError):
            self._file(key).unlink()
            self.folder.rmdir()

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def model_content(network: nn.Module, data: LabeledDataset) -> tuple[str, str, str]:
    """Return what identifies a model: its weights, its layers, and what it computes of the first samples of data.

    Code may change while the weights stay the same: another activation, another scale of the inputs.
    """
    outputs, first = hashlib.sha256(), data.take(torch.arange(min(_SAMPLES, len(data))))
    with eval_mode(network):
        for inputs, _ in first.batches(device=device_of(network)):
            outputs.update(forward(network, inputs).float().cpu().numpy().tobytes())
    return fingerprint(network), repr(network), outputs.hexdigest()


def content_key(*parts: object) -> str:
    """Return the hash of plain values, 16 hexadecimal digits.

    Example:
        >>> len(content_key("model", 3)), content_key("a") == content_key("b")
        (16, False)
    """
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]

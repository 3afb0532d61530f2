"""Cut a dataset into shards, for one pass in several processes or on several machines.

A shard is a run of whole batches. So every sample passes the model in the same batch as in one process, and no sum
depends on how a matrix product rounds for batches of another size.
"""

import dataclasses
import json
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from resque.data.dataset import BATCH
from resque.data.streams import DataStream, Passable
from resque.errors import SettingError

__all__ = ["Shard", "parse_shard", "shard_rows"]


@dataclass(frozen=True)
class Shard:
    """Part of a dataset that one process passes.

    Attributes:
        number: Number of the shard, from 1.
        of: Number of shards.
        start: Number of samples of the dataset before the shard.
        stop: Number of samples up to its end.
        total: Number of samples of the dataset.
        data: Hash of the whole dataset, see :attr:`resque.LabeledDataset.digest`.
        swap: Whether the first sample of the dataset swaps the split halves; None where the shard does not hold it.

    Raises:
        SettingError: The numbers cannot be those of a shard.

    Example:
        >>> from resque.data.loading import load_data
        >>> data = load_data("digits@600")
        >>> [(shard.start, shard.stop) for shard in (Shard.cut(data, number, of=2) for number in (1, 2))]
        [(0, 512), (512, 600)]
    """

    number: int
    of: int
    start: int
    stop: int
    total: int
    data: str
    swap: bool | None = None

    def __post_init__(self) -> None:
        _check_number(self.number, self.of)
        if not 0 <= self.start <= self.stop <= self.total or not self.total:
            raise SettingError(
                f"shard {self}: samples {self.start} to {self.stop} of {self.total}; expected a part of the data"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def __len__(self) -> int:
        return self.stop - self.start

    @classmethod
    def cut(cls, data: Passable, number: int, of: int) -> "Shard":
        """Return a shard of a dataset; the shards differ by one batch at most, and may be empty.

        Raises:
            SettingError: There is no such shard, or the data are a stream.
        """
        if isinstance(data, DataStream):
            raise SettingError(
                f"{data.name} is a stream, and a merge could not tell whether each sample is in one part: pass it in "
                "several processes with torchrun; in Python, profile stream.shard(i, n) in each, and add the profiles"
            )
        rows = shard_rows(len(data), number, of)
        return cls(number, of, rows.start, rows.stop, len(data), data.digest)

    @property
    def rows(self) -> Tensor:
        """Rows of the dataset that are in the shard, ``(n,)`` int64."""
        return torch.arange(self.start, self.stop)

    def to_json(self) -> str:
        """Return the shard as a text that :meth:`from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Shard":
        """Read a shard.

        Raises:
            ValueError: The text is not that of a shard.

        Example:
            >>> Shard.from_json(Shard(2, 3, 0, 256, 300, "ab12").to_json()).stop
            256
        """
        try:
            shard = cls(**json.loads(text))
        except (TypeError, RecursionError) as error:
            raise ValueError("expected the fields of a shard") from error
        numbers = (shard.number, shard.of, shard.start, shard.stop, shard.total)
        if any(type(value) is not int for value in numbers) or not isinstance(shard.data, str):
            raise ValueError("expected whole numbers and a hash")
        if not (shard.swap is None or isinstance(shard.swap, bool)):
            raise ValueError("expected whether the halves are swapped")
        return shard


def shard_rows(n: int, number: int, of: int) -> range:
    """Return the rows of ``n`` that a shard holds.

    Example:
        >>> [shard_rows(600, number, 4) for number in (1, 2, 3, 4)]
        [range(0, 256), range(256, 512), range(512, 600), range(600, 600)]
    """
    _check_number(number, of)
    each, more = divmod(-(-n // BATCH), of)
    edges = ((each * before + min(before, more)) * BATCH for before in (number - 1, number))
    return range(*(min(edge, n) for edge in edges))


def parse_shard(text: str) -> tuple[int, int]:
    """Return number and count of ``"i/n"``.

    Raises:
        SettingError: The text has another form, or there is no such shard.

    Example:
        >>> parse_shard("2/8")
        (2, 8)
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise SettingError(f"shard {text!r:.40}: expected i/n with i from 1 to n, as 1/8")
    number, of = int(found[1]), int(found[2])
    _check_number(number, of)
    return number, of


def _check_number(number: int, of: int) -> None:
    if type(number) is not int or type(of) is not int or not 1 <= number <= of:
        raise SettingError(f"shard {number!s:.40}/{of!s:.40}: expected i/n with i from 1 to n, as 1/8")

"""One pass over the data of a profile, in this process or in all processes of the command together."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from resque._processes import current_processes
from resque.data.dataset import BATCH, LabeledDataset
from resque.data.shards import Shard
from resque.data.streams import DataStream, Passable
from resque.errors import RepresentationError
from resque.indices.compute_profile import default_reduction, profile
from resque.indices.merging import merge
from resque.indices.profile import Profile
from resque.models.inference import device_of
from resque.models.layers import representation_layer

__all__ = ["OnePass"]


@dataclass(frozen=True)
class OnePass:
    """One pass over data for their profile.

    Attributes:
        network: The model.
        layer: Module name; None takes the paper's layer.
        reduction: How a representation is flattened; None takes that of :func:`resque.profile`.
        labels: ``"true"`` or ``"pseudo"``.
        classes: Number of true classes, where the data do not tell it.
        show_progress: Opens a progress bar.
    """

    network: nn.Module
    layer: str | None
    reduction: str | None
    labels: str
    classes: int | None
    show_progress: Callable[[str], AbstractContextManager[Callable[[int, int, str], None]]]

    def over_all(self, data: Passable) -> Profile:
        """Return the profile of data of which each process of the command passes a part.

        The parts of a dataset are shards. Those of a stream are what its library deals out: their sums are those of one
        process, and which half a sample belongs to depends on its place in its part.

        Args:
            data: The same data in all processes, with their classes numbered.
        """
        processes = current_processes()
        if processes.shard is None:
            return self.over(data)
        if isinstance(data, DataStream):
            return processes.combine(self.over(data.shard(*processes.shard)), _add)
        return processes.combine(self.over(data, processes.shard), merge)

    def over(self, data: Passable, shard: tuple[int, int] | None = None) -> Profile:
        """Return the profile of data, or of a shard, in this process; that of a part of a stream may be empty.

        Args:
            data: The dataset or stream, with its classes numbered.
            shard: Number and count of shards.

        Raises:
            SettingError: A shard of a stream.
        """
        reduction, part = self.reduction, None if shard is None else Shard.cut(data, *shard)
        passed = data if part is None or isinstance(data, DataStream) else data.take(part.rows)
        samples = passed.samples if isinstance(passed, DataStream) else len(passed)
        if isinstance(data, LabeledDataset):  # a shard may be empty
            reduction = reduction or default_reduction(data.inputs, representation_layer(self.network, self.layer))
        total = None if samples is None else -(-samples // BATCH)
        with self.show_progress(f"passing {data.name}") as show:

            def batches() -> Iterator[Any]:
                for done, batch in enumerate(passed.batches(device=device_of(self.network))):
                    show(done, total or done, "")
                    yield batch

            given = batches()
            if isinstance(data, DataStream) and data.is_part:
                if (first := next(given, None)) is None:
                    return Profile(labels_from=self.labels)
                given = itertools.chain([first], given)
            classes = (data.classes or self.classes) if self.labels == "true" else None
            options = self.layer, reduction, classes, self.labels, data.preprocessing
            found = profile(self.network, given, *options, shard=part)
        found.class_names = data.class_names if self.labels == "true" else ()
        return found


def _add(parts: list[Profile]) -> Profile:
    """Return the profile of a stream from those of its parts, some of which may have no sample."""
    filled = [part for part in parts if not part.empty]
    if not filled:
        raise RepresentationError("the stream gave no batch: expected at least one sample")
    return functools.reduce(operator.add, filled)

"""Match the channels of a network without batch normalization to the original data, without labels or training.

For such networks this is what re-estimating the statistics of batch normalization is for others. A profile keeps the
mean and variance that each convolution's channels have on the original data. On new data the outputs of each
convolution, in order of execution, are scaled and moved back to them.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resque.errors import ModelError
from resque.models.inference import eval_mode, forward

__all__ = ["ChannelSums", "Channels", "ObservedChannels", "add_channels", "match_channels", "matching"]

_EPSILON = 1e-5
"""Added to variances, as batch norm does, so that a dead channel is not blown up."""
_CHUNKS = 16
_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class ChannelSums:
    """Sums over the values that each channel of a convolution's output takes.

    Attributes:
        count: Number of values of a channel: samples × positions.
        sums: ``(2, channels)`` float64: sum of the values, and sum of their squares.

    Example:
        >>> sums = ChannelSums.of(torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]]), spatial=1)
        >>> (sums + sums).count, sums.mean.tolist(), sums.variance.tolist()
        (8, [4.0], [5.0])
    """

    count: int
    sums: Tensor

    @classmethod
    def of(cls, output: Tensor, spatial: int) -> "ChannelSums":
        """Sum an output with so many spatial dimensions, on its device (Apple's GPU has no float64), without waiting.

        Args:
            output: ``(n, channels, …)``, or ``(channels, …)`` of a single sample.
            spatial: Number of dimensions after the channels.
        """
        rows = output.detach().unsqueeze(0) if output.ndim == spatial + 1 else output.detach()
        rows = rows.flatten(2).to("cpu") if rows.device.type == "mps" else rows.flatten(2)
        sums = torch.zeros(2, rows.shape[1], dtype=torch.float64, device=rows.device)
        for part in torch.split(rows, -(-len(rows) // _CHUNKS) or 1):
            values = part.double()  # only a part of the batch is in float64 at a time
            sums[0] += values.sum((0, 2))
            sums[1] += values.square_().sum((0, 2))
        return cls(len(rows) * rows.shape[2], sums)

    def __add__(self, other: "ChannelSums") -> "ChannelSums":
        """Return the sums over both sets of values."""
        return ChannelSums(self.count + other.count, self.sums + other.sums.to(self.sums.device))

    def to(self, device: torch.device) -> "ChannelSums":
        """Return the sums on a device."""
        return self if self.sums.device == device else ChannelSums(self.count, self.sums.to(device))

    @property
    def mean(self) -> Tensor:
        """``(channels,)`` mean."""
        return self.sums[0] / self.count

    @property
    def variance(self) -> Tensor:
        """``(channels,)`` variance, divided by the number of values."""
        return (self.sums[1] / self.count - self.mean**2).clamp_min(0.0)


Channels = Mapping[str, ChannelSums]
"""Convolution → sums over the channels of its output."""


def add_channels(first: Channels | None, second: Channels | None) -> Channels | None:
    """Add the sums of two datasets; None if one is unknown.

    Example:
        >>> add_channels({"0": ChannelSums(1, torch.ones(2, 3).double())}, None)
    """
    if first is None or second is None:
        return None
    return {name: sums + second[name] for name, sums in first.items() if name in second}


def matching(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return ``(scale, offset)`` of the map from one ``(mean, variance)`` to another, by column.

    Example:
        >>> scale, offset = matching((torch.ones(1), torch.ones(1)), (torch.zeros(1), 4 * torch.ones(1)))
        >>> f"{float(scale):.3f} {float(offset):.3f}"
        '2.000 -2.000'
    """
    scale = torch.sqrt((after[1] + _EPSILON) / (before[1] + _EPSILON))
    return scale, after[0] - scale * before[0]


class ObservedChannels:
    """Accumulator of the sums over each convolution's channels, fed by hooks while a model runs.

    Args:
        original: Sums whose moments each batch is moved to, convolution by convolution, so that later ones see inputs
            like the original ones; None leaves outputs as they are.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
        >>> observed = ObservedChannels()
        >>> with observed.attached(net):
        ...     _ = net(torch.ones(5, 1, 3, 3))
        ...     observed.end_batch()
        >>> observed.channels["0"].count
        5
    """

    def __init__(self, original: Channels | None = None) -> None:
        self._original = dict(original or {})
        self._batch: dict[str, ChannelSums] = {}
        self._channels: dict[str, ChannelSums] = {}

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Observe the convolutions of a model inside the block."""
        handles = [model.register_forward_pre_hook(lambda module, inputs: self._batch.clear())]
        try:
            for name, module in _convolutions(model):
                handles.append(module.register_forward_hook(_Observe(self, name, _spatial(module))))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def end_batch(self) -> None:
        """Add the sums of the last forward pass; a pass that was repeated before counts once."""
        for name, own in self._batch.items():
            self._channels[name] = self._channels[name] + own if name in self._channels else own
        self._batch = {}

    @property
    def channels(self) -> Channels | None:
        """Sums of all batches; None if a value was not finite."""
        flags = [torch.isfinite(own.sums).all() for own in self._channels.values()]
        return dict(self._channels) if not flags or bool(torch.stack(flags).all()) else None

    def observe(self, name: str, output: Tensor, spatial: int) -> Tensor | None:
        """Add an output; return it with the original moments, or None if it stays as it is."""
        own = ChannelSums.of(output, spatial)
        self._batch[name] = self._batch[name] + own if name in self._batch else own
        if name not in self._original or not own.count:
            return None
        self._original[name] = self._original[name].to(own.sums.device)  # moved once, not for each batch
        return _apply(output, *_map(name, own, self._original[name]), spatial)


@dataclass(frozen=True)
class _Observe:
    """Forward hook that hands the output of a convolution to the accumulator."""

    observed: ObservedChannels
    name: str
    spatial: int

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return self.observed.observe(self.name, output, self.spatial)


def match_channels(model: nn.Module, batches: Iterable[tuple[Any, Any]], original: Channels) -> nn.Module:
    """Return a copy whose convolutions' channels have, on new data, the moments that they had on the original data.

    Args:
        model: Classifier, left as it was found.
        batches: ``(inputs, labels)`` of the new data. Labels are ignored.
        original: Sums on the original data. A convolution that it lacks keeps its outputs.

    Raises:
        ModelError: A convolution has another number of channels than the original data's.

    References:
        Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020
        (with batch norm); Eastwood et al., Source-free adaptation to measurement shift, ICLR 2022 (stored moments).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(4, 2)).eval()
        >>> images, observed = torch.rand(8, 1, 2, 2), ObservedChannels()
        >>> with observed.attached(net):
        ...     before = net(images)
        ...     observed.end_batch()
        >>> matched = match_channels(net, [(images + 3.0, None)], observed.channels)
        >>> torch.allclose(matched(images + 3.0), before, atol=1e-4)
        True
    """
    observed = ObservedChannels(original)
    with observed.attached(model), eval_mode(model):
        for inputs, _ in batches:
            forward(model, inputs)
            observed.end_batch()
    matched = copy.deepcopy(model).eval()
    new = observed.channels or {}
    for name, module in _convolutions(matched):
        if name in new and name in original:
            module.register_forward_hook(_Match(*_map(name, new[name], original[name]), _spatial(module)))
    return matched


@dataclass(frozen=True)
class _Match:
    """Forward hook that scales and moves the channels of a convolution."""

    scale: Tensor
    offset: Tensor
    spatial: int

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return _apply(output, self.scale, self.offset, self.spatial)


def _convolutions(model: nn.Module) -> list[tuple[str, _Convolution]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, _Convolution)]


def _spatial(module: _Convolution) -> int:
    """Return the number of dimensions of an output after its channels."""
    return module.weight.ndim - 2


def _map(name: str, own: ChannelSums, original: ChannelSums) -> tuple[Tensor, Tensor]:
    if own.sums.shape != original.sums.shape:
        raise ModelError(
            f"convolution {name!r} has {own.sums.shape[1]} channels, the original data's profile "
            f"{original.sums.shape[1]}: compute the profile with this model"
        )
    original = original.to(own.sums.device)
    return matching((own.mean, own.variance), (original.mean, original.variance))


def _apply(output: Tensor, scale: Tensor, offset: Tensor, spatial: int) -> Tensor:
    shape = (-1, *[1] * spatial)
    return output * scale.to(output).view(shape) + offset.to(output).view(shape)

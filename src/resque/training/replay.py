"""Replay: original data mixed into the new data, so that an update forgets less of what the model knew."""

import dataclasses

import torch
from torch import Tensor

from resque.data.dataset import LabeledDataset
from resque.data.loading import mix

__all__ = ["count_replayed", "epoch_order", "with_replay"]


def count_replayed(n: int, share: float) -> int:
    """Return how many old samples an epoch has besides ``n`` new ones, so that they are a share of it.

    Example:
        >>> [count_replayed(n, 0.2) for n in (1000, 10, 1)], count_replayed(1000, 0.0)
        ([250, 2, 1], 0)
    """
    return max(1, round(n * share / (1.0 - share))) if share else 0


def with_replay(new: LabeledDataset, old: LabeledDataset, share: float, seed: int) -> LabeledDataset:
    """Return the new samples, followed by the old ones from which each epoch draws.

    These are at most as many as the new ones, or as an epoch needs if that is more.

    Args:
        new: New training data.
        old: Original training data.
        share: Share of the old samples in an epoch.
        seed: Seed of the choice.

    Raises:
        DataError: The samples have different forms.

    Example:
        >>> from resque.data.loading import load_data
        >>> digits = load_data("digits")
        >>> len(with_replay(digits.limited(100), digits, share=0.2, seed=0))
        200
    """
    pool = old.limited(max(len(new), count_replayed(len(new), share)), seed)
    return mix([new, dataclasses.replace(pool, class_names=new.class_names)])


def epoch_order(samples: int, new: int, share: float, generator: torch.Generator) -> Tensor:
    """Return the rows of one epoch in random order: every new sample once, and as many old ones as their share takes.

    Args:
        samples: Number of samples, the new ones first.
        new: Number of new samples.
        share: Share of the old ones in an epoch; without old ones it has no effect.
        generator: Random numbers.

    Example:
        >>> order = epoch_order(20, 8, 0.2, torch.Generator().manual_seed(0))
        >>> len(order), sorted(order.tolist())[:8], int(order.max()) >= 8
        (10, [0, 1, 2, 3, 4, 5, 6, 7], True)
    """
    old, count = samples - new, count_replayed(new, share)
    if not old:
        return torch.randperm(samples, generator=generator)
    passes = [torch.randperm(old, generator=generator) for _ in range(-(-count // old))]
    rows = torch.cat([torch.arange(new), new + torch.cat(passes)[:count]])
    return rows[torch.randperm(len(rows), generator=generator)]

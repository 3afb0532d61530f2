"""Optimizer steps, one at a time, counted with the paper's measures; the clock they are timed by."""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.data import LabelledData
from resque.measures import Tally
from resque.recipes import Recipe, steps_per_epoch
from resque.representations import device_of, forward


class Trainer:
    """Optimizer steps over reshuffled data, one at a time, with the measures of the paper.

    Args:
        model: Trained in place.
        data: Training data, resident.
        recipe: How to train.
        seed: Of the order of the samples.
    """

    def __init__(self, model: nn.Module, data: LabelledData, recipe: Recipe, seed: int) -> None:
        self.step_count = 0
        self.steps_per_epoch = steps_per_epoch(len(data), recipe.batch_size)
        self.tally = Tally(model, self.steps_per_epoch)
        self._model, self._data, self._batch_size = model, data, recipe.batch_size
        self._optimizer = recipe.build(model)
        self._schedule = torch.optim.lr_scheduler.MultiStepLR(self._optimizer, list(recipe.milestones), gamma=0.1)
        self._generator = torch.Generator().manual_seed(seed)
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    @property
    def within_epoch(self) -> bool:
        """Whether the current epoch has begun and not ended."""
        return self.step_count % self.steps_per_epoch != 0

    def step(self) -> None:
        """One optimizer step; an epoch's last one closes its measures and moves the schedule."""
        if not self.within_epoch:
            order = torch.randperm(len(self._data), generator=self._generator)
            self._batches = self._data.batches(self._batch_size, device_of(self._model), order)
            self._model.train()
        inputs, labels = next(self._batches)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():  # whatever the caller has set
            torch.autograd.backward(F.cross_entropy(forward(self._model, inputs), labels))
        self.tally.after_backward()
        self._optimizer.step()
        self.step_count += 1
        if not self.within_epoch:
            self.tally.end_epoch()
            self._schedule.step()


def clock(model: nn.Module) -> float:
    """Seconds on a clock that waits for the model's device."""
    if device_of(model).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()

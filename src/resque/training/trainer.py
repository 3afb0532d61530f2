"""Optimizer steps, one at a time, counted with the paper's measures."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.data.augmentation import build_augmentation
from resque.data.dataset import LabeledDataset
from resque.errors import ModelError, ResqueWarning
from resque.models.inference import device_of, forward
from resque.training.cost_tracking import CostTracker
from resque.training.finetuning import FineTuningScope
from resque.training.job import steps_per_epoch
from resque.training.recipe import Recipe


class Trainer:
    """Optimizer steps over reshuffled data, one at a time, with the measures of the paper.

    Args:
        model: Trained in place; until :meth:`end` it may hold adapters, or parameters that do not require gradients.
        data: Training data, resident.
        recipe: How to train.
        seed: Of the order of the samples.
    """

    def __init__(self, model: nn.Module, data: LabeledDataset, recipe: Recipe, seed: int) -> None:
        self.step_count = 0
        self.steps_per_epoch = steps_per_epoch(len(data), recipe.batch_size)
        self.tuning = FineTuningScope(model, recipe.trains, recipe.rank)
        self.cost_tracker = CostTracker(model.parameters(), self.steps_per_epoch)
        self._model, self._data, self._recipe = model, data.resident(device_of(model)), recipe
        self._channels_last = recipe.channels_last and {4} == {p.ndim for p in model.parameters() if p.ndim > 3}
        if self._channels_last:
            model.to(memory_format=torch.channels_last)
        if (
            recipe.precision == "bfloat16"
            and device_of(model).type == "cpu"
            and not torch.cpu._is_avx512_bf16_supported()
        ):
            warnings.warn(
                "this processor has no bfloat16 instructions: float32 is many times faster here",
                ResqueWarning,
                stacklevel=2,
            )
        self._network: Any = torch.compile(model) if recipe.compile else model
        self._optimizer = recipe.build(model)
        self._schedule = recipe.build_schedule(self._optimizer)
        self._generator = torch.Generator().manual_seed(seed)
        self._batches: Iterator[tuple[Any, Tensor]] = iter(())
        self._augment = build_augmentation(recipe.augmentation)

    @property
    def steps_per_block(self) -> int:
        """Steps whose samples are prepared together, by the first of them."""
        together = self._data.batches_per_block(self._recipe.batch_size) if self._augment else 1
        return min(together, self.steps_per_epoch)

    @property
    def within_epoch(self) -> bool:
        """Whether the current epoch has begun and not ended."""
        return self.step_count % self.steps_per_epoch != 0

    def step(self) -> None:
        """One optimizer step; an epoch's last one closes its measures and moves the schedule."""
        if not self.within_epoch:
            order = torch.randperm(len(self._data), generator=self._generator)
            device = device_of(self._model)
            self._batches = self._data.batches(self._recipe.batch_size, device, order, self._augment)
            self.tuning.train()
        inputs, labels = next(self._batches)
        self._optimizer.zero_grad(set_to_none=True)
        self.forward_and_backward(inputs, labels)
        self.cost_tracker.after_backward()
        self._optimizer.step()
        self.step_count += 1
        if not self.within_epoch:
            self.cost_tracker.end_epoch()
            self._schedule.step()

    def forward_and_backward(self, inputs: Any, labels: Tensor) -> None:
        """The gradient of a batch's mean cross-entropy."""
        with torch.enable_grad():  # whatever the caller has set
            torch.autograd.backward(self._loss(inputs, labels))

    def end(self) -> None:
        """Make the model a plain one again: adapters merged, every parameter requiring gradients as it did before."""
        self.tuning.end()
        if self._channels_last:
            self._model.to(memory_format=torch.contiguous_format)

    def state(self) -> dict[str, Any]:
        """All that it takes to go on from the end of an epoch as if nothing had happened; tensors and plain values."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "order": self._generator.get_state(),
            "random": torch.get_rng_state(),
            "tally": self.cost_tracker.state(),
            "step_count": self.step_count,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave, in a trainer of the same model, data, recipe and seed."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._generator.set_state(state["order"])
        torch.set_rng_state(state["random"])
        self.cost_tracker.restore(state["tally"])
        self.step_count = state["step_count"]

    def _loss(self, inputs: Any, labels: Tensor) -> Tensor:
        low = self._recipe.precision == "bfloat16"
        if self._channels_last and isinstance(inputs, Tensor) and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device_of(self._model).type, torch.bfloat16, enabled=low):
            try:
                return F.cross_entropy(forward(self._network, inputs), labels)
            except ModelError as error:
                if type(error.__cause__).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    reason = " ".join(str(error.__cause__).split())[:160]
                    raise ModelError(f"the model cannot be compiled: {reason}; leave compile=true out") from error
                raise

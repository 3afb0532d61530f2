"""Training loop of an update: one optimizer step at a time, with the measures of the paper."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque._processes import current_processes
from resque.data.augmentation import build_augmentation
from resque.data.dataset import LabeledDataset
from resque.errors import DeviceMemoryError, ModelError, ResqueWarning
from resque.models.inference import device_of, forward, is_out_of_memory
from resque.training.cost_tracking import CostTracker
from resque.training.evaluation import evaluate_dataset
from resque.training.finetuning import FineTuningScope
from resque.training.head_features import FeatureCache
from resque.training.job import steps_per_epoch
from resque.training.parallel import (
    differences,
    own_batch_size,
    own_rows,
    own_weight,
    share_buffers,
    share_gradients,
    step_of_all,
)
from resque.training.recipe import Recipe
from resque.training.replay import count_replayed, epoch_order

__all__ = ["Trainer"]


class Trainer:
    """Takes optimizer steps over reshuffled data, and tracks gradient norm and parameter change.

    A head that is trained alone, without augmentation, takes its inputs from a single pass over the data, which belongs
    to the first step; see :mod:`resque.training.head_features`. A trainer that is restored passes them once more.

    Under torchrun all processes of the command take each step together, see :mod:`resque.training.parallel`.

    Args:
        model: Model to train, in place. Until :meth:`end` it may hold adapters and frozen parameters.
        data: Training data.
        recipe: Training recipe.
        seed: Seed of the data order.
        new: Number of new samples, which come first; the others are replayed. None if all are new.

    Attributes:
        step_count: Optimizer steps taken so far.
        steps_per_epoch: Optimizer steps in an epoch.
        scope: Parameters that are trained.
        cost_tracker: Gradient norm and parameter change so far.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> trainer = Trainer(small_cnn(), load_data("digits@16px@100"), Recipe(batch_size=50), seed=0)
        >>> trainer.step()
        >>> trainer.step_count, trainer.steps_per_epoch, trainer.within_epoch
        (1, 2, True)
    """

    def __init__(
        self, model: nn.Module, data: LabeledDataset, recipe: Recipe, seed: int, new: int | None = None
    ) -> None:
        self.step_count, self._new = 0, len(data) if new is None else new
        replayed = count_replayed(self._new, recipe.replay) if self._new < len(data) else 0
        self.steps_per_epoch = steps_per_epoch(self._new + replayed, recipe.batch_size)
        self.scope = FineTuningScope(model, recipe.trains, recipe.rank)
        self.cost_tracker = CostTracker(model.parameters(), self.steps_per_epoch)
        self._model, self._recipe, self._device = model, recipe, device_of(model)
        self._data = data.resident(self._device)
        self._channels_last = recipe.channels_last and {4} == {p.ndim for p in model.parameters() if p.ndim > 3}
        if self._channels_last:
            model.to(memory_format=torch.channels_last)
        on_cpu = self._device.type == "cpu"
        if recipe.precision == "bfloat16" and on_cpu and not torch.cpu._is_avx512_bf16_supported():
            message = "this processor has no bfloat16 instructions: float32 is many times faster here"
            warnings.warn(message, ResqueWarning, stacklevel=2)
        self._augment = build_augmentation(recipe.augmentation)
        self._processes = current_processes()
        self._batch_size = own_batch_size(recipe.batch_size, self._processes)
        network = self._shared(model) if self._processes.count > 1 else model
        self._network: Any = torch.compile(network) if recipe.compile else network
        self._optimizer = recipe.build_optimizer(model)
        self._schedule = recipe.build_schedule(self._optimizer)
        self._generator = torch.Generator().manual_seed(seed)
        self._cache: FeatureCache | None = None
        if recipe.trains == "head" and self._augment is None and self._processes.count == 1:
            cache = FeatureCache(model, self._passed)
            self._cache = cache if cache.allows(self._data) else None
        self._is_prepared = False
        self._tested: tuple[LabeledDataset, LabeledDataset | None] | None = None
        self._batches: Iterator[tuple[Any, Tensor]] = iter(())
        self._order: Tensor | None = None
        self._random_before_block: dict[str, Tensor | None] | None = None

    @property
    def steps_per_block(self) -> int:
        """Number of steps whose samples are augmented together, at the first of them."""
        batches = self._data.batches_per_block(self._batch_size) if self._augment else 1
        return min(batches, self.steps_per_epoch)

    @property
    def passes_once(self) -> bool:
        """Whether the steps take the inputs of the head, for which the model passes the data once."""
        return self._cache is not None

    @property
    def within_epoch(self) -> bool:
        """Whether the current epoch has begun and not ended."""
        return self.step_count % self.steps_per_epoch != 0

    def step(self) -> None:
        """Take one optimizer step; the last one of an epoch also updates the measures and the learning rate.

        Nothing waits for the device but the end of an epoch.

        Raises:
            DeviceMemoryError: The batch takes more memory than the device has.
        """
        try:
            if not self.within_epoch:
                self._begin_epoch(epoch_order(len(self._data), self._new, self._recipe.replay, self._generator))
            inputs, labels = self._next_batch()
            self._optimizer.zero_grad(set_to_none=True)
            self.forward_and_backward(inputs, labels, self._weight())
            self.cost_tracker.after_backward()
            self._optimizer.step()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise DeviceMemoryError.for_batch(self._recipe.batch_size) from error
            raise
        self.step_count += 1
        if not self.within_epoch:
            self.cost_tracker.end_epoch()
            self._schedule.step()

    def prepare(self) -> None:
        """Pass the data once where the steps take the inputs of the head; the first step does it by itself."""
        if self._cache is not None and not self._is_prepared:
            features = self._cache.dataset(self._data)
            if features is None:
                self._cache = None
            else:
                layer = self._cache.head
                self._data, self._network = features, torch.compile(layer) if self._recipe.compile else layer
        self._is_prepared = True

    def rehearse(self) -> int:
        """Compute the gradient of a batch without a step; return the number of samples."""
        self.prepare()
        inputs, labels = next(self._data.batches(self._batch_size, self._device))
        self.forward_and_backward(inputs, labels)
        return len(labels)

    @property
    def trainable_share(self) -> float:
        """Share of the parameters that are trained, adapters included."""
        return self.scope.trainable_share

    def totals(self) -> tuple[float, float, float]:
        """Return gradient norm, that of the last batches, and parameter change so far."""
        return self.cost_tracker.totals(self.within_epoch)

    def evaluate(self, test: LabeledDataset) -> tuple[float, float]:
        """Compute accuracy and mean cross-entropy on test data; a head alone takes their inputs of the head."""
        if self._cache is None:
            self.share_buffers()
            return evaluate_dataset(self._model, test, self._processes)
        if self._tested is None or self._tested[0] is not test:
            plain = FeatureCache(self._model)
            self._tested = test, plain.dataset(test) if plain.allows(test) else None
        features = self._tested[1]
        return evaluate_dataset(self._model, test) if features is None else evaluate_dataset(self._cache.head, features)

    def forward_and_backward(self, inputs: Any, labels: Tensor, weight: float = 1.0) -> None:
        """Compute the gradient of the mean cross-entropy of a batch, times a weight."""
        with torch.enable_grad(), step_of_all(self._processes):  # the caller may have switched gradients off
            loss = self._loss(inputs, labels)
            torch.autograd.backward(loss if weight == 1.0 else weight * loss)

    def end(self) -> None:
        """Restore a plain model: adapters merged, gradients required as before, contiguous memory format.

        It waits for no other process, so that a process in trouble can end.
        """
        self.scope.end()
        if self._channels_last:
            self._model.to(memory_format=torch.contiguous_format)

    def state(self) -> dict[str, Any]:
        """Return the state after the steps so far, for :meth:`restore`: tensors and plain values."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "order": self._generator.get_state(),
            **self._random_state(),
            "random_of_all": self._processes.combine(self._random_state(), list),
            "tally": self.cost_tracker.state(),  # the key of checkpoint format 2
            "step_count": self.step_count,
            "epoch_order": self._order if self.within_epoch else None,
            "before_block": self._random_before_block,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned, for the same model, data, recipe and seed."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._generator.set_state(state["order"])
        self.cost_tracker.restore(state["tally"])
        self.step_count = state["step_count"]
        if self.within_epoch:
            self._begin_epoch(state["epoch_order"], state["before_block"])
        self._set_random_state(state.get("random_of_all", [state])[self._processes.rank])

    def _begin_epoch(self, order: Tensor, before_block: Mapping[str, Tensor | None] | None = None) -> None:
        """Start to pass the data in an order; within an epoch, go on at the step, with its block augmented again."""
        done = self.step_count % self.steps_per_epoch
        within_block = done % self.steps_per_block
        rest = order[(done - within_block) * self._recipe.batch_size :]
        self._order = order
        self._batches = self._passes(rest)
        self.scope.train()
        if within_block and before_block is not None:
            self._set_random_state(before_block)
            self._random_before_block = dict(before_block)
            for _ in range(within_block):
                next(self._batches)

    def _passes(self, rows: Tensor) -> Iterator[tuple[Any, Tensor]]:
        self.prepare()
        if self.passes_once:  # features are small, and one selection costs less than one for each step
            yield from self._data.take(rows).batches(self._recipe.batch_size, self._device)
        else:
            if self._processes.count > 1:
                rows = own_rows(rows, self._recipe.batch_size, self._processes)
            yield from self._data.batches(self._batch_size, self._device, rows, self._augment)

    def _weight(self) -> float:
        """Return the weight of this process's part of the next batch."""
        if self._processes.count == 1 or self._order is None:
            return 1.0
        done = self.step_count % self.steps_per_epoch * self._recipe.batch_size
        return own_weight(min(self._recipe.batch_size, len(self._order) - done), self._processes)

    def share_buffers(self) -> None:
        """Give every process the running statistics of the first, after steps without an evaluation."""
        if self._processes.count > 1:
            share_buffers(self._model, self._processes)

    def _shared(self, model: nn.Module) -> nn.Module:
        """Return the model as all processes train it together; each draws its own random numbers from here on."""
        network = share_gradients(model, next(self._data.batches(2, self._device)), self._processes)
        torch.manual_seed(torch.initial_seed() + self._processes.rank)
        if reason := differences(model, self._augment is not None):
            message = f"the learning curve of {self._processes.count} processes is not that of one: {reason}"
            warnings.warn(message, ResqueWarning, stacklevel=3)
        return network

    def _next_batch(self) -> tuple[Any, Tensor]:
        if self._augment is not None and self.step_count % self.steps_per_epoch % self.steps_per_block == 0:
            self._random_before_block = self._random_state()
        return next(self._batches)

    def _random_state(self) -> dict[str, Tensor | None]:
        on_gpu = self._device.type == "cuda"
        return {
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self._device) if on_gpu else None,
        }

    def _set_random_state(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["random"])
        if state.get("device_random") is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["device_random"], self._device)

    def _loss(self, inputs: Any, labels: Tensor) -> Tensor:
        with self._precision():
            try:
                return F.cross_entropy(self._logits(self._network, inputs), labels)
            except ModelError as error:
                if type(error.__cause__).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    reason = " ".join(str(error.__cause__).split())[:160]
                    raise ModelError(f"the model cannot be compiled: {reason}; leave compile=true out") from error
                raise

    def _passed(self, inputs: Any) -> Tensor:
        """Return the logits of the whole model, as a step computes them."""
        with self._precision():
            return self._logits(self._model, inputs)

    def _precision(self) -> AbstractContextManager[Any]:
        lowers = self._recipe.precision == "bfloat16"
        if not lowers and not torch.is_autocast_enabled(self._device.type):
            return nullcontext()  # cheaper, which the short step of a head notices
        return torch.autocast(self._device.type, torch.bfloat16, enabled=lowers)

    def _logits(self, network: Any, inputs: Any) -> Tensor:
        if self._channels_last and isinstance(inputs, Tensor) and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return forward(network, inputs)

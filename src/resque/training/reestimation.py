"""Update without training: the statistics of batch normalization are estimated anew, in one pass without labels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from resque._processes import current_processes
from resque.data.dataset import LabeledDataset
from resque.errors import ModelError, SettingError
from resque.models.batchnorm import has_running_statistics, normalization_layers, reestimate
from resque.models.inference import device_of, eval_mode, forward
from resque.training.evaluation import evaluate_dataset
from resque.training.finetuning import STATISTICS
from resque.training.recipe import Recipe
from resque.training.replay import epoch_order
from resque.training.trainer import Trainer

__all__ = ["Reestimation", "open_trainer"]


class Reestimation:
    """Takes the single step of a recipe with ``trains=norm``: a pass over the shuffled data, for a :class:`Run`.

    The pass counts as one step and one epoch, so that the learning curve has an accuracy before and one after it, and
    the cost is its time and energy. There is no gradient: gradient norm and parameter change are 0.

    Args:
        model: Model to update, in place.
        data: New training data; their labels are not read.
        recipe: Recipe; of its settings only the batch size counts.
        seed: Seed of the order, which decides the batches.
        new: Number of new samples, which come first; the others are replayed. None if all are new.

    Raises:
        ModelError: The model keeps no statistics.
        SettingError: Batches of one sample, which have no variance; or several processes.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> digits = load_data("digits@16px@100")
        >>> update = Reestimation(small_cnn(), digits, Recipe(trains="norm"), seed=0)
        >>> update.step()
        >>> update.step_count, update.steps_per_epoch, update.totals()
        (1, 1, (0.0, 0.0, 0.0))
    """

    steps_per_epoch = steps_per_block = 1
    trainable_share = 0.0
    within_epoch = passes_once = False

    def __init__(
        self, model: nn.Module, data: LabeledDataset, recipe: Recipe, seed: int, new: int | None = None
    ) -> None:
        if not has_running_statistics(model):
            instead = (
                "trains=norm-scales trains its scales" if normalization_layers(model) else "use trains=head or all"
            )
            raise ModelError(f"the model has no batch normalization with statistics to estimate anew: {instead}")
        if recipe.batch_size < 2:
            raise SettingError("batch_size 1: one sample has no variance; trains=norm needs batches of 2 or more")
        if current_processes().count > 1:
            raise SettingError("trains=norm is one pass over the data, in one process: leave torchrun out")
        self.step_count = 0
        self._model, self._data, self._recipe, self._seed = model, data, recipe, seed
        self._device, self._new = device_of(model), len(data) if new is None else new

    def step(self) -> None:
        """Estimate the statistics anew."""
        generator = torch.Generator().manual_seed(self._seed)
        order = epoch_order(len(self._data), self._new, self._recipe.replay, generator)
        reestimate(self._model, self._data.batches(self._recipe.batch_size, self._device, order))
        self.step_count += 1

    def prepare(self) -> None:
        """Do nothing: a pass needs no preparation."""

    def evaluate(self, test: LabeledDataset) -> tuple[float, float]:
        """Compute accuracy and mean cross-entropy on test data."""
        return evaluate_dataset(self._model, test)

    def totals(self) -> tuple[float, float, float]:
        """Return gradient norm, that of the last batches, and parameter change: all 0."""
        return 0.0, 0.0, 0.0

    def rehearse(self) -> int:
        """Compute what a step computes of its first batch; return the number of samples."""
        inputs, labels = next(self._data.batches(self._recipe.batch_size, self._device))
        with eval_mode(self._model):
            forward(self._model, inputs)
        return len(labels)

    def end(self) -> None:
        """Do nothing: the model has no part that is not its own."""

    def state(self) -> dict[str, Any]:
        """Return the state, for :meth:`restore`."""
        return {"model": self._model.state_dict(), "step_count": self.step_count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        self._model.load_state_dict(state["model"])
        self.step_count = state["step_count"]


def open_trainer(
    model: nn.Module, data: LabeledDataset, recipe: Recipe, seed: int, new: int | None = None
) -> Trainer | Reestimation:
    """Return what takes the steps of a recipe; the arguments are those of :class:`Trainer`.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> type(open_trainer(small_cnn(), load_data("digits@16px@100"), Recipe(), seed=0)).__name__
        'Trainer'
    """
    return (Reestimation if recipe.trains == STATISTICS else Trainer)(model, data, recipe, seed, new)

"""Prepare a model and a job for a new task: a new or widened head, labels renumbered to its outputs."""

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.errors import ModelError, SettingError
from resque.models.heads import replace_head, widen_head
from resque.models.inference import device_of, eval_mode, forward
from resque.models.layers import head_name
from resque.models.weights import fingerprint
from resque.training.evaluation import check_data_fits_model, count_outputs
from resque.training.job import RetrainingJob

NEW_TASK, EXTENSION = "new task", "extension"
"""Kinds of update that are no shift."""


def prepare_new_task(model: nn.Module, job: RetrainingJob, extend: bool = False) -> tuple[nn.Module, RetrainingJob]:
    """The model with a head for the job's classes, and the job with the outputs' numbers as labels.

    Args:
        model: Left as it was.
        job: With the labels of the data; its seed is that of the new weights.
        extend: See :class:`TaskIndexSettings`.
    """
    if job.original_test is not None:
        raise SettingError("what is forgotten cannot be told beside a changed head: leave --original-test out")
    outputs = _outputs_of(model, job.train, extend)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        learner, task = with_new_head(model, job.train, extend)
    shift_type = job.shift_type or (EXTENSION if extend else NEW_TASK)
    test = _numbered(job.test, outputs)
    return learner, dataclasses.replace(job, train=task, test=test, shift_type=shift_type, parent=fingerprint(model))


def with_new_head(model: nn.Module, data: LabeledDataset, extend: bool = False) -> tuple[nn.Module, LabeledDataset]:
    """A copy of the model with a head for the data's classes, and the data with the outputs' numbers as labels.

    Args:
        model: Any classifier; left as it was.
        data: The new task.
        extend: Widen the head and keep what it has learned, see :class:`TaskIndexSettings`.

    Raises:
        ModelError: The head cannot be found or replaced.
        SettingError: To be extended by classes that the model has already.
    """
    outputs = _outputs_of(model, data, extend)
    old, learner = count_outputs(model, data), copy.deepcopy(model)
    kept, size = (old, max(outputs.values()) + 1) if extend else (0, len(outputs))
    widen_head(learner, size) if extend else replace_head(learner, size)
    _check_head(model, learner, data, kept, size)
    task = _numbered(data, outputs)
    check_data_fits_model(learner, task)
    return learner, task


def _outputs_of(model: nn.Module, data: LabeledDataset, extend: bool) -> dict[int, int]:
    """Label → output of the head to come."""
    old, classes = count_outputs(model, data), data.classes
    new = [label for label in classes if not 0 <= label < old] if extend else classes
    if not new:
        raise SettingError(
            f"{data.name}: its classes are all among the {old} that the model has; "
            f"label new ones from {old} on to extend it, or leave --extend out for a new task"
        )
    kept = old if extend else 0
    return {label: label for label in classes} | {label: kept + i for i, label in enumerate(new)}


def _numbered(data: LabeledDataset, outputs: Mapping[int, int]) -> LabeledDataset:
    """With outputs in the place of labels."""
    own = torch.tensor([outputs[label] for label in data.classes])
    return dataclasses.replace(data, labels=own[torch.searchsorted(torch.tensor(data.classes), data.labels)])


def _some_logits(model: nn.Module, data: LabeledDataset) -> Tensor:
    with eval_mode(model):
        images, _ = next(data.batches(2, device_of(model)))
        return forward(model, images).double()


def _check_head(model: nn.Module, learner: nn.Module, data: LabeledDataset, kept: int, outputs: int) -> None:
    """Refuse a learner whose changed layer was no head, or whose old classes answer otherwise than the model's."""
    name = head_name(learner)
    advice = f"{name!r}, the last dense layer, is not the last thing that the model runs, so it is no head to change"
    try:
        logits = _some_logits(learner, data)
    except ModelError as error:
        raise ModelError(f"{advice}: {error.__cause__ or error}") from error
    if logits.shape[1] != outputs:
        raise ModelError(f"{advice}: the model still has {logits.shape[1]} outputs, expected {outputs}")
    precision = next(p.dtype for p in learner.parameters() if p.is_floating_point())
    slack = torch.finfo(precision).eps ** (2 / 3) * (1.0 + float(logits.abs().max()))  # a product may round otherwise
    if kept and not torch.allclose(logits[:, :kept], _some_logits(model, data), rtol=0.0, atol=slack):
        raise ModelError(f"after {name!r} was widened, the old classes get other logits than before: {advice}")

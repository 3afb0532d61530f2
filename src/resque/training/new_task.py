"""Prepare a model and a job for a new task: a new or widened head, and labels renumbered to its outputs."""

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
from resque.models.randomness import isolated_random_state
from resque.models.weights import fingerprint
from resque.training.evaluation import check_data_fits_model, count_outputs, evaluate_dataset
from resque.training.job import RetrainingJob, steps_per_epoch
from resque.training.replay import count_replayed

__all__ = ["EXTENSION", "NEW_TASK", "forgetting_risk", "prepare_new_task", "with_new_head"]

NEW_TASK, EXTENSION = "new task", "extension"
"""Values of ``shift_type`` for updates that change the classes: all of them, or by additional ones."""

_SHARE = 0.2


def prepare_new_task(model: nn.Module, job: RetrainingJob, extend: bool = False) -> tuple[nn.Module, RetrainingJob]:
    """Return the model with a head for the job's classes, and the job with output numbers as labels.

    Original data keep their labels, which a widened head keeps as outputs.

    Args:
        model: Classifier; unchanged.
        job: Job with the labels of the data; its seed also seeds the new weights.
        extend: Whether to widen the head for additional classes; otherwise it is replaced.

    Raises:
        DataError: Original data have labels that the model does not have.
        ModelError: The head cannot be found or replaced.
        SettingError: A new head has original data, or there are no additional classes.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> digits = load_data("digits@16px@200")
        >>> learner, job = prepare_new_task(small_cnn(), RetrainingJob(digits, digits, 0.5))
        >>> job.effective_shift_type
        'new task'
    """
    old = [each for each in (job.original_test, job.recipe.replay and job.replayed) if each]
    if old and not extend:
        raise SettingError(
            "a new head has none of the old classes, so their accuracy cannot be measured and their data not replayed: "
            "leave --original-test and replay out, or keep the classes with --extend"
        )
    for data in old:
        check_data_fits_model(model, data)
    outputs = _output_of_label(model, job.train, extend)
    with isolated_random_state(device_of(model), job.seed):
        learner, train = with_new_head(model, job.train, extend)
    shift_type = job.shift_type or (EXTENSION if extend else NEW_TASK)
    return learner, dataclasses.replace(
        job,
        train=train,
        test=_relabeled(job.test, outputs),
        shift_type=shift_type,
        parent=fingerprint(model),
        original_accuracy=None if job.original_test is None else evaluate_dataset(model, job.original_test)[0],
    )


def forgetting_risk(model: nn.Module, job: RetrainingJob) -> str | None:
    """Return that an extension will probably forget the old classes, and what replay costs; None if it trains on some.

    Args:
        model: Classifier before the extension.
        job: Job with the labels of the data.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> data = load_data("digits@16px@200")
        >>> job = RetrainingJob(*2 * [dataclasses.replace(data, labels=data.labels + 10)], 0.5)
        >>> forgetting_risk(small_cnn(), job).partition(": ")[0]
        'the training data have none of the 10 old classes, which will probably be forgotten'
    """
    old = count_outputs(model, job.train)
    if job.recipe.replay or any(0 <= label < old for label in job.train.classes):
        return None
    samples = len(job.train) + count_replayed(len(job.train), _SHARE)
    ratio = steps_per_epoch(samples, job.recipe.batch_size) / job.steps_per_epoch
    return (
        f"the training data have none of the {old} old classes, which will probably be forgotten: replay={_SHARE} in "
        f"the recipe, with --original, mixes them in at {ratio:.2f} times the steps per epoch"
    )


def with_new_head(model: nn.Module, data: LabeledDataset, extend: bool = False) -> tuple[nn.Module, LabeledDataset]:
    """Return a copy of the model with a head for the data's classes, and the data with output numbers as labels.

    Args:
        model: Classifier; unchanged.
        data: Training data of the new task.
        extend: Whether to widen the head and keep its weights; otherwise it is replaced.

    Raises:
        ModelError: The head cannot be found or replaced.
        SettingError: The head is to be widened, and the model has all classes already.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> data = load_data("digits@16px@200")
        >>> learner, task = with_new_head(small_cnn(), dataclasses.replace(data, labels=data.labels % 3 + 40))
        >>> count_outputs(learner, task), task.classes
        (3, [0, 1, 2])
    """
    outputs = _output_of_label(model, data, extend)
    learner = copy.deepcopy(model)
    kept, size = (count_outputs(model, data), max(outputs.values()) + 1) if extend else (0, len(outputs))
    widen_head(learner, size) if extend else replace_head(learner, size)
    _check_head(model, learner, data, kept, size)
    task = _relabeled(data, outputs)
    check_data_fits_model(learner, task)
    return learner, task


def _output_of_label(model: nn.Module, data: LabeledDataset, extend: bool) -> dict[int, int]:
    """Return label → output of the new head."""
    old, classes = count_outputs(model, data), data.classes
    new = [label for label in classes if not 0 <= label < old] if extend else classes
    if not new:
        raise SettingError(
            f"{data.name}: its classes are all among the {old} that the model has; "
            f"label new ones from {old} on to extend it, or leave --extend out for a new task"
        )
    kept = old if extend else 0
    return {label: label for label in range(kept)} | {label: kept + i for i, label in enumerate(new)}


def _relabeled(data: LabeledDataset, outputs: Mapping[int, int]) -> LabeledDataset:
    numbers = torch.tensor([outputs[label] for label in data.classes])
    return dataclasses.replace(data, labels=numbers[torch.searchsorted(torch.tensor(data.classes), data.labels)])


def _sample_logits(model: nn.Module, data: LabeledDataset) -> Tensor:
    with eval_mode(model):
        inputs, _ = next(data.batches(2, device_of(model)))
        return forward(model, inputs).double()


def _check_head(model: nn.Module, learner: nn.Module, data: LabeledDataset, kept: int, size: int) -> None:
    """Raise an error unless the changed layer is the head, and the first ``kept`` classes have their former logits."""
    name = head_name(learner)
    reason = f"{name!r}, the last dense layer, is not the last one that the model runs, so it is no head to change"
    try:
        logits = _sample_logits(learner, data)
    except ModelError as error:
        raise ModelError(f"{reason}: {error.__cause__ or error}") from error
    if logits.shape[1] != size:
        raise ModelError(f"{reason}: the model still has {logits.shape[1]} outputs, expected {size}")
    dtype = next(p.dtype for p in learner.parameters() if p.is_floating_point())
    # a matrix product of another size may round differently
    tolerance = torch.finfo(dtype).eps ** (2 / 3) * (1.0 + float(logits.abs().max()))
    if kept and not torch.allclose(logits[:, :kept], _sample_logits(model, data), rtol=0.0, atol=tolerance):
        raise ModelError(f"after {name!r} was widened, the old classes get other logits than before: {reason}")

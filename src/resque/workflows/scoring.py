"""Scores of a model by one forward pass of its data, in this process or in another one."""

import copy
import dataclasses
from dataclasses import dataclass

from torch import nn

from resque.data.dataset import LabeledDataset
from resque.errors import ResqueError
from resque.forecasting.scored_models import ScoredModel
from resque.indices.baselines.model_outputs import collect_outputs
from resque.indices.baselines.scores import baseline_scores
from resque.indices.distribution import resque_dist
from resque.indices.task import resque_task
from resque.models.inference import device_of
from resque.training.evaluation import check_data_fits_model
from resque.workflows.engine import ExperimentTask, Row
from resque.workflows.inputs import InputLoader

__all__ = ["ToScore", "portable", "task_to_score"]

_SHOWN = "LogME", "shrunk H-score", "H-score", "k-NN accuracy", "LEEP"


@dataclass(frozen=True, eq=False)
class ToScore:
    """A model and the data that are passed through it.

    Attributes:
        network: The model.
        data: New data.
        original: Data before a shift; None if there are none.
        is_new_task: Whether the classes of the new data are not those of the model.
        layer: Module whose output is the representation; None takes the paper's.
        reduction: How a representation is flattened.
    """

    network: nn.Module
    data: LabeledDataset
    original: LabeledDataset | None
    is_new_task: bool
    layer: str | None = None
    reduction: str | None = None

    def score(self, name: str, loader: InputLoader) -> ScoredModel:
        """Return what the forward passes tell.

        Args:
            name: Name of the model in the comparison.
            loader: Loader of the model, which numbers the classes of the data.
        """
        network, data = self.network, self.data
        if not self.is_new_task:
            check_data_fits_model(network, data)
        outputs = collect_outputs(network, data)
        scores = {name: score.value for name, score in baseline_scores(outputs).items() if name in _SHOWN}
        index = None
        if self.is_new_task:
            index = resque_task(outputs.sample, outputs.sample_labels).value
        elif self.original is not None:
            both = self.original, data
            before, after = (loader.profile(network, each, self.layer, self.reduction) for each in both)
            index = resque_dist(before, after, undefined="skip").value
        parameters = sum(parameter.numel() for parameter in network.parameters())
        accuracy = None if self.is_new_task else outputs.accuracy
        return ScoredModel(name, scores, index, accuracy, parameters, float(parameters * len(data)))


def portable(network: nn.Module) -> nn.Module:
    """Return a model on the CPU, from where any process can take it; the model itself if it is there."""
    return network if device_of(network).type == "cpu" else copy.deepcopy(network).cpu()


def task_to_score(name: str, subject: ToScore, loader: InputLoader) -> ExperimentTask:
    """Return the passes as a task for another process, which needs no file of the model or data.

    Args:
        name: Name of the model in the comparison.
        subject: Model and data.
        loader: Loader of the model.
    """
    original = None if subject.original is None else loader.numbered(subject.original)
    if original is not None:  # the numbers are those of the model from here on
        original = dataclasses.replace(original, class_names=(), numbered_by_name=False)
    data = dataclasses.replace(subject.data, class_names=(), numbered_by_name=False)
    sent = dataclasses.replace(subject, network=portable(subject.network), data=data, original=original)
    arguments = {"name": name, "subject": sent, "device": loader.device.type}
    return ExperimentTask(name, _score_elsewhere, arguments)


def _score_elsewhere(name: str, subject: ToScore, device: str) -> Row:
    """Score a model on a worker; return its scores, or why it cannot be used."""
    try:
        network = subject.network.to(device)
        return {"scored": dataclasses.replace(subject, network=network).score(name, InputLoader(network))}
    except ResqueError as error:
        return {"failed": error}

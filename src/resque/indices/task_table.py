"""Score several new tasks for one model: a row of the paper's source × target table."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED
from resque.data.dataset import LabeledDataset
from resque.energy.grid import Grid
from resque.energy.meters import ClockMeter, EnergyMeter
from resque.errors import DataError
from resque.indices.baselines.model_outputs import collect_outputs
from resque.indices.baselines.scores import baseline_scores
from resque.indices.results import TaskIndex
from resque.indices.task_features import TaskIndexSettings, task_index

__all__ = ["TaskTable", "score_tasks"]

_SHOWN = ("LogME", "shrunk H-score", "k-NN accuracy", "LEEP")


@dataclass(frozen=True)
class TaskTable(Displayable):
    """Transfer scores and RESQUE_task of several tasks, learned from one model.

    Attributes:
        scores: Scores by task and name, of the model as it is; the larger, the better its features fit the labels.
        indices: RESQUE_task by task, after its warm-up; empty if it was not requested.
    """

    scores: Mapping[str, Mapping[str, float]]
    indices: Mapping[str, TaskIndex] = dataclasses.field(default_factory=dict)

    def _display(self) -> Display:
        rows = []
        for task, scores in self.scores.items():
            index = f"{self.indices[task].value:.4f}" if task in self.indices else NOT_MEASURED
            rows.append((task, index, *(f"{scores[name]:.3f}" for name in _SHOWN)))
        lines = ["RESQUE_task: 0 is best, 1 is chance level; scores: the larger, the better"]
        return Display(
            "New tasks",
            ("task", "RESQUE_task", *_SHOWN),
            rows,
            [*lines, "none of them tells reuse from training from scratch"],
        )


def score_tasks(
    model: nn.Module,
    tasks: Mapping[str, LabeledDataset],
    settings: TaskIndexSettings | None = None,
    *,
    meter: EnergyMeter | None = None,
    grid: Grid | None = None,
) -> TaskTable:
    """Compute transfer scores of several new tasks in one forward pass each, and RESQUE_task on request.

    Loss and mean confidence are left out: they say little of classes that the model was not trained on.

    Args:
        model: Classifier as it is now; it is left as it was found.
        tasks: Data by name, with true labels, any integers.
        settings: Settings of RESQUE_task, whose warm-up trains a copy on each task; None leaves it out.
        meter: Energy meter of RESQUE_task; None measures the time only.
        grid: Electricity grid; None leaves carbon None.

    Raises:
        DataError: There are no tasks, or one has no labels.
        ModelError, RepresentationError, SettingError: See :func:`task_index`.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, Table 2.

    Example:
        >>> from resque import TaskIndexSettings, load_data, load_model
        >>> digits = load_data("digits@16px@200")
        >>> parity = dataclasses.replace(digits, labels=digits.labels % 2 + 40)
        >>> quick = TaskIndexSettings(warmup_steps=5, layer="penultimate")
        >>> table = score_tasks(load_model("resque.networks:small_cnn"), {"digits": digits, "parity": parity}, quick)
        >>> table.indices["parity"].classes, table.scores["digits"]["LogME"] < table.scores["parity"]["LogME"]
        (2, False)
    """
    if not tasks:
        raise DataError("no tasks: expected one dataset or more, by name")
    if unlabeled := [name for name, data in tasks.items() if not data.labeled]:
        raise DataError(f"{', '.join(unlabeled)}: no labels; transfer scores of a task need true labels")
    scores = {name: _scores(model, data) for name, data in tasks.items()}
    if settings is None:
        return TaskTable(scores)
    meter = meter or ClockMeter()
    indices = {name: task_index(model, data, settings, meter=meter, grid=grid) for name, data in tasks.items()}
    return TaskTable(scores, indices)


def _scores(model: nn.Module, data: LabeledDataset) -> dict[str, float]:
    scores = baseline_scores(collect_outputs(model, data))
    return {name: score.value for name, score in scores.items() if name not in ("loss", "mean confidence")}

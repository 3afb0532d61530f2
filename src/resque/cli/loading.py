"""What a user may type on the command line, and the models, data and jobs that it names.

Typer alone is imported here at the top; everything heavy comes when it is needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque.cli.options import DATA_ROOT
from resque.errors import DataError, LedgerError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from resque.data.dataset import LabeledDataset
    from resque.energy.reading import EnergyReading
    from resque.indices.profile import Profile
    from resque.ledger.records import Features
    from resque.ledger.store import Ledger
    from resque.training.job import RetrainingJob


@dataclass(frozen=True)
class InputLoader:
    """Reads what a user named: data in the form that the model wants, the model with the outputs that they need.

    Attributes:
        model: Its specification.
        weights: Its state dict.
        device: Where it shall run.
        classes: Its outputs; None takes the weights' number, else the data's for an untrained model of a library.
        limit: At most this many samples of each data set.
        data_root: Where torchvision's data sets lie.
    """

    model: str
    weights: Path | None = None
    device: str = "cpu"
    classes: int | None = None
    limit: int | None = None
    data_root: Path = DATA_ROOT

    def data(self, spec: str, for_training: bool = True) -> "LabeledDataset":
        """A data set, with a progress bar."""
        from resque.data.loading import load_data
        from resque.models.registry import preprocessing_for
        from resque.reporting import console

        wanted = preprocessing_for(self.model)
        with console.progress(f"reading {spec}") as show:
            return load_data(
                spec,
                limit=self.limit,
                preprocessing=wanted,
                root=self.data_root,
                for_training=for_training,
                on_progress=lambda done, total: show(done, total or done, ""),
            )

    def network(self, data: "LabeledDataset | None" = None, seed: int = 0) -> "nn.Module":
        """The model with its weights, on its device.

        Args:
            data: What it is to learn: an untrained model of a library gets an output for each of their classes.
            seed: Of random weights.
        """
        from resque.models.loading import load_model, move_to_device
        from resque.models.registry import has_random_weights

        classes = self.classes
        if classes is None and self.weights is None and data is not None and has_random_weights(self.model):
            classes = data.outputs
        return move_to_device(load_model(self.model, self.weights, seed, classes), self.device)

    def fresh(self, network: "nn.Module", seed: int) -> "Callable[[int], nn.Module]":
        """Seed → the model's architecture with random weights, on its device.

        Args:
            network: The model itself; one that is random too has nothing to be compared with.
            seed: Of the first one.
        """
        from resque.models.loading import fresh_model, move_to_device
        from resque.models.weights import fingerprint

        def build(seed: int) -> "nn.Module":
            return move_to_device(fresh_model(self.model, network, seed), self.device)

        if fingerprint(build(seed)) == fingerprint(network):
            raise ModelError(f"{self.model} has no trained weights to compare with scratch: name them with --weights")
        return build

    def original(self, network: "nn.Module", spec: str, layer: str | None, reduction: str | None) -> "Profile":
        """The original side: a saved profile, or one pass over the original data."""
        from resque.indices.profile import Profile

        if Path(spec).suffix == ".npz" and Path(spec).is_file():
            raise DataError(f"{spec} is data, not a profile: write npz:{spec}")
        if spec.endswith(".safetensors") or Path(spec).is_file():
            found = Profile.load(spec)
            if layer is not None and layer != found.origin.layer:
                raise DataError(
                    f"{spec} is of layer {found.origin.layer}, not {layer}: leave --layer out, or profile anew"
                )
            return found
        return profile_with_progress(
            network, self.data(spec, for_training=False), layer, reduction or "flatten", "true"
        )

    def job(
        self,
        train: str,
        test: str,
        target_accuracy: float,
        recipe: str,
        evaluate_every: int | None,
        max_epochs: int | None,
        original_test: str | None = None,
        **more: Any,
    ) -> "RetrainingJob":
        """The job that train, test, target and recipe options describe."""
        from resque.training.job import RetrainingJob
        from resque.training.recipe import named_recipe

        chosen = named_recipe(recipe, evaluate_every, max_epochs)
        RetrainingJob.check_target(target_accuracy)
        kept = None if original_test is None else self.data(original_test)
        return RetrainingJob(self.data(train), self.data(test), target_accuracy, chosen, original_test=kept, **more)


def profile_with_progress(
    network: "nn.Module", data: "LabeledDataset", layer: str | None, reduction: str, labels: str
) -> "Profile":
    """One pass over a data set, with a progress bar."""
    from resque import profile as make_profile
    from resque.data.dataset import BATCH
    from resque.models.inference import device_of
    from resque.reporting import console

    if labels == "true" and not data.labeled:
        raise DataError(f"{data.name} has no labels: let the model's own predictions stand in, --labels pseudo")
    batches = data.batches(device=device_of(network))
    shown = console.tracked(batches, -(-len(data) // BATCH), f"passing {data.name}")
    classes = data.classes if labels == "true" else None
    return make_profile(network, shown, layer, reduction, classes, labels, data.preprocessing)


def task_features_with_progress(
    network: "nn.Module", job: "RetrainingJob", extend: bool, layer: str | None, reduction: str | None
) -> "tuple[Features, EnergyReading]":
    """What an epoch on a copy tells of a new task, and what it took, with a progress bar."""
    from resque.energy.meters import open_meter
    from resque.indices.task_features import TaskIndexSettings, task_features
    from resque.reporting import console

    how = reduction or "flatten"
    query = TaskIndexSettings(extend=extend, recipe=job.recipe, layer=layer, reduction=how, seed=job.seed)
    with console.progress("an epoch on a copy") as show:
        return task_features(network, job, query, meter=open_meter(), on_progress=show)


def open_existing_ledger(path: Path) -> "Ledger":
    """A ledger that is there; an absent one is refused."""
    from resque.ledger.store import Ledger

    if not path.exists():
        raise LedgerError(
            f"no ledger at {path}: `resque retrain` or `resque demo` begins one, or name it with --ledger"
        )
    return Ledger(path)


def create_folder(folder: Path) -> None:
    """Make a folder before anything costly is done, so that results have a place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make folder {str(folder)!r}: {error.strerror}; name another with --out") from error

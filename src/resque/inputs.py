"""What a user may type on the command line, and the models, data and jobs that it names.

Typer alone is imported here at the top; everything heavy comes when it is needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.errors import DataError, LedgerError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from resque.labelled import LabelledData
    from resque.ledger import Ledger
    from resque.profiles import Profile
    from resque.readings import EnergyReading
    from resque.recipes import Retraining
    from resque.records import Features

LEDGER = Path("resque.db")
UPDATES = Path("updates")
CHECKPOINTS = UPDATES / "checkpoints"
DATA_ROOT = Path("data")
Extend = Annotated[bool, typer.Option("--extend", help="Keep the old classes and widen the head.")]
PricePerKwh = Annotated[float, typer.Option(help="Price of a kWh.")]
PricePerHour = Annotated[float, typer.Option(help="Price of an hour of the machine.")]
EmbodiedKg = Annotated[float | None, typer.Option(help="kg CO2e of making the hardware; default: a published range.")]
LifeYears = Annotated[float | None, typer.Option(help="Its lifespan; default: 4.")]
Currency = Annotated[str, typer.Option(help="Of both prices.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else there.")]
Model = Annotated[
    str, typer.Option(help="FILE.py:CALLABLE, package.module:CALLABLE, timm:NAME, torchvision:NAME, hf:PATH.")
]
Classes = Annotated[int | None, typer.Option(help="Outputs of the model; default: the weights', else the data's.")]
DataRoot = Annotated[Path, typer.Option(help="Where torchvision's data sets lie.")]
Weights = Annotated[Path | None, typer.Option(help="State dict: .safetensors, or .pt without pickled code.")]
Layer = Annotated[str | None, typer.Option(help="Module name, or penultimate; default: the paper's layer.")]
Reduction = Annotated[str, typer.Option(help="flatten, mean or token-mean.")]
OwnReduction = Annotated[
    str | None, typer.Option("--reduction", help="flatten, mean or token-mean; default: as the profile, else flatten.")
]
Labels = Annotated[str, typer.Option(help="true, or pseudo: the model's own predictions.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many samples of each data set.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")]
Country = Annotated[str | None, typer.Option(help="ISO alpha-3 code of the grid, e.g. FRA.")]
Intensity = Annotated[float | None, typer.Option(help="Carbon intensity in g CO2e/kWh; goes before --country.")]
Pue = Annotated[float, typer.Option(help="Power usage effectiveness: what the site draws per kWh of the machine.")]
LedgerFile = Annotated[Path, typer.Option("--ledger", envvar="RESQUE_LEDGER", help="The history file.")]
Target = Annotated[float, typer.Option(help="Accuracy to reach on the test data, e.g. 0.94.")]
Kind = Annotated[str | None, typer.Option(help="Name of the kind of shift; default: from the data's suffix.")]
_RECIPE = "retrain-adam, retrain-sgd, train-adam, train-sgd or FILE.toml; then settings: ,batch_size=64,trains=head"
RecipeName = Annotated[str, typer.Option("--recipe", help=_RECIPE)]
EvaluateEvery = Annotated[int | None, typer.Option(help="Steps between evaluations; default: each epoch.")]
MaxEpochs = Annotated[int | None, typer.Option(help="The longest run; default: the recipe's.")]
Seed = Annotated[int, typer.Option(help="Of random initial weights and of the order of the training samples.")]


@dataclass(frozen=True)
class Reader:
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

    def data(self, spec: str, for_training: bool = True) -> "LabelledData":
        """A data set, with a progress bar."""
        from resque import console
        from resque.data import load_data
        from resque.families import preparation_of

        wanted = preparation_of(self.model)
        with console.progress(f"reading {spec}") as show:
            return load_data(
                spec,
                limit=self.limit,
                preparation=wanted,
                root=self.data_root,
                for_training=for_training,
                watch=lambda done, total: show(done, total or done, ""),
            )

    def network(self, data: "LabelledData | None" = None, seed: int = 0) -> "nn.Module":
        """The model with its weights, on its device.

        Args:
            data: What it is to learn: an untrained model of a library gets an output for each of their classes.
            seed: Of random weights.
        """
        from resque.families import is_untrained
        from resque.models import load_model, on_device

        classes = self.classes
        if classes is None and self.weights is None and data is not None and is_untrained(self.model):
            classes = data.outputs
        return on_device(load_model(self.model, self.weights, seed, classes), self.device)

    def fresh(self, network: "nn.Module", seed: int) -> "Callable[[int], nn.Module]":
        """Seed → the model's architecture with random weights, on its device.

        Args:
            network: The model itself; one that is random too has nothing to be compared with.
            seed: Of the first one.
        """
        from resque.models import fingerprint, fresh_model, on_device

        def build(seed: int) -> "nn.Module":
            return on_device(fresh_model(self.model, network, seed), self.device)

        if fingerprint(build(seed)) == fingerprint(network):
            raise ModelError(f"{self.model} has no trained weights to compare with scratch: name them with --weights")
        return build

    def original(self, network: "nn.Module", spec: str, layer: str | None, reduction: str | None) -> "Profile":
        """The original side: a saved profile, or one pass over the original data."""
        from resque.profiles import Profile

        if Path(spec).suffix == ".npz" and Path(spec).is_file():
            raise DataError(f"{spec} is data, not a profile: write npz:{spec}")
        if spec.endswith(".safetensors") or Path(spec).is_file():
            found = Profile.load(spec)
            if layer is not None and layer != found.origin.layer:
                raise DataError(
                    f"{spec} is of layer {found.origin.layer}, not {layer}: leave --layer out, or profile anew"
                )
            return found
        return profile_of(network, self.data(spec, for_training=False), layer, reduction or "flatten", "true")

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
    ) -> "Retraining":
        """The job that train, test, target and recipe options describe."""
        from resque.recipes import Retraining, named_recipe

        chosen = named_recipe(recipe, evaluate_every, max_epochs)
        Retraining.check_target(target_accuracy)
        kept = None if original_test is None else self.data(original_test)
        return Retraining(self.data(train), self.data(test), target_accuracy, chosen, original_test=kept, **more)


def profile_of(network: "nn.Module", data: "LabelledData", layer: str | None, reduction: str, labels: str) -> "Profile":
    """One pass over a data set, with a progress bar."""
    from resque import console
    from resque import profile as make_profile
    from resque.labelled import BATCH
    from resque.representations import device_of

    if labels == "true" and not data.labelled:
        raise DataError(f"{data.name} has no labels: let the model's own predictions stand in, --labels pseudo")
    batches = data.batches(device=device_of(network))
    shown = console.tracked(batches, -(-len(data) // BATCH), f"passing {data.name}")
    classes = data.classes if labels == "true" else None
    return make_profile(network, shown, layer, reduction, classes, labels, data.preprocessing)


def warmed_up(
    network: "nn.Module", job: "Retraining", extend: bool, layer: str | None, reduction: str | None
) -> "tuple[Features, EnergyReading]":
    """What an epoch on a copy tells of a new task, and what it took, with a progress bar."""
    from resque import console
    from resque.energy import open_meter
    from resque.tasks import TaskQuestion, known_of_task

    how = reduction or "flatten"
    question = TaskQuestion(extend=extend, recipe=job.recipe, layer=layer, reduction=how, seed=job.seed)
    with console.progress("an epoch on a copy") as show:
        return known_of_task(network, job, question, meter=open_meter(), watch=show)


def existing_ledger(path: Path) -> "Ledger":
    """A ledger that is there; an absent one is refused."""
    from resque.ledger import Ledger

    if not path.exists():
        raise LedgerError(
            f"no ledger at {path}: `resque retrain` or `resque demo` begins one, or name it with --ledger"
        )
    return Ledger(path)


def claim_folder(folder: Path) -> None:
    """Make a folder before anything costly is done, so that results have a place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make folder {str(folder)!r}: {error.strerror}; name another with --out") from error

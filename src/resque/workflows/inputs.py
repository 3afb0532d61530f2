"""Load what a user names: a model, datasets and profiles, as objects or as specifications.

Every workflow takes either, so that a Python user may pass what is at hand and the command line what was typed.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from resque.data.class_names import number_as, warn_of_numbering
from resque.data.dataset import LabeledDataset
from resque.data.loading import check_classes, load_data
from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing, Tokenization
from resque.data.streams import DataStream, Passable, is_stream, open_stream
from resque.energy.meters import EnergyMeter
from resque.errors import DataError, ModelError, SettingError
from resque.indices.profile import Profile, check_whole
from resque.indices.task_features import TaskIndexSettings, task_features
from resque.models.class_names import class_names_of
from resque.models.inference import device_of
from resque.models.loading import fresh_model, load_model, move_to_device, usable_device
from resque.models.registry import build_model, has_random_weights, preprocessing_for
from resque.models.weights import fingerprint, read_class_names
from resque.training.finetuning import SCALES, STATISTICS
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.training.recipe import Recipe
from resque.workflows.keeping import check_fields
from resque.workflows.one_pass import OnePass

if TYPE_CHECKING:
    from resque.energy.reading import EnergyReading
    from resque.ledger.records import Features, Forecast

__all__ = ["DATA_ROOT", "InputLoader", "ModelOptions", "ShowProgress", "silent"]

DATA_ROOT = Path("data")
ShowProgress = Callable[[str], AbstractContextManager[Callable[[int, int, str], None]]]
"""Opens a progress bar with a description; the block gets ``show(done, total, detail)``."""


@contextmanager
def silent(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show no progress.

    Example:
        >>> with silent("training") as show:
        ...     show(1, 10, "")
    """
    yield lambda done, total, detail: None


@dataclass(frozen=True)
class ModelOptions:
    """How a model and its data are loaded.

    Attributes:
        weights: State dict of a specified model, ``.safetensors`` or ``.pt``; None keeps the specification's weights.
        classes: Number of outputs; None takes that of the weights, or of the data for an untrained library model.
        device: Device to run on; None leaves an object where it is and puts a specified model on the CPU.
        limit: Maximum number of samples of each dataset.
        data_root: Folder of torchvision's datasets.
        show_progress: Opens a progress bar for each step that may take seconds.
        download: Whether names on a hub, and weights of tagged timm names, are fetched; if not, they must be here.
    """

    weights: str | Path | None = None
    classes: int | None = None
    device: str | None = None
    limit: int | None = None
    data_root: str | Path = DATA_ROOT
    show_progress: ShowProgress = silent
    download: bool = False


@dataclass(frozen=True)
class InputLoader:
    """Loads a model, and data in the form that this model takes.

    Attributes:
        model: Specification, or the model itself.
        options: How both are loaded.
        change: ``"shift"``, or what changes the classes: ``"new task"`` or ``"extension"``. Names of classes follow the
            model's in a shift, come after them in an extension, and have an order of their own in a new task.
        labels: ``"true"``, or ``"pseudo"`` for new data that may lack labels, so that an update can only be forecast.

    Example:
        >>> loader = InputLoader("resque.networks:small_cnn")
        >>> data = loader.data("digits@16px@test")
        >>> loader.name, len(data), loader.network(data).training
        ('resque.networks:small_cnn', 539, False)
    """

    model: str | nn.Module
    options: ModelOptions = field(default_factory=ModelOptions)
    change: str = "shift"
    labels: str = "true"

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | nn.Module):
            raise ModelError(
                f"the model is a {type(self.model).__name__}; expected an nn.Module, or a specification: 'net.py:build'"
            )
        check_fields({"model": self.name})

    @property
    def spec(self) -> str | None:
        """Specification of the model; None for an object that :func:`resque.load_model` did not build."""
        return self.model if isinstance(self.model, str) else getattr(self.model, "resque_spec", None)

    @property
    def name(self) -> str:
        """Specification of the model, or the class name of an object."""
        return self.spec or type(self.model).__name__

    @property
    def device(self) -> torch.device:
        """Device on which the model runs."""
        if self.options.device is None and isinstance(self.model, nn.Module):
            return device_of(self.model)
        return usable_device(self.options.device or "cpu")

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the model's classes; empty if it has none. Those kept with its weights go before its own."""
        if isinstance(self.model, nn.Module):
            return class_names_of(self.model)
        if self.options.weights is not None and (names := read_class_names(Path(self.options.weights))):
            return names
        if has_random_weights(self.model):
            return ()
        return class_names_of(build_model(self.model, classes=self.options.classes, download=self.options.download))

    def numbered(self, data: LabeledDataset) -> LabeledDataset:
        """Return data with named classes numbered as the model numbers them; a warning says if it has no names."""
        if not data.labeled:
            return dataclasses.replace(data, class_names=())
        if not data.class_names or self.change == NEW_TASK or not self.class_names:
            return warn_of_numbering(data)
        return number_as(data, self.class_names, extend=self.change == EXTENSION)

    def data(self, source: Any, for_training: bool = True) -> LabeledDataset:
        """Load a dataset with the preprocessing of the model.

        Args:
            source: Specification, dataset, or pair of arrays ``(x, y)``.
            for_training: Whether labels are required, unless they are ``"pseudo"``; if so, named classes are numbered
                as the model does.
        """
        required = for_training and self.labels == "true"
        shown = source if isinstance(source, str) else "the data"
        with self.options.show_progress(f"reading {shown}") as show:
            data = load_data(
                source,
                limit=self.options.limit,
                preprocessing=self.preprocessing(),
                root=self.options.data_root,
                for_training=required,
                on_progress=lambda done, total: show(done, total or done, ""),
                number=self.numbered if for_training else lambda data: data,
                download=self.options.download,
            )
        if for_training and not required:
            check_classes(data)
        return data

    def passed(self, source: Any) -> Passable:
        """Load data for a single pass in their order, which a stream allows, too."""
        if is_stream(source):
            return open_stream(source, self.options.limit, self.preprocessing())
        return self.data(source, for_training=False)

    def network(self, data: Passable | None = None, seed: int = 0) -> nn.Module:
        """Load the model with its weights, on its device; an object stays in its mode.

        Args:
            data: Data to learn: an untrained library model gets one output for each of its classes.
            seed: Seed of random weights.
        """
        options, classes = self.options, self.options.classes
        if not isinstance(self.model, str):
            return self.model if options.device is None else move_to_device(self.model, options.device)
        untrained = options.weights is None and has_random_weights(self.model)
        if classes is None and untrained and data is not None and data.labeled:
            classes = data.outputs
        network = load_model(self.model, options.weights, seed, classes, options.download)
        return move_to_device(network, options.device or "cpu")

    def random_networks(self, network: nn.Module, seed: int) -> Callable[[int], nn.Module]:
        """Return a function that builds the same architecture with random weights of a given seed.

        Args:
            network: The trained model.
            seed: First seed that will be used.

        Raises:
            ModelError: No specification is known, or its weights are random already.
        """
        if self.spec is None:
            raise ModelError("training from scratch needs a model specification: pass 'net.py:build', not a model")
        spec, device = self.spec, str(device_of(network))

        def build(seed: int) -> nn.Module:
            return move_to_device(fresh_model(spec, network, seed), device)

        if fingerprint(build(seed)) == fingerprint(network):
            raise ModelError(f"{spec} has no trained weights to compare with scratch: name them with --weights")
        return build

    def original_profile(
        self, network: nn.Module, source: Any, layer: str | None = None, reduction: str | None = None
    ) -> Profile:
        """Load the profile of the original data, or compute it in one pass.

        Args:
            network: The model.
            source: Profile, file of a profile, or the original data.
            layer: Module name; None takes the profile's, else the paper's.
            reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        """
        if isinstance(source, Profile):
            return _of_layer(source, "the profile", layer, reduction)
        if isinstance(source, str | Path):
            path = Path(source)
            if is_profile(source):
                return _of_layer(Profile.load(path), str(path), layer, reduction)
        data = source if isinstance(source, LabeledDataset | DataStream) else self.passed(source)
        return self.profile(network, data, layer, reduction)

    def profile(
        self,
        network: nn.Module,
        data: Passable,
        layer: str | None,
        reduction: str | None,
        labels: str = "true",
        shard: tuple[int, int] | None = None,
    ) -> Profile:
        """Compute the profile of a dataset in one pass.

        Args:
            network: The model.
            data: The dataset, or a stream.
            layer: Module name; None takes the paper's layer.
            reduction: How a representation is flattened.
            labels: ``"true"``, or ``"pseudo"`` for the model's own predictions.
            shard: Number and count of shards, to pass one alone; None passes all samples, in all processes together.
        """
        if labels == "true" and not data.labeled:
            raise DataError(f"{data.name} has no labels: use the model's own predictions, --labels pseudo")
        if isinstance(data, DataStream):
            names = self.class_names if data.named else ()
            data = data.unlabeled() if labels == "pseudo" else data.numbered(names)
        elif labels == "true":
            data = self.numbered(data)
        one = OnePass(network, layer, reduction, labels, self.options.classes, self.options.show_progress)
        return one.over_all(data) if shard is None else one.over(data, shard)

    def check_profile(self, network: nn.Module, data: LabeledDataset, layer: str | None, reduction: str | None) -> None:
        """Raise an error if no profile of this layer and reduction can be made, by the profile of two samples.

        Raises:
            ModelError: There is no such layer.
            RepresentationError: There is no such reduction, or it does not fit the layer.
        """
        self.profile(network, data.take(torch.arange(min(2, len(data)))), layer, reduction, "pseudo")

    def original_of(self, forecast: "Forecast", original: Any = None) -> Any:
        """Return the original data that the update of a forecast replays; what is given, if it replays none.

        Args:
            forecast: Forecast of the update.
            original: Original data or their profile, as they are given for the update.

        Raises:
            DataError: The data of the forecast cannot be read, as those that were passed as arrays.
        """
        if forecast.replay_data is None or not (original is None or is_profile(original)):
            return original
        try:
            return self.data(forecast.replay_data)
        except DataError as error:
            raise DataError(f"original data of the forecast: {error}; or name them again, --original") from error

    def job(
        self,
        train: Any,
        test: Any,
        target_accuracy: float,
        recipe: Recipe,
        *,
        original: Any = None,
        original_test: Any = None,
        seed: int = 0,
    ) -> RetrainingJob:
        """Load the data of a retraining job; refuse what is impossible before anything is read."""
        RetrainingJob.check_target(target_accuracy)
        if self.change != "shift" and recipe.trains in (STATISTICS, SCALES):
            raise SettingError(f"trains={recipe.trains} leaves a new head untrained: use trains=head, lora or all")
        if recipe.replay and self.change == NEW_TASK:
            raise SettingError(
                "replay mixes in original data, whose classes a new head lacks: leave it out for a new task, or keep "
                "the classes with --extend"
            )
        if self.change == EXTENSION and original is not None and not recipe.replay:
            raise SettingError(
                "an extension takes --original for replay alone: add replay=0.2 to the recipe, or leave it out"
            )
        if recipe.replay and original is not None and is_profile(original):
            raise SettingError(
                f"replay={recipe.replay:g} needs the original data, not their profile: name the data with --original"
            )
        kept = None if original_test is None else self.data(original_test)
        return RetrainingJob(
            self.data(train),
            self.data(test),
            target_accuracy,
            recipe,
            seed,
            original_test=kept,
            replayed=self.data(original) if recipe.replay and original is not None else None,
        )

    def new_task_features(
        self,
        network: nn.Module,
        job: RetrainingJob,
        extend: bool,
        layer: str | None,
        reduction: str | None,
        meter: EnergyMeter,
    ) -> "tuple[Features, EnergyReading]":
        """Train a copy with a new head for one epoch; return the features of the new task, and what that took."""
        self.check_profile(network, job.train, layer, reduction)
        settings = TaskIndexSettings(extend=extend, recipe=job.recipe, layer=layer, reduction=reduction, seed=job.seed)
        with self.options.show_progress("one epoch on a copy") as show:
            return task_features(network, job, settings, meter=meter, on_progress=show)

    def preprocessing(self) -> ImagePreprocessing | Tokenization:
        """Return the preprocessing that the model was trained with."""
        return NO_PREPROCESSING if self.spec is None else preprocessing_for(self.spec, self.options.download)


def is_profile(original: Any) -> bool:
    """Return whether what was named as original data is their profile, or its file.

    Raises:
        DataError: It is the name of an archive of arrays without ``npz:``.

    Example:
        >>> [is_profile(each) for each in ("clean.safetensors", "digits@train")]
        [True, False]
    """
    if isinstance(original, str | Path):
        if Path(original).suffix == ".npz" and os.path.isfile(original):
            raise DataError(f"{original} is data, not a profile: write npz:{original}")
        return Path(original).suffix == ".safetensors" or os.path.isfile(original)
    return isinstance(original, Profile)


def _of_layer(found: Profile, name: str, layer: str | None, reduction: str | None) -> Profile:
    """Return a profile; raise DataError if it is of another layer or reduction than those that are asked for."""
    check_whole(found, name)
    for option, asked, own in (("layer", layer, found.origin.layer), ("reduction", reduction, found.origin.reduction)):
        if asked not in (None, own):
            raise DataError(f"{name} is of {option} {own}, not {asked}: leave --{option} out, or profile anew")
    return found

"""Check what a project file names: load the model, pass one batch, read the ledger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from resque.data.dataset import BATCH, LabeledDataset
from resque.energy.grid import named_grid
from resque.errors import ProfileMismatchError
from resque.ledger.store import Ledger
from resque.models.inference import device_of, eval_mode, forward
from resque.models.layers import representation_layer
from resque.models.weights import fingerprint
from resque.training.job import RetrainingJob
from resque.training.recipe import named_recipe
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.project import Project, read_project, write_project

__all__ = ["check_project", "start_project"]


def check_project(project: Project, options: ModelOptions | None = None) -> dict[str, Any]:
    """Load what a project file names and return what was found; keys that are left out are not checked.

    Args:
        project: Content of the file.
        options: Overrides of how the model and data are loaded; None takes the file's.

    Returns:
        What → finding, for a table.

    Raises:
        ResqueError: Anything that a later command would refuse, with the same message.

    Example:
        >>> found = check_project(Project({("model", "spec"): "resque.networks:small_cnn"}))
        >>> found["model"]
        'resque.networks:small_cnn, 24,170 parameters on cpu'
    """
    given = project.values
    found: dict[str, Any] = {}
    if ("update", "target_accuracy") in given:
        RetrainingJob.check_target(given["update", "target_accuracy"])
    if ("update", "recipe") in given:
        recipe = named_recipe(given["update", "recipe"])
        found["recipe"] = f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, batch size {recipe.batch_size}"
    if ("model", "spec") in given:
        found |= _check_model(project, options)
    grid = named_grid(given.get(("cost", "country")), given.get(("cost", "intensity")), given.get(("cost", "pue"), 1.0))
    found["grid"] = (
        "none named: no carbon is reported"
        if grid is None
        else f"{grid.region}, {grid.intensity_g_per_kwh:g} g CO2e/kWh"
    )
    ledger = Ledger(given.get(("ledger", "path"), "resque.db"))
    counts = ledger.count()
    found["ledger"] = f"{ledger.path}, {counts['updates']:,} updates, {counts['forecasts']:,} forecasts"
    return found


def start_project(path: Path, values: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Write a project file and check it as it will be read; one that fails the check is removed again.

    Args:
        path: New file.
        values: ``(section, key)`` → value, with paths relative to the file.

    Returns:
        What was found, see :func:`check_project`.
    """
    write_project(path, values)
    try:
        return check_project(read_project(path))
    except BaseException:
        path.unlink()
        raise


def _check_model(project: Project, options: ModelOptions | None) -> dict[str, str]:
    given = project.values
    weights, device = given.get(("model", "weights")), given.get(("update", "device"))
    download = given.get(("model", "download"), False)
    options = options or ModelOptions(weights, device=device, download=download)
    loader = InputLoader(given["model", "spec"], options, labels="pseudo")
    data = loader.data(given["data", "test"]) if ("data", "test") in given else None
    network = loader.network(data)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    found = {
        "model": f"{loader.name}, {parameters:,} parameters on {device_of(network)}",
        "weights": f"{weights or 'as the specification gives them'}, fingerprint {fingerprint(network)}",
        "layer": representation_layer(network, given.get(("update", "layer"))),
    }
    if data is not None:
        classes = f"{len(data.classes)} classes" if data.labeled else "no labels (--labels pseudo)"
        found["test data"] = f"{len(data):,} samples, {classes}: {data.preprocessing}"
        found["one batch"] = _pass_one_batch(network, data)
    if ("model", "original") in given:
        profile = loader.original_profile(network, given["model", "original"])
        if profile.origin.model and profile.origin.model != fingerprint(network):
            raise ProfileMismatchError(f"{given['model', 'original']} is a profile of another model: name its weights")
        found["original"] = f"{profile.n:,} samples, {len(profile.counts)} classes, layer {profile.origin.layer}"
    return found


def _pass_one_batch(network: nn.Module, data: LabeledDataset) -> str:
    inputs, labels = next(data.batches(BATCH, device_of(network)))
    with eval_mode(network):
        logits = forward(network, inputs)
    shape = f"{len(labels)} samples, {logits.shape[1]} outputs"
    return f"{shape}, accuracy {float((logits.argmax(1) == labels).float().mean()):.2f}" if data.labeled else shape

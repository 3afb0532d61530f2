"""``resque dist``: RESQUE_dist of shifted data."""

from typing import Annotated

from resque.cli.loading import input_loader
from resque.cli.options import (
    DATA_ROOT,
    INDEX,
    MODEL,
    DataRoot,
    Device,
    Json,
    Labels,
    Layer,
    Limit,
    Model,
    OwnReduction,
    Project,
    Weights,
    option,
)


def dist(
    model: Model,
    original: Annotated[str, option(MODEL, "Profile (.safetensors) or data that the model was trained on.")],
    shifted: Annotated[str, option(MODEL, "New data, of the same classes.")],
    weights: Weights = None,
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    device: Device = "cpu",
    layer: Layer = None,
    reduction: OwnReduction = None,
    labels: Labels = "true",
    unit: Annotated[str, option(INDEX, "rad, or pi for fractions of pi.")] = "rad",
    debias: Annotated[bool, option(INDEX, "Remove the angle that sampling noise adds.", "--debias")] = False,
    confidence: Annotated[float, option(INDEX, "Nominal coverage of the index's interval.")] = 0.9,
    undefined: Annotated[str, option(INDEX, "A class missing on one side: error or skip.")] = "error",
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Compute RESQUE_dist: the mean angle by which a shift rotates the class means.

    Example: resque dist --model net.py:build --original net.profile --shifted digits@test+gaussian:5
    """
    from resque.indices.distribution import check_options, resque_dist
    from resque.reporting import console, tables

    check_options(unit, undefined, confidence)
    loader = input_loader(model, weights, device, limit, data_root)
    new = loader.data(shifted, for_training=False)
    network = loader.network(new)
    before = loader.original_profile(network, original, layer, reduction)
    after = loader.profile(network, new, layer or before.origin.layer, reduction or before.origin.reduction, labels)
    index = resque_dist(before, after, unit=unit, debias=debias, undefined=undefined, level=confidence)
    console.print_json(console.to_json(index)) if as_json else tables.show_index(index)

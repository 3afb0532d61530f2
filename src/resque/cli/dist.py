"""``resque dist``: RESQUE_dist of shifted data."""

from typing import Annotated

from resque.cli import options as opt
from resque.cli.loading import model_options
from resque.errors import SettingError


def dist(
    model: opt.Model,
    original: Annotated[str, opt.option(opt.MODEL, "Profile (.safetensors) or data that the model was trained on.")],
    shifted: Annotated[str, opt.option(opt.MODEL, "New data, of the same classes.")],
    weights: opt.Weights = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    device: opt.Device = "cpu",
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    labels: opt.Labels = "true",
    unit: Annotated[str, opt.option(opt.INDEX, "rad, or pi for fractions of pi.")] = "rad",
    debias: Annotated[bool, opt.option(opt.INDEX, "Remove the angle that sampling noise adds.", "--debias")] = False,
    confidence: Annotated[float, opt.option(opt.INDEX, "Nominal coverage of the index's interval.")] = 0.9,
    precision: opt.Precision = None,
    undefined: Annotated[str, opt.option(opt.INDEX, "A class missing on one side: error or skip.")] = "error",
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Compute RESQUE_dist: the mean angle by which a shift rotates the class means.

    Example: resque dist --model net.py:build --original net.profile --shifted digits@test+gaussian:5
    """
    from resque.indices.distribution import check_options, resque_dist
    from resque.reporting import console, tables
    from resque.workflows.inputs import InputLoader
    from resque.workflows.sampling import sampled_dist

    check_options(unit, undefined, confidence)
    options = model_options(weights, classes, device, limit, data_root, download)
    if precision is not None:
        if debias:
            raise SettingError("--precision estimates the plain index of all data: leave --debias or --precision out")
        index = sampled_dist(
            model, original, shifted, precision, labels=labels, layer=layer, reduction=reduction,
            unit=unit, undefined=undefined, level=confidence, options=options,
        )  # fmt: skip
    else:
        loader = InputLoader(model, options)
        new = loader.passed(shifted)
        network = loader.network(new)
        before = loader.original_profile(network, original, layer, reduction)
        after = loader.profile(network, new, layer or before.origin.layer, reduction or before.origin.reduction, labels)
        index = resque_dist(before, after, unit=unit, debias=debias, undefined=undefined, level=confidence)
    console.print_json(console.to_json(index)) if as_json else tables.show_index(index)

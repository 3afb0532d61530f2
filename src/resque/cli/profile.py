"""``resque profile``: one pass over the original data."""

from pathlib import Path
from typing import Annotated

from resque.cli import options as opt
from resque.cli.loading import input_loader


def profile(
    model: opt.Model,
    data: Annotated[str, opt.option(opt.MODEL, "Original data: digits, npz:FILE, folder:PATH, …")],
    out: Annotated[Path, opt.option(opt.OUTPUT, "Profile to write, .safetensors.")],
    weights: opt.Weights = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    device: opt.Device = "cpu",
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    labels: opt.Labels = "true",
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Compute the profile of the original data in one pass; it travels with the model.

    Example: resque profile --model net.py:build --weights net.safetensors --data digits@train --out net.profile
    """
    from resque.indices.class_sums import HALVES
    from resque.reporting import console, tables

    loader = input_loader(model, weights, classes, device, limit, data_root, download)
    original = loader.passed(data)
    result = loader.profile(loader.network(original), original, layer, reduction, labels)
    result.save(out)
    facts = {"profile": str(out), "n": result.n, "classes": sorted(result.counts), "width": result.width}
    facts |= {**vars(result.origin), "labels": result.labels_from, "sub_sums": HALVES}
    console.print_json(facts) if as_json else tables.show_facts(facts)

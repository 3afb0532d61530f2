"""``resque profile``: one pass over the original data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from resque._processes import current_processes
from resque.cli import options as opt
from resque.cli.loading import input_loader
from resque.errors import SettingError

if TYPE_CHECKING:
    from resque.indices.profile import Profile


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
    shard: Annotated[
        str | None, opt.option(opt.OUTPUT, "One of n parts, i/n with i from 1; `resque merge` puts them together.")
    ] = None,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Compute the profile of the original data in one pass; it travels with the model.

    Example: resque profile --model net.py:build --weights net.safetensors --data digits@train --out net.profile
    """
    from resque.data.shards import parse_shard

    part = None if shard is None else parse_shard(shard)
    if part is not None and current_processes().count > 1:
        raise SettingError("--shard is for one process, and torchrun gives each its shard: leave one of them out")
    loader = input_loader(model, weights, classes, device, limit, data_root, download)
    original = loader.passed(data)
    result = loader.profile(loader.network(original), original, layer, reduction, labels, part)
    if current_processes().rank == 0:
        result.save(out)
    show_profile(result, out, as_json)


def show_profile(result: "Profile", out: Path, as_json: bool) -> None:
    """Print what a profile that was written holds."""
    from resque.indices.class_sums import HALVES
    from resque.reporting import console, tables

    facts = {"profile": str(out), "n": result.n, "classes": sorted(result.counts), "width": result.width}
    facts |= {**vars(result.origin), "labels": result.labels_from, "sub_sums": HALVES}
    facts |= {} if result.shard is None else {"shard": str(result.shard), "n_of_all_shards": result.shard.total}
    console.print_json(facts) if as_json else tables.show_facts(facts)

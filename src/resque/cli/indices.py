"""The commands that compute an index: profile, dist, task. Each is parse → one call → print."""

from pathlib import Path
from typing import Annotated

import typer

from resque.cli.loading import InputLoader, profile_with_progress
from resque.cli.options import (
    DATA_ROOT,
    Country,
    DataRoot,
    Device,
    Extend,
    Intensity,
    Json,
    Labels,
    Layer,
    Limit,
    Model,
    OwnReduction,
    Pue,
    RecipeName,
    Reduction,
    Seed,
    Weights,
)


def profile(
    model: Model,
    data: Annotated[str, typer.Option(help="The original data: digits, npz:FILE, folder:PATH, …")],
    out: Annotated[Path, typer.Option(help="The profile, .safetensors.")],
    weights: Weights = None,
    layer: Layer = None,
    reduction: Reduction = "flatten",
    labels: Labels = "true",
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """One pass over the original data; the profile travels with the model from then on.

    Example: resque profile --model net.py:build --weights net.safetensors --data digits@train --out net.profile
    """
    from resque.indices.class_sums import HALVES
    from resque.reporting import console, tables

    reader = InputLoader(model, weights, device, None, limit, data_root)
    original = reader.data(data, for_training=False)
    made = profile_with_progress(reader.network(original), original, layer, reduction, labels)
    made.save(out)
    facts = {"profile": str(out), "n": made.n, "classes": sorted(made.counts), "width": made.width, **vars(made.origin)}
    facts |= {"labels": made.labels_from, "sub_sums": HALVES}
    console.print_json(facts) if as_json else tables.show_facts(facts)


def dist(
    model: Model,
    original: Annotated[str, typer.Option(help="Profile (.safetensors) or data the model was trained on.")],
    shifted: Annotated[str, typer.Option(help="The new data.")],
    weights: Weights = None,
    layer: Layer = None,
    reduction: OwnReduction = None,
    labels: Labels = "true",
    unit: Annotated[str, typer.Option(help="rad, or pi for fractions of pi.")] = "rad",
    debias: Annotated[bool, typer.Option("--debias", help="Take out the angle that sampling noise adds.")] = False,
    confidence: Annotated[float, typer.Option(help="Nominal coverage of the index's interval.")] = 0.9,
    undefined: Annotated[str, typer.Option(help="A class missing on one side: error or skip.")] = "error",
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """RESQUE_dist: the mean angle by which a shift turns each class.

    Example: resque dist --model net.py:build --original net.profile --shifted digits@test+gaussian:5
    """
    from resque.indices.distribution import check_options, resque_dist
    from resque.reporting import console, tables

    check_options(unit, undefined, confidence)
    reader = InputLoader(model, weights, device, None, limit, data_root)
    new = reader.data(shifted, for_training=False)
    network = reader.network(new)
    before = reader.original(network, original, layer, reduction)
    origin = before.origin
    after = profile_with_progress(network, new, layer or origin.layer, reduction or origin.reduction, labels)
    index = resque_dist(before, after, unit=unit, debias=debias, undefined=undefined, level=confidence)
    console.print_json(console.to_json(index)) if as_json else tables.show_index(index)


def task(
    model: Model,
    data: Annotated[str, typer.Option(help="The new task's data; any integers as labels.")],
    weights: Weights = None,
    extend: Extend = False,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps of warm-up; default: one epoch.")] = None,
    recipe: RecipeName = "retrain-adam",
    init: Annotated[str, typer.Option(help="class-means, k-means++, random, or all three.")] = "class-means",
    lloyd: Annotated[bool, typer.Option(help="Lloyd's iterations, or each sample to its nearest class mean.")] = True,
    keep: Annotated[str, typer.Option(help="Of 20 random clusterings, least entropy of: sizes or labels.")] = "sizes",
    layer: Layer = None,
    reduction: Reduction = "flatten",
    seed: Seed = 0,
    country: Country = None,
    intensity: Intensity = None,
    pue: Pue = 1.0,
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """RESQUE_task: how well the model tells a new task's classes apart after one epoch, and what asking cost.

    Example: resque task --model net.py:build --weights net.safetensors --data npz:signs.npz --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.indices.task_features import TaskIndexSettings, task_index
    from resque.reporting import console, tables
    from resque.training.recipe import named_recipe

    chosen = named_recipe(recipe, None, None)
    query = TaskIndexSettings(extend, warmup_steps, chosen, init, lloyd, keep, layer, reduction, seed)
    grid = named_grid(country, intensity, pue)
    reader = InputLoader(model, weights, device, None, limit, data_root)
    network, new_task = reader.network(seed=seed), reader.data(data)
    with console.progress("resque task") as show:
        index = task_index(network, new_task, query, meter=open_meter(), grid=grid, on_progress=show)
    console.print_json(console.to_json(index)) if as_json else tables.show_task(index, grid)

"""``resque task``: RESQUE_task of a new task."""

from dataclasses import replace
from typing import Annotated

from resque.cli import options as opt
from resque.cli.loading import input_loader


def task(
    model: opt.Model,
    data: Annotated[str, opt.option(opt.MODEL, "Data of the new task; any integers as labels.")],
    weights: opt.Weights = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    extend: opt.Extend = False,
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    device: opt.Device = "cpu",
    init: Annotated[str, opt.option(opt.INDEX, "Start: class-means, k-means++, random, or all three.")] = "class-means",
    lloyd: Annotated[
        bool, opt.option(opt.INDEX, "Lloyd's iterations, or each sample to its nearest class mean.")
    ] = True,
    keep: Annotated[
        str, opt.option(opt.INDEX, "Choice among 20 random clusterings: least entropy of sizes or labels.")
    ] = "sizes",
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    recipe: opt.RecipeName = "retrain-adam",
    warmup_steps: Annotated[int | None, opt.option(opt.RECIPE, "Warm-up steps; default: one epoch.")] = None,
    seed: opt.Seed = 0,
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Compute RESQUE_task: how well the model separates the classes of a new task after one epoch.

    Example: resque task --model net.py:build --weights net.safetensors --data npz:signs.npz --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.nodes import open_meter_of_nodes
    from resque.indices.task_features import TaskIndexSettings, task_index
    from resque.reporting import console, tables
    from resque.training.new_task import EXTENSION, NEW_TASK
    from resque.training.recipe import named_recipe

    settings = TaskIndexSettings(
        extend, warmup_steps, named_recipe(recipe, None, None), init, lloyd, keep, layer, reduction, seed
    )
    grid = named_grid(country, intensity, pue)
    loader = replace(
        input_loader(model, weights, classes, device, limit, data_root, download),
        change=EXTENSION if extend else NEW_TASK,
    )
    network, new_task = loader.network(seed=seed), loader.data(data)
    with console.progress("resque task") as show:
        index = task_index(
            network, new_task, settings, meter=open_meter_of_nodes(loader.device), grid=grid, on_progress=show
        )
    if as_json:
        result = console.to_json(index)
        console.print_json({**result, "cost_of_asking": result["overhead"]})
    else:
        tables.show_task(index, grid)

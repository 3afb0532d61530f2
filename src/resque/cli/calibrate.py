"""``resque calibrate``: a synthetic initial history for forecasts."""

import time
from typing import Annotated, Any

import typer

from resque.cli import options as opt
from resque.cli.loading import input_loader, run_engine


def calibrate(
    context: typer.Context,
    model: opt.Model,
    data: Annotated[str, opt.option(opt.MODEL, "Images that the model was trained on, or images like them.")],
    weights: opt.Weights = None,
    original: Annotated[
        str | None, opt.option(opt.MODEL, "Profile or data that the model was trained on; default: a part of --data.")
    ] = None,
    test: Annotated[
        str | None, opt.option(opt.MODEL, "Such images held out; default: 30 % of --data, fair if not trained on.")
    ] = None,
    like: Annotated[
        str | None, opt.option(opt.MODEL, "New data, labeled or not: runs are chosen around an update to them.")
    ] = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    device: opt.Device = "cpu",
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    target_accuracy: Annotated[
        str | None,
        opt.option(
            opt.RECIPE, "Target, or lowest and highest (0.7:0.85), to ask for later; default: 3 % below the clean one."
        ),
    ] = None,
    updates: Annotated[int, opt.option(opt.RECIPE, "Number of runs, at most.", min=5)] = 12,
    recipe: opt.RecipeName = "retrain-adam",
    evaluate_every: opt.EvaluateEvery = None,
    max_epochs: Annotated[
        int | None, opt.option(opt.RECIPE, "Maximum number of epochs; default: the recipe's, or 20 (or 1,000 steps).")
    ] = None,
    seed: opt.Seed = 0,
    dry_run: Annotated[
        bool, opt.option(opt.BUDGET, "Show the candidates and the cost; train nothing.", "--dry-run")
    ] = False,
    max_hours: Annotated[
        float | None, opt.option(opt.BUDGET, "Limit of the wall time of the whole command, in hours.", min=0.0)
    ] = None,
    max_minutes: Annotated[float | None, opt.option(opt.BUDGET, "The same in minutes.", min=0.0)] = None,
    max_kwh: Annotated[float | None, opt.option(opt.BUDGET, "Limit of the energy of that time.", min=0.0)] = None,
    engine: opt.Engine = "local",
    address: opt.Address = None,
    round_size: Annotated[
        int, opt.option(opt.ENGINE, "Number of runs that are chosen together; results depend on it.", "--round", min=1)
    ] = 1,
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Retrain for synthetic shifts of your own data, to give forecasts an initial history.

    Passes over synthetic shifts choose candidates that start below the target. The next run is the one where forecasts
    are least certain: of the update to --like, or of the shifts themselves. A run that does not fit into the limit is
    not begun, and it resumes after an interruption. Exit code 3: not one run fits, and nothing was trained.

    Example: resque calibrate --model net.py:build --weights net.safetensors --data npz:clean.npz --max-minutes 5
    """
    start = time.perf_counter()
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.forecasting.budget import BEYOND
    from resque.ledger.store import Ledger
    from resque.reporting import calibration as shown
    from resque.reporting import console
    from resque.workflows.calibrate import Calibration
    from resque.workflows.calibration_limits import CalibrationLimits, max_hours_of

    max_hours = None if max_minutes is not None and opt.is_from_project(context, "max_hours") else max_hours
    limits = CalibrationLimits(max_hours_of(max_hours, max_minutes), max_kwh, start).checked(updates, engine)
    loader = input_loader(model, weights, classes, device, limit, data_root, download)
    history, grid = Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    calibration = Calibration(
        model=model, data=data, ledger=history, meter=open_meter(loader.device), grid=grid, original=original,
        test=test, like=like, target_accuracy=target_accuracy, updates=updates, recipe=recipe, layer=layer,
        evaluate_every=evaluate_every, max_epochs=max_epochs, seed=seed, limits=limits, reduction=reduction,
        options=loader.options, engine=run_engine(context, engine, address, loader), round_size=round_size,
    )  # fmt: skip
    network, plan = calibration.plan()
    if not as_json:
        shown.show_plan(plan, grid, target_accuracy is None)
    if plan.request.target_accuracy > plan.clean_accuracy:
        console.warn(f"the target is above the clean accuracy {plan.clean_accuracy:.3f}: many runs may not reach it")
    result = None if dry_run else calibration.run(network, plan)
    if as_json:
        console.print_json({**shown.plan_as_json(plan, result), "ledger": str(ledger)})
    elif result is not None and result.readiness is not None:
        longest = "" if max_epochs is None else f",max_epochs={max_epochs}"  # --max-epochs would make it a gate
        original_part = original or f"{data}{'' if test else '@train'}@original"
        command: dict[str, Any] = {"model": model, "weights": weights, "original": original_part}
        command |= {"shifted": like or "NEW", "test": "NEW-HELD-OUT"}
        command |= {"recipe": f"{recipe}{longest}", "evaluate-every": evaluate_every, "layer": layer}
        command |= {"reduction": reduction, "classes": classes, "country": country, "intensity": intensity}
        shown.show_result(plan, result, {**command, "pue": None if pue == 1.0 else pue, "ledger": ledger})
    if result is not None and result.runs.is_refused:
        console.warn(f"beyond budget, nothing was trained: {result.runs.ended}")
        raise typer.Exit(BEYOND)

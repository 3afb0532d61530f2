"""``resque calibrate``: a synthetic initial history for forecasts."""

from typing import Annotated, Any

import typer

from resque.cli import options as opt
from resque.cli.loading import input_loader


def calibrate(
    model: opt.Model,
    data: Annotated[str, opt.option(opt.MODEL, "Images that the model was trained on, or images like them.")],
    weights: opt.Weights = None,
    original: Annotated[
        str | None, opt.option(opt.MODEL, "Profile or data that the model was trained on; default: a part of --data.")
    ] = None,
    test: Annotated[
        str | None, opt.option(opt.MODEL, "Such images held out; default: 30 % of --data, fair if not trained on.")
    ] = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    device: opt.Device = "cpu",
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    target_accuracy: Annotated[
        float | None,
        opt.option(opt.RECIPE, "Accuracy to reach on shifted test data; default: 3 % below the clean one."),
    ] = None,
    updates: Annotated[int, opt.option(opt.RECIPE, "Number of runs.")] = 12,
    recipe: opt.RecipeName = "retrain-adam",
    evaluate_every: opt.EvaluateEvery = None,
    max_epochs: Annotated[
        int | None, opt.option(opt.RECIPE, "Maximum number of epochs; default: the recipe's, or 20 (or 1,000 steps).")
    ] = None,
    seed: opt.Seed = 0,
    dry_run: Annotated[bool, opt.option(opt.BUDGET, "Show the plan and its cost; train nothing.", "--dry-run")] = False,
    max_hours: Annotated[float | None, opt.option(opt.BUDGET, "Refuse a plan that may take longer.", min=0.0)] = None,
    max_kwh: Annotated[
        float | None, opt.option(opt.BUDGET, "Refuse a plan that may take more energy.", min=0.0)
    ] = None,
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Retrain for synthetic shifts of your own data, to give forecasts an initial history.

    Passes over every shift type and level choose the runs that start below the target and span the index. It prints an
    upper bound on their cost before it starts, and resumes after an interruption. Exit code 3: that bound exceeds a
    budget, and nothing was trained.

    Example: resque calibrate --model net.py:build --weights net.safetensors --data npz:clean.npz --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.forecasting.budget import BEYOND
    from resque.ledger.store import Ledger
    from resque.reporting import calibration as shown
    from resque.reporting import console
    from resque.workflows.calibrate import Calibration, CalibrationBudget

    loader = input_loader(model, weights, classes, device, limit, data_root, download)
    history, grid, meter = Ledger(ledger), named_grid(country, intensity, pue), open_meter(loader.device)
    history.check_writable()
    (budget := CalibrationBudget(max_hours, max_kwh)).check(meter)
    calibration = Calibration(
        model=model, data=data, ledger=history, meter=meter, grid=grid, original=original, test=test,
        target_accuracy=target_accuracy, updates=updates, recipe=recipe, evaluate_every=evaluate_every,
        max_epochs=max_epochs, seed=seed, layer=layer, reduction=reduction,
        options=loader.options,
    )  # fmt: skip
    network, plan = calibration.plan()
    reasons = budget.exceeded_by(plan)
    if not as_json:
        shown.show_plan(plan, grid, target_accuracy is None)
    if plan.request.target_accuracy > plan.clean_accuracy:
        console.warn(f"the target is above the clean accuracy {plan.clean_accuracy:.3f}: many runs may not reach it")
    runs = () if dry_run or reasons else calibration.run(network, plan)
    if as_json:
        console.print_json({**shown.plan_as_json(plan, runs, reasons), "ledger": str(ledger)})
    elif runs:
        shown.show_calibration_runs(runs)
        longest = "" if max_epochs is None else f",max_epochs={max_epochs}"  # --max-epochs would make it a gate
        original_part = original or f"{data}{'' if test else '@train'}@original"
        command: dict[str, Any] = {"model": model, "weights": weights, "original": original_part}
        command |= {"shifted": "NEW", "test": "NEW-HELD-OUT", "target-accuracy": plan.request.target_accuracy}
        command |= {"recipe": f"{recipe}{longest}", "evaluate-every": evaluate_every, "layer": layer}
        command |= {"reduction": reduction, "classes": classes, "country": country, "intensity": intensity}
        shown.show_next_command(runs, {**command, "pue": None if pue == 1.0 else pue, "ledger": ledger})
    for reason in reasons:
        console.warn(f"beyond budget, nothing was trained: {reason}")
    if reasons:
        raise typer.Exit(BEYOND)

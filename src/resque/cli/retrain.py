"""The command that does an update, and says what it did cost."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.cli.loading import InputLoader, create_folder, profile_with_progress, task_features_with_progress
from resque.cli.options import (
    CHECKPOINTS,
    DATA_ROOT,
    LEDGER,
    UPDATES,
    Classes,
    Country,
    Currency,
    DataRoot,
    Device,
    EmbodiedKg,
    EvaluateEvery,
    Extend,
    Intensity,
    Json,
    Labels,
    Layer,
    LedgerFile,
    LifeYears,
    Limit,
    MaxEpochs,
    Model,
    OwnReduction,
    PricePerHour,
    PricePerKwh,
    Pue,
    RecipeName,
    Seed,
    ShiftType,
    Target,
    Weights,
)
from resque.errors import SettingError

if TYPE_CHECKING:
    from torch import nn

    from resque.energy.grid import Grid
    from resque.energy.hardware import EmbodiedEmissions
    from resque.energy.meters import EnergyMeter
    from resque.energy.price import Tariff
    from resque.ledger.records import Update
    from resque.ledger.store import Ledger
    from resque.training.checkpoint import Checkpoint
    from resque.training.from_scratch import ScratchComparison
    from resque.training.job import RetrainingJob


def retrain(
    model: Model,
    train: Annotated[str, typer.Option(help="The new training data.")],
    test: Annotated[str, typer.Option(help="New data held out.")],
    target_accuracy: Target,
    weights: Weights = None,
    original: Annotated[str | None, typer.Option(help="Profile or data before the shift, for the index.")] = None,
    original_test: Annotated[str | None, typer.Option(help="Original data held out: what is forgotten?")] = None,
    forecast: Annotated[str | None, typer.Option(help="Id of the forecast that this update settles.")] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the updated model and its profile.")] = None,
    layer: Layer = None,
    reduction: OwnReduction = None,
    labels: Labels = "true",
    shift_type: ShiftType = None,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: MaxEpochs = None,
    seed: Seed = 0,
    new_head: Annotated[bool, typer.Option("--new-head", help="A new task: a new head for its classes.")] = False,
    extend: Extend = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Also train from scratch to the same target, and compare.")
    ] = False,
    scratch_recipe: Annotated[
        str | None, typer.Option(help="Recipe from scratch; default: the paper's rates for the same optimizer.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Pairs of retraining and scratch, from --seed on; default: 3.", min=1)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this very run was interrupted.")] = False,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=0.0)] = 30.0,
    price_per_kwh: PricePerKwh = 0.0,
    price_per_hour: PricePerHour = 0.0,
    currency: Currency = "EUR",
    embodied_kg: EmbodiedKg = None,
    life_years: LifeYears = None,
    country: Country = None,
    intensity: Intensity = None,
    pue: Pue = 1.0,
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    classes: Classes = None,
    device: Device = "cpu",
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """Retrain to a target accuracy, measure every cost, write model, profile and ledger entry.

    Example: resque retrain --model net.py:build --weights net.safetensors --train npz:new.npz
    --test npz:new-test.npz --target-accuracy 0.9 --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.hardware import embodied_emissions
    from resque.energy.meters import open_meter
    from resque.energy.price import Tariff
    from resque.forecasting.evaluation.settlement import check_settles
    from resque.forecasting.landmarking import ForecastReviser
    from resque.indices.shift_features import shift_features
    from resque.ledger.store import Ledger
    from resque.models.inference import device_of
    from resque.models.layers import representation_layer
    from resque.models.weights import fingerprint
    from resque.reporting import console, tables
    from resque.reporting.carbon_intensity import software_carbon_intensity
    from resque.training.checkpoint import Checkpoint
    from resque.training.environment import describe_host
    from resque.training.evaluation import check_data_fits_model
    from resque.training.from_scratch import compare_with_scratch
    from resque.training.new_task import prepare_new_task
    from resque.training.recipe import named_recipe
    from resque.workflows.artifacts import Lineage, save_update

    history, grid = Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    if not from_scratch and (seeds is not None or scratch_recipe is not None):
        raise SettingError("--seeds and --scratch-recipe belong to --from-scratch: add it, or leave them out")
    if (new_head or extend) and (from_scratch or original is not None or (new_head and extend)):
        raise SettingError("--new-head and --extend stand alone: without --original, --from-scratch or each other")
    other = None if scratch_recipe is None else named_recipe(scratch_recipe, evaluate_every, max_epochs)
    reader = InputLoader(model, weights, device, classes, limit, data_root)
    job = reader.job(
        train,
        test,
        target_accuracy,
        recipe,
        evaluate_every,
        max_epochs,
        original_test,
        shift_type=shift_type,
        seed=seed,
    )
    said = None if forecast is None else history.forecast(forecast)
    network = reader.network(None if new_head or extend else job.train, seed)
    as_asked = network, job
    if new_head or extend:
        network, job = prepare_new_task(network, job, extend)
    fresh = reader.fresh(network, seed) if from_scratch else None
    for part in (job.train, job.test, *([] if job.original_test is None else [job.original_test])):
        check_data_fits_model(network, part)
    if said is not None:
        check_settles(network, job, said)
    before = None if original is None else reader.original(network, original, layer, reduction)
    checkpoint, parent = Checkpoint(CHECKPOINTS, checkpoint_every, resume), job.parent or fingerprint(network)
    made = embodied_emissions(describe_host(device_of(network)), embodied_kg, life_years)
    if said is not None and not (resume and _ended(history, checkpoint, parent, job)):
        history.waiting(said.id)
    going_on = _check_resumed(history, checkpoint, parent, job, begins_anew=not from_scratch)
    if not going_on:
        _check_new(out)
    chosen = representation_layer(network, layer or (before.origin.layer if before else None))
    create_folder(out or UPDATES)
    if said is not None:
        features = said.features
    elif job.parent:
        features = task_features_with_progress(*as_asked, extend, layer, reduction)[0]
    else:
        features = shift_features(network, job, before, labels)[0]
    lineage = Lineage.of(before, None if original is None else Path(original))
    same = (reduction or "flatten") if before is None else before.origin.reduction
    tariff = Tariff(price_per_kwh, price_per_hour, currency) if price_per_kwh or price_per_hour else None
    written: list[Path] = []
    measured = _Measured(history, open_meter(), grid, tariff, checkpoint, model)

    def run(own_network: "nn.Module", own_job: "RetrainingJob") -> "Update":
        """One run; the first retraining of all is the update that was asked for, and leaves its model."""

        def with_files(update: "Update") -> "Update":
            folder = out or UPDATES / update.id
            written.append(folder)
            return save_update(
                update, own_network, folder, history, lineage,
                lambda: profile_with_progress(own_network, own_job.train, chosen, same, "true"),
            )  # fmt: skip

        asked_for = own_job.seed == seed and not own_job.from_scratch
        return measured.run(
            own_network,
            own_job,
            with_files if asked_for else measured.entered,
            features=None if own_job.from_scratch else features,
            forecast_id=said.id if said is not None and asked_for else None,
            revise=ForecastReviser.of_forecast(said, history.updates(), own_job)
            if said is not None and asked_for
            else None,
        )

    if fresh is not None:
        found = compare_with_scratch(network, fresh, job, range(seed, seed + (seeds or 3)), run, other)
        folder = written[0] if written else None
        if as_json:
            console.print_json({**_plain_comparison(found, made), "folder": folder and str(folder)})
            return
        tables.show_comparison(found)
        first = f"in {folder}" if folder else f"kept before, as update {found.retrained[0].id}"
        console.out.print(f"model of the first retraining: {first}; ledger: {ledger}")
        return
    update = run(network, job)
    if as_json:
        console.print_json({**_plain_update(update, made), "folder": str(written[0])})
        return
    tables.show_update(update, software_carbon_intensity(update, made))
    console.out.print(f"model and profile: {written[0]}; ledger: {ledger}")
    if job.parent:
        console.out.print("its head is another: whoever loads these weights needs a model with as many outputs")
    if said is not None:
        tables.show_settled([(said, update)])


@dataclass(frozen=True)
class _Measured:
    """What the runs of one command share."""

    history: "Ledger"
    meter: "EnergyMeter"
    grid: "Grid | None"
    tariff: "Tariff | None"
    checkpoint: "Checkpoint"
    model: str

    def run(
        self, network: "nn.Module", job: "RetrainingJob", keep: "Callable[[Update], Update]", **known: Any
    ) -> "Update":
        """Do it, or go on with it, and keep it; one that has ended already is what it was."""
        from resque.models.weights import fingerprint
        from resque.reporting import console
        from resque.reporting.sentences import progress_text
        from resque.training.retrain import retrain as run

        parent = job.parent or fingerprint(network)
        ended = _ended(self.history, self.checkpoint, parent, job) if self.checkpoint.resume else None
        if ended is not None:
            return ended
        what = f"{'from scratch' if job.from_scratch else 'retraining'}, seed {job.seed}"
        with console.progress(what) as show:
            update = run(
                network,
                job,
                meter=self.meter,
                grid=self.grid,
                model_name=self.model,
                checkpoint=self.checkpoint,
                tariff=self.tariff,
                on_progress=lambda at: show(at.step, at.max_steps, progress_text(at.accuracy, at.revision)),
                **known,
            )
        kept = keep(update)
        self.checkpoint.remove(parent, job)
        return kept

    def entered(self, update: "Update") -> "Update":
        """Kept in the ledger alone."""
        self.history.add(update)
        return update


def _ended(history: "Ledger", checkpoint: "Checkpoint", parent: str, job: "RetrainingJob") -> "Update | None":
    """The update that this very run has become: any that is like it, or the one that an interrupted run ended as."""
    from resque.training.job import is_update_of

    began = checkpoint.started_utc(parent, job)
    like = (update for update in history.updates() if is_update_of(update, parent, job))
    return next((update for update in like if began in (None, update.started_utc)), None)


def _check_resumed(
    history: "Ledger", checkpoint: "Checkpoint", parent: str, job: "RetrainingJob", begins_anew: bool
) -> bool:
    """Whether a run goes on; says so where the user expects something else."""
    from resque.reporting import console

    ended, began = _ended(history, checkpoint, parent, job), checkpoint.started_utc(parent, job)
    if began is not None and ended is not None:
        checkpoint.remove(parent, job)
        began = None
    if checkpoint.resume and began is None and ended is not None and begins_anew:
        raise SettingError(f"this very run has ended, as update {ended.id}: to do it again, leave --resume out")
    if checkpoint.resume and began is None and ended is None:
        console.warn("no checkpoint of this very run: it begins anew")
    if not checkpoint.resume and began is not None:
        console.warn("this very run was interrupted before: --resume would have gone on; it begins anew")
    return checkpoint.resume and (began is not None or ended is not None)


def _check_new(out: Path | None) -> None:
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SettingError(
            f"{out} holds something already: name a new folder with --out, so that no model is overwritten"
        )


def _plain_update(update: "Update", made: "EmbodiedEmissions") -> dict[str, Any]:
    from resque.reporting import console
    from resque.reporting.carbon_intensity import software_carbon_intensity

    carbon = software_carbon_intensity(update, made)
    return {**console.to_json(update), "price": update.price, "sci": carbon and console.to_json(carbon)}


def _plain_comparison(found: "ScratchComparison", made: "EmbodiedEmissions") -> dict[str, Any]:
    from resque.reporting import console

    sides = {"retrained": found.retrained, "scratch": found.scratch}
    plain: dict[str, Any] = {name: [_plain_update(update, made) for update in side] for name, side in sides.items()}
    return {**plain, "ratios": {cost: console.to_json(ratio) for cost, ratio in found.ratios.items()}}

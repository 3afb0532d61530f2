"""What can be known of an update before it is done, and what it takes to know it: the passes and the probe."""

import copy

import torch
from torch import nn

from resque.energy import EnergyMeter, shared
from resque.errors import DataError, ModelError
from resque.indices import resque_dist
from resque.labelled import LabelledData
from resque.layers import PENULTIMATE, head
from resque.measures import EVALUATION_BATCH, evaluate
from resque.profiles import Profile, profile
from resque.readings import EnergyReading, Index
from resque.recalibration import recalibrated
from resque.recipes import Recipe, Retraining
from resque.records import Features, StepCost
from resque.representations import device_of, evaluating, forward, observing
from resque.rivals import neighbour_accuracy, rivals
from resque.trainer import Trainer, clock
from resque.views import NEIGHBOURHOOD, Viewing

WARM_UP_STEPS = 2
_MIN_PROBE_STEPS = 5
_LARGEST_PRODUCTS = 2**30  # bytes


def known_before(
    model: nn.Module,
    job: Retraining,
    original: Profile | None = None,
    labels: str = "true",
) -> tuple[Features, Index | None, float]:
    """What passes over the new data tell, with nothing trained: ``(features, index, seconds)``.

    One pass over the training data gives the index and the scores of its rivals, one over the test data accuracy and
    loss. A model with batch normalisation passes over both once more, recalibrated.

    Args:
        model: The model as it is now; left as it was found.
        job: The update to be judged.
        original: Profile of the data the model was trained on; without it there is no index.
        labels: ``"pseudo"`` lets the model's own predictions stand in for the training labels.

    Raises:
        ProfileMismatchError: The profile belongs to another model, layer or preprocessing.
        UndefinedDirectionError: A class has no samples on one side.
    """
    start, index = clock(model), None
    labelled = labels == "true" and job.train.labelled
    seen = _viewing(model, job.train) if labelled and original is not None else None
    if original is not None:
        origin = original.origin
        shifted = profile(
            model,
            job.train.batches(device=device_of(model)),
            layer=origin.layer,
            reduction=origin.reduction,
            classes=job.train.classes if labels == "true" else None,
            labels=labels,
            preprocessing=job.train.preprocessing if origin.preprocessing else "",  # else it was not said
            beside=seen.update if seen else None,
        )
        index = resque_dist(original, shifted)
    accuracy, loss = evaluate(model, job.test.batches(EVALUATION_BATCH, device_of(model)))
    scores: dict[str, float] = {}
    if seen is not None:
        scores |= {name: score.value for name, score in rivals(seen.view()).items()}
    if labelled:
        scores |= recalibrated_scores(model, job, accuracy, loss, scores.get("neighbours"))
    features = Features(
        None if index is None else index.value,
        accuracy,
        loss,
        None if index is None else index.floor,
        "" if index is None else index.layer,
        "" if index is None else index.reduction,
        "" if index is None else index.labels,
        samples=len(job.train),
        classes=len(job.train.classes),
        parameters=sum(p.numel() for p in model.parameters()),
        scores=scores,
    )
    return features, index, clock(model) - start


def recalibrated_scores(
    model: nn.Module, job: Retraining, accuracy: float, loss: float, near: float | None = None
) -> dict[str, float]:
    """What the model would tell if its batch normalisation followed the new data; the same again where it has none.

    Args:
        model: As it is now.
        job: The update to be judged.
        accuracy: On the test data as the model is.
        loss: There.
        near: Accuracy of the training data's neighbours as the model is, where it is known.
    """
    other = recalibrated(model, job.train.batches(device=device_of(model)))
    if other is not model:
        accuracy, loss = evaluate(other, job.test.batches(EVALUATION_BATCH, device_of(other)))
    if other is not model or near is None:
        near = neighbours(other, job.train.limited(NEIGHBOURHOOD))
    found = {"recalibrated accuracy": accuracy, "recalibrated loss": loss}
    return found if near is None else found | {"recalibrated neighbours": near}


def neighbours(model: nn.Module, data: LabelledData) -> float | None:
    """Accuracy of each sample's nearest neighbours among the others, by the inputs of the head.

    None where the model has no head that could be found, or one that sees more than a row a sample.
    """
    if _width(model, data) is None:
        return None
    with observing(model, PENULTIMATE, "flatten") as observe:
        rows = torch.cat([observe(inputs)[0].double().cpu() for inputs, _ in data.batches(device=device_of(model))])
    return neighbour_accuracy(rows.numpy(), data.labels.cpu().numpy())


def _viewing(model: nn.Module, data: LabelledData) -> Viewing | None:
    """What gathers the rivals' view beside the index; None without a dense head, or where products would not fit."""
    width = _width(model, data)
    if width is None or 8 * len(data.classes) * width**2 > _LARGEST_PRODUCTS:
        return None
    return Viewing(data.classes, len(data))


def _width(model: nn.Module, data: LabelledData) -> int | None:
    """Of the row that a dense head sees of each sample; None without such a head, or where it sees a row a token."""
    try:
        width = getattr(head(model), "in_features", None)
    except ModelError:
        return None
    inputs, _ = next(data.batches(2, device_of(model)))
    with observing(model, PENULTIMATE, "flatten") as observe:
        rows = observe(inputs)[0]
    return width if width is not None and rows.shape[1] == width else None


def price_of_asking(passes_s: float, step_cost: StepCost, forecasts: int = 1) -> EnergyReading:
    """What one forecast took: its passes, at the probe's power, and its share of the probe.

    Args:
        passes_s: Seconds of the forward passes; as a rule too short for a meter's own window.
        step_cost: The probe.
        forecasts: How many forecasts share the probe.
    """
    probed = step_cost.reading
    wall_s = passes_s + probed.wall_s / forecasts
    energy_kwh = shared(probed, wall_s)
    parts = {device: kwh * wall_s / probed.wall_s for device, kwh in probed.components_kwh.items()}
    note = f"passes {passes_s:.2f} s at the probe's power, and 1/{forecasts} of the probe"
    return EnergyReading(wall_s, energy_kwh, parts, probed.methods, probed.meter, note)


def probe(model: nn.Module, data: LabelledData, recipe: Recipe, meter: EnergyMeter) -> StepCost:
    """What one training step costs on this machine: a few real steps on a copy; the model stays untouched."""
    trainer = Trainer(copy.deepcopy(model), data, recipe, seed=0)
    with torch.random.fork_rng():
        length_s = 1.2 * meter.shortest_s
        with meter.window() as window:
            block = trainer.steps_per_block
            _take(trainer, -(-WARM_UP_STEPS // block) * block)  # they pay for imports, allocation and thread start
            steps, start = 0, clock(model)
            while clock(model) - start < length_s or steps < _MIN_PROBE_STEPS:
                _take(trainer, block)
                steps += block
            wall_s = clock(model) - start
    energy_kwh = shared(window.reading, wall_s)
    per_step = None if energy_kwh is None else energy_kwh / steps
    return StepCost(wall_s / steps, per_step, steps, window.reading)


def _take(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step()


def check_fits(model: nn.Module, data: LabelledData) -> None:
    """Refuse data that this classifier cannot learn from.

    Raises:
        DataError: Fewer samples than classes, or a label that is no output of the model.
        ModelError: The model does not take these images.
    """
    with evaluating(model):
        inputs, _ = next(data.batches(2, device_of(model)))
        classes = forward(model, inputs).shape[1]
    if len(data) < classes:
        raise DataError(f"{data.name}: {len(data)} samples for {classes} classes; expected at least one a class")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{data.name}: labels run from {low} to {high}, the model has {classes} outputs; "
            f"expected labels 0 to {classes - 1}, or a model with more outputs (--classes)"
        )

"""Pilot of an update: its first steps, on a copy of the model, in a state that the update continues."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from resque.energy.meters import unfailing_window
from resque.energy.reading import join_readings
from resque.ledger.records import Pilot
from resque.models.inference import device_of
from resque.models.randomness import isolated_random_state
from resque.training.checkpoint import run_identity
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.reestimation import open_trainer
from resque.training.run import Run, RunSettings, measure

__all__ = ["pilot_evaluations", "run_pilot"]

_SHORT = 50  # steps; up to there ten evaluations tell no more than four: studies/pilot_evaluations.py
_PERCENT_SHORT, _PERCENT = (10, 30, 60, 100), (5, 10, 20, 30, 40, 50, 60, 70, 85, 100)


def run_pilot(
    model: nn.Module,
    job: RetrainingJob,
    steps: int,
    parent: str,
    settings: RunSettings,
    begun: Mapping[str, Any] | None = None,
) -> tuple[Pilot, dict[str, Any]]:
    """Train a copy of the model for the first steps of an update, or to its end if that comes first.

    With ``original_test`` in the job, the accuracy on it is measured after the last step.

    Args:
        model: Model to be updated; unchanged.
        job: Job of the update.
        steps: Number of steps.
        parent: Fingerprint of the model, or of the model before it got its head.
        settings: Meter, probed cost of a step, and callback after each evaluation.
        begun: State of a shorter pilot of the same update, which goes on; None begins at step 0.

    Returns:
        The pilot, and the state from which :func:`resque.training.retrain.retrain` continues it: as a checkpoint, it is
        the file named by :attr:`resque.training.checkpoint.Checkpoint.pilot`.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.energy.meters import ClockMeter
        >>> from resque.models.networks import small_cnn
        >>> digits = load_data("digits@16px")
        >>> job = RetrainingJob(digits.part("train"), digits.part("test"), target_accuracy=0.999)
        >>> pilot, state = run_pilot(small_cnn(), job, steps=5, parent="", settings=RunSettings(ClockMeter()))
        >>> pilot.steps, pilot.curve.steps, pilot.stopped_by
        (5, (0, 1, 2, 3, 5), None)
    """
    learner = copy.deepcopy(model)
    with isolated_random_state(device_of(learner), job.seed):
        trainer = open_trainer(learner, job.trained_on, job.recipe, job.seed, len(job.train))
        run = Run(learner, trainer, job, settings)
        if begun is not None:
            run.restore(begun, is_pilot=True)
        measure(run, settings.meter, also_at=pilot_evaluations(steps))
        state, kept = run.state(), None
        if job.original_test is not None:
            with unfailing_window(settings.meter, run.device, []) as window:
                kept, _ = evaluate_dataset(learner, job.original_test)
            run.readings.append(window.reading)
    pilot = Pilot(
        steps=trainer.step_count,
        seed=job.seed,
        identity=run_identity(parent, job),
        curve=run.curve,
        reading=join_readings(run.readings),
        evaluation_s=run.evaluation_s,
        stopped_by=run.stopped_by,
        original_accuracy=kept,
        trainable_share=trainer.trainable_share,
    )
    return pilot, state


def pilot_evaluations(steps: int) -> list[int]:
    """Return the steps at which a pilot is evaluated, beside the evaluations of its recipe.

    Example:
        >>> pilot_evaluations(100), pilot_evaluations(50), pilot_evaluations(3)
        ([5, 10, 20, 30, 40, 50, 60, 70, 85, 100], [5, 15, 30, 50], [1, 2, 3])
    """
    return sorted({-(-steps * percent // 100) for percent in (_PERCENT_SHORT if steps <= _SHORT else _PERCENT)})

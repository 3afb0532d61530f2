"""Calibration runs of a tiny network on the digits, for several test files."""

import dataclasses

from torch import nn

from doubles import ReplayMeter
from resque.ledger.store import Ledger
from resque.workflows.calibration_plan import CalibrationPlan
from resque.workflows.calibration_runs import CalibrationRunner, CalibrationRuns

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
"""
TARGET = 0.84


def run(model: nn.Module, plan: CalibrationPlan, ledger: Ledger, meter=None, **settings) -> CalibrationRuns:
    """Do the runs of a plan as far as the ledger does not hold them."""
    plan = dataclasses.replace(plan, done=plan.request.done(ledger.updates(), plan.parent))
    return CalibrationRunner(model, plan, ledger, meter or ReplayMeter(), **settings).run()


def shifts_of(updates) -> list[str]:
    return [update.train_data.rpartition("+")[2] for update in updates]


def interrupt(run: int, step: int):
    """Press Ctrl-C in this run, at its first evaluation from this step on."""

    def on_progress(done: int, total: int, detail: str) -> None:
        if done == run and ", step " in detail and int(detail.split(", ")[1].removeprefix("step ")) >= step:
            raise KeyboardInterrupt

    return on_progress

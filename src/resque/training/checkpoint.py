"""Where an interrupted run stands: one file, written whole or not at all, read without executing pickled code."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resque._files import write_atomically
from resque.errors import DataError
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict

_FORMAT = "resque checkpoint 2"
EVERY_S = 30.0


@dataclass(frozen=True)
class Checkpoint:
    """The file that a run leaves behind until it is known to be kept: :meth:`remove` it then.

    Attributes:
        folder: Where such files lie.
        every_s: Seconds of the run between two of them; they are written at ends of epochs.
        resume: Go on from the file if it is there.
    """

    folder: Path
    every_s: float = EVERY_S
    resume: bool = False

    def path(self, parent: str, job: RetrainingJob) -> Path:
        """The file of this very run: the same model, data, recipe, seed and target have the same one."""
        what = [parent, job.train.name, job.test.name, job.digest, recipe_to_dict(job.recipe), job.seed]
        what += [job.target_accuracy, job.shift_type, job.original_test.name if job.original_test else None]
        return self.folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}.checkpoint"

    def started_utc(self, parent: str, job: RetrainingJob) -> str | None:
        """When the run began of which the file tells; None without a file, empty for one that cannot be read."""
        path = self.path(parent, job)
        if not path.is_file():
            return None
        try:
            return str(load_checkpoint(path)["started_utc"])
        except DataError:
            if self.resume:
                raise
            return ""

    def remove(self, parent: str, job: RetrainingJob) -> None:
        """The run has been kept: nothing is left to go on with."""
        self.path(parent, job).unlink(missing_ok=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write it, in place of the one before."""
    with write_atomically(path) as scratch:
        torch.save({"format": _FORMAT, **state}, scratch)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        DataError: It is no such file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises many kinds on a file that is none
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is no checkpoint that can be read ({reason}); begin anew without --resume") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise DataError(f"{path} holds no checkpoint; begin anew without --resume")
    return state

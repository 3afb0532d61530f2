"""Checkpoints of interrupted runs: one file per run, written atomically and read without pickled code."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resque._files import hold_lock, write_atomically
from resque._processes import current_processes
from resque.errors import DataError
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict

__all__ = ["Checkpoint", "load_checkpoint", "run_identity", "save_checkpoint"]

_FORMAT = "resque checkpoint 2"
_ADVICE = "delete it, or start again without --resume; what it holds is then done again"


@dataclass(frozen=True)
class Checkpoint:
    """Settings of checkpoints: where they are written, how often, and whether to resume from them.

    A run keeps its file after its end, until :meth:`remove` is called: its update may not be stored yet.

    Attributes:
        folder: Folder of the checkpoint files.
        every_s: Least number of seconds between two checkpoints, which are written at the end of an epoch.
        resume: Whether to resume from an existing file.
        held: Whether the caller holds the run's file, see :meth:`hold`.
        pilot: File of the pilot that a run continues if it does not resume from its own file; None begins at step 0.

    Example:
        >>> Checkpoint(Path("updates/checkpoints"), resume=True).every_s
        30.0
    """

    folder: Path
    every_s: float = 30.0
    resume: bool = False
    held: bool = False
    pilot: Path | None = None

    def path(self, parent: str, job: RetrainingJob) -> Path:
        """Return the file of a run; runs differ in model, data, shift type, recipe, seed or target.

        Args:
            parent: Fingerprint of the model before the run.
            job: Job of the run.
        """
        identity = [parent, job.train.name, job.test.name, job.digest, _settings(job), job.seed]
        identity += [job.target_accuracy, job.shift_type, job.original_test.name if job.original_test else None]
        return self.folder / f"{_hash(identity)}.checkpoint"

    @contextmanager
    def hold(self, parent: str, job: RetrainingJob) -> Iterator["Checkpoint"]:
        """Keep an equal run from using the same file for the block; yield the settings of the run that holds it.

        Under torchrun the first process holds it for all.

        Raises:
            DataError: An equal run is going on, or the lock beside the file cannot be created.
        """
        if self.held or current_processes().rank:
            yield self
            return
        path = self.path(parent, job).with_suffix(".lock")
        busy = f"an equal run is going on ({path}): wait for its end, or name another --seed"
        with hold_lock(path, busy):
            yield dataclasses.replace(self, held=True)

    def started_utc(self, parent: str, job: RetrainingJob) -> str | None:
        """Return when the run of the file began; None without a file.

        A file that cannot be read gives an empty text, and is an error only if the run is to be resumed from it.

        Raises:
            DataError: The file cannot be read, and ``resume`` is set.
        """
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
        """Delete the file of a run whose update has been stored."""
        self.path(parent, job).unlink(missing_ok=True)


def run_identity(parent: str, job: RetrainingJob) -> str:
    """Return the hash of what decides the weights and the end of a run.

    It holds what tells the files of two runs apart, but for the data that measure forgetting.

    Args:
        parent: Fingerprint of the model before the run.
        job: Job of the run.
    """
    identity = [parent, job.train.name, job.test.name, job.digest, _settings(job), job.seed]
    return _hash([*identity, job.target_accuracy, job.effective_shift_type])


def _settings(job: RetrainingJob) -> dict[str, Any]:
    """Return the settings of a recipe; runs without replay keep the files of versions that had none."""
    return {name: value for name, value in recipe_to_dict(job.recipe).items() if name != "replay" or value}


def _hash(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, in place of the previous one.

    Args:
        path: File to write.
        state: Tensors and plain values.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder) / "a.checkpoint", {"step": 10})
        ...     load_checkpoint(Path(folder) / "a.checkpoint")["step"]
        10
    """
    with write_atomically(path) as scratch:
        try:
            torch.save({"format": _FORMAT, **state}, scratch)
        except RuntimeError as error:  # PyTorch's word for a full disk
            raise OSError(f"the checkpoint could not be written: {error!s:.80}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state that :func:`save_checkpoint` wrote.

    Raises:
        DataError: The file is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of error on other files
        raise DataError(f"{path} cannot be read as a checkpoint ({type(error).__name__}): {_ADVICE}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise DataError(f"{path} is not a checkpoint of this version: {_ADVICE}")
    return state

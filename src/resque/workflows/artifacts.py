"""Artifacts of an update: the new model, its profile, its place in the model lineage, and its ledger entry.

The folder of an update holds ``model.safetensors``, ``profile.safetensors`` (profile of the new model on its training
data, the original side of the next update) and ``origin.safetensors`` (profile of the root model of the lineage).
"""

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from resque.errors import DataError, LedgerError, ResqueWarning, SettingError
from resque.indices.distribution import mean_angle
from resque.indices.profile import Profile
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.models.weights import save_weights
from resque.workflows.keeping import keep_update

__all__ = [
    "DIVERGED",
    "MODEL",
    "ORIGIN",
    "PROFILE",
    "Lineage",
    "check_new_folder",
    "create_folder",
    "no_empty_folder",
    "save_update",
]

MODEL, PROFILE, ORIGIN = "model.safetensors", "profile.safetensors", "origin.safetensors"
DIVERGED = "diverged"
"""Value of :attr:`resque.Update.stopped_by` for a run whose model gets no profile."""


@dataclass(frozen=True)
class Lineage:
    """Lineage of a model: the profiles of the model before an update and of the root model.

    Attributes:
        parent: Profile of the model before the update, on its training data; None if there is none.
        origin: Profile of the root model of the lineage; None if there is none.

    Example:
        >>> profile = Profile.from_arrays([[1.0, 0.0], [0.0, 1.0]], [0, 1])
        >>> Lineage.of(profile).origin is profile
        True
    """

    parent: Profile | None = None
    origin: Profile | None = None

    @classmethod
    def of(cls, parent: Profile | None, file: Path | None = None) -> "Lineage":
        """Return the lineage of a model with this profile.

        Args:
            parent: Profile of the model.
            file: File of the profile; an ``origin.safetensors`` beside it is the profile of the root model.
        """
        origin = None if file is None else file.with_name(ORIGIN)
        return cls(parent, Profile.load(origin) if origin is not None and origin.is_file() else parent)

    def add_angles(self, update: Update, profile: Profile) -> Update:
        """Return the update with the angles between its model's profile and those of the lineage."""
        return dataclasses.replace(
            update,
            angle_to_parent_rad=None if self.parent is None else mean_angle(self.parent, profile),
            angle_to_root_rad=None if self.origin is None else mean_angle(self.origin, profile),
        )


def save_update(
    update: Update,
    model: nn.Module,
    folder: Path,
    ledger: Ledger | None,
    lineage: Lineage,
    make_profile: Callable[[], Profile],
    class_names: Sequence[str] = (),
) -> Update:
    """Write the updated model and its profiles, then the ledger entry.

    The entry is written last, so that an interruption leaves no entry without its files; the checkpoint of the run is
    still there to resume from. After an error with the files the entry is written all the same, because the cost has
    been paid; to resume the run then writes the files. A model that diverged gets no profile.

    Args:
        update: Measured update.
        model: Model after the update.
        folder: Folder of the files.
        ledger: Ledger of the entry; None if it holds the entry, and the files could not be written before.
        lineage: Lineage of the model before the update.
        make_profile: Function that makes the profile of the updated model.
        class_names: Names of the model's classes, in the order of its outputs.

    Returns:
        The entry.
    """
    try:
        save_weights(model, folder / MODEL, class_names)
        if update.stopped_by == DIVERGED:
            warnings.warn("the run diverged: the updated model has no profile", ResqueWarning, stacklevel=2)
        else:
            profile = make_profile()
            profile.save(folder / PROFILE)
            if lineage.origin is not None:
                lineage.origin.save(folder / ORIGIN)
            update = lineage.add_angles(update, profile)
    except Exception as error:
        outcome = "" if (folder / MODEL).is_file() else _keep_elsewhere(model, update, class_names)
        try:
            if ledger is not None:
                keep_update(ledger, update)
        except LedgerError as unwritten:
            outcome += f"; {unwritten}"
        if outcome:
            raise DataError(f"{error}{outcome}") from error
        raise
    if ledger is not None:
        keep_update(ledger, update)
    return update


def _keep_elsewhere(model: nn.Module, update: Update, class_names: Sequence[str]) -> str:
    """Write a model whose folder took it not to the current folder, or to the temporary one; tell what came of it."""
    for folder in ("", tempfile.gettempdir()):
        with contextlib.suppress(DataError, OSError):  # the current folder may be gone
            path = Path(folder).absolute() / f"model-{update.id}.safetensors"
            save_weights(model, path, class_names)
            return f"; the updated model is kept in {path}"
    return (
        f"; no model was kept, because no other folder takes it, and update {update.id} has the costs alone: free "
        "space, and add --resume to write the model from its checkpoint, if there is one"
    )


def create_folder(folder: Path) -> None:
    """Create a folder before anything costly is done, so that results have a place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make folder {str(folder)!r}: {error.strerror}; name another with --out") from error


@contextlib.contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Remove a folder for results if the block makes it, and fails before it has any."""
    was_there = folder.exists()
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):  # it is not there, or holds something
                folder.rmdir()
        raise


def check_new_folder(out: str | Path | None) -> None:
    """Raise SettingError if a folder holds something already, so that no model is overwritten."""
    folder = None if out is None else Path(out)
    if folder is not None and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SettingError(
            f"{out} holds something already: name a new folder with --out, so that no model is overwritten"
        )

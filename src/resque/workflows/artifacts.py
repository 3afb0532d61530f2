"""What becomes of an update: the new model, its profile, its place in a line of models, its ledger entry.

A folder of an update holds ``model.safetensors``, ``profile.safetensors`` (the new model's pass over its training data,
to be the original side of the next update) and ``origin.safetensors`` (the profile of the first model of the line).
"""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from resque.errors import ResqueWarning
from resque.indices.distribution import mean_angle
from resque.indices.profile import Profile
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.models.weights import save_weights

MODEL, PROFILE, ORIGIN = "model.safetensors", "profile.safetensors", "origin.safetensors"


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from.

    Attributes:
        parent: Profile of the model before the update, on the data it had learned; None where there is none.
        origin: The same of the first model of the line.

    Example:
        >>> profile = Profile.from_arrays([[1.0, 0.0], [0.0, 1.0]], [0, 1])
        >>> Lineage.of(profile).origin is profile
        True
    """

    parent: Profile | None = None
    origin: Profile | None = None

    @classmethod
    def of(cls, parent: Profile | None, file: Path | None = None) -> "Lineage":
        """The line of a model with this profile; an ``origin.safetensors`` beside its file begins it."""
        first = None if file is None else file.with_name(ORIGIN)
        return cls(parent, Profile.load(first) if first is not None and first.is_file() else parent)

    def continued(self, update: Update, profile: Profile) -> Update:
        """The update with how far its model's profile lies from those before it."""
        return dataclasses.replace(
            update,
            angle_to_parent_rad=None if self.parent is None else mean_angle(self.parent, profile),
            angle_to_root_rad=None if self.origin is None else mean_angle(self.origin, profile),
        )


def save_update(
    update: Update, model: nn.Module, folder: Path, ledger: Ledger, lineage: Lineage, pass_over: Callable[[], Profile]
) -> Update:
    """Write the updated model and its profiles, then the ledger entry.

    The entry comes last, so that an interruption leaves none without its files; the run's checkpoint is there to go on
    from. An error with the files does not keep the entry away, because the cost has been paid. A model that diverged
    has no profile.

    Args:
        update: What was measured.
        model: After it.
        folder: Gets the files.
        ledger: Gets the entry.
        lineage: Of the model before it.
        pass_over: Makes the new profile.

    Returns:
        The entry.
    """
    try:
        save_weights(model, folder / MODEL)
        if update.stopped_by == "diverged":
            warnings.warn("the run diverged: the updated model has no profile", ResqueWarning, stacklevel=2)
        else:
            profile = pass_over()
            profile.save(folder / PROFILE)
            if lineage.origin is not None:
                lineage.origin.save(folder / ORIGIN)
            update = lineage.continued(update, profile)
    except Exception:
        ledger.add(update)
        raise
    ledger.add(update)
    return update

"""Continue an interrupted run, and recognize one that has ended."""

import warnings
from dataclasses import dataclass

from resque.errors import ResqueWarning, SettingError
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob, is_update_of

__all__ = ["RunIdentity"]


@dataclass(frozen=True, eq=False)
class RunIdentity:
    """A run, identified by its model and job; it may have been interrupted, or have ended.

    Attributes:
        history: Ledger of finished updates.
        checkpoint: Where interrupted runs are kept.
        parent: Fingerprint of the model before the run.
        job: The job.
    """

    history: Ledger
    checkpoint: Checkpoint
    parent: str
    job: RetrainingJob

    def ended(self) -> Update | None:
        """Return the update that this run has become; None where it has not ended."""
        began = self.checkpoint.started_utc(self.parent, self.job)
        same = (
            update for update in self.history.updates(parent=self.parent) if is_update_of(update, self.parent, self.job)
        )
        return next((update for update in same if began in (None, update.started_utc)), None)

    def check_resumed(self, begins_anew: bool, start: str = "the beginning") -> bool:
        """Return whether the run continues; warn where a user would expect something else.

        Args:
            begins_anew: Whether a run that has ended is refused with ``resume``; else it is used as it is.
            start: Where a run starts that does not continue.

        Raises:
            DataError: An equal run is going on.
            SettingError: The run has ended, and begins anew.
        """
        if self.checkpoint.folder.is_dir():
            with self.checkpoint.hold(self.parent, self.job):
                pass
        ended, began = self.ended(), self.checkpoint.started_utc(self.parent, self.job)
        resume = self.checkpoint.resume
        if began is not None and ended is not None and not resume:
            self.checkpoint.remove(self.parent, self.job)
            began = None
        if resume and began is None and ended is not None and begins_anew:
            raise SettingError(f"this run has ended, as update {ended.id}: to repeat it, leave --resume out")
        if resume and began is None and ended is None:
            _warn(f"no checkpoint of this run: it starts from {start}")
        if not resume and began is not None:
            _warn(f"this run was interrupted before: --resume would continue it; it starts from {start}")
        return resume and (began is not None or ended is not None)


def _warn(message: str) -> None:
    warnings.warn(message, ResqueWarning, stacklevel=3)

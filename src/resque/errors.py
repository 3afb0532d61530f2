"""Every way this package says no.

::

    ResqueError
    ├── DataError                 a data set that cannot be read or used        (ValueError)
    ├── ModelError                a model, layer or weights file that does not fit (ValueError)
    ├── RepresentationError       labels or representations without a meaning   (ValueError)
    ├── ProfileMismatchError      two profiles that cannot be compared          (ValueError)
    ├── UndefinedDirectionError   a class without a direction on one side       (ValueError)
    ├── SettingError              a setting outside its range                   (ValueError)
    ├── MeterError                a meter, region or intensity that is unknown  (RuntimeError)
    ├── LedgerError               a ledger that cannot be read or written       (RuntimeError)
    └── TooFewUpdatesError        too little history to forecast from           (RuntimeError)

A message is one line: what was expected, what came, what to do. ``ResqueWarning`` is what goes on all the same.
"""


class ResqueError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns."""

    exit_code = 1


class DataError(ResqueError, ValueError):
    """A data set cannot be read, or cannot be used for classification."""


class ModelError(ResqueError, ValueError):
    """A model specification, layer name or weights file does not fit."""


class RepresentationError(ResqueError, ValueError):
    """Representations or labels have no meaning here: NaN, infinity, wrong shape or type."""


class ProfileMismatchError(ResqueError, ValueError):
    """Two profiles come from different models, layers, reductions, preprocessings or widths."""


class UndefinedDirectionError(ResqueError, ValueError):
    """A class has no samples, or a zero sum, on one side."""


class SettingError(ResqueError, ValueError):
    """A setting is outside the range in which it means something."""


class MeterError(ResqueError, RuntimeError):
    """The meter, the country or the carbon intensity is unknown or cannot be used."""


class LedgerError(ResqueError, RuntimeError):
    """The ledger file cannot be read or written, or holds no such entry."""


class TooFewUpdatesError(ResqueError, RuntimeError):
    """The ledger holds too few usable updates for an interval that means something."""

    exit_code = 4


class ResqueWarning(UserWarning):
    """Nothing is refused, but whoever reads the result should know."""

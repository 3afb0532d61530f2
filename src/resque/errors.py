"""Exception hierarchy.

::

    ResqueError
    ├── DataError                 (ValueError)    unusable data
    ├── ModelError                (ValueError)    unusable model, layer or weights
    ├── RepresentationError       (ValueError)    invalid representations or labels
    ├── ProfileMismatchError      (ValueError)    profiles that cannot be compared
    ├── UndefinedDirectionError   (ValueError)    class without a mean direction
    ├── SettingError              (ValueError)    setting out of range
    ├── DeviceMemoryError         (RuntimeError)  batch too large for the memory of the device
    ├── MeterError                (RuntimeError)  unusable meter, region or carbon intensity
    ├── LedgerError               (RuntimeError)  unusable ledger or missing entry
    └── TooFewUpdatesError        (RuntimeError)  history too short for a forecast
    ResqueWarning                 (UserWarning)   result that needs care

Every message is one line that tells what was expected, what was found, and what to do.
"""

__all__ = [
    "DataError", "DeviceMemoryError", "LedgerError", "MeterError", "ModelError", "ProfileMismatchError",
    "RepresentationError", "ResqueError", "ResqueWarning", "SettingError", "TooFewUpdatesError",
    "UndefinedDirectionError",
]  # fmt: skip


class ResqueError(Exception):
    """Base class of all errors of this package.

    Attributes:
        exit_code: Exit status of the command line for this error.
    """

    exit_code = 1


class DataError(ResqueError, ValueError):
    """Raised if a dataset or file cannot be read, written, or used for classification."""


class ModelError(ResqueError, ValueError):
    """Raised if a model, layer or weights file is unknown, does not fit, or needs a missing library."""


class RepresentationError(ResqueError, ValueError):
    """Raised if representations or labels hold NaN or infinity, or have a wrong shape or type."""


class ProfileMismatchError(ResqueError, ValueError):
    """Raised if two profiles differ in model, layer, reduction, preprocessing or width."""


class UndefinedDirectionError(ResqueError, ValueError):
    """Raised if a class has no samples, or representations that sum to zero, in one of two profiles."""


class SettingError(ResqueError, ValueError):
    """Raised if a setting is outside its valid range."""


class DeviceMemoryError(ResqueError, RuntimeError):
    """Raised if a batch takes more memory than the device has."""

    @classmethod
    def for_batch(cls, n: int) -> "DeviceMemoryError":
        """Create the error for a batch of ``n`` samples."""
        advice = f"pass a smaller one (in a recipe batch_size={n // 2})" if n > 1 else "use a device with more memory"
        return cls(f"the device has too little memory for a batch of {n:,}: {advice}, or smaller inputs (@32px)")


class MeterError(ResqueError, RuntimeError):
    """Raised if a meter, country or carbon intensity is unknown or cannot be used."""


class LedgerError(ResqueError, RuntimeError):
    """Raised if a ledger cannot be read or written, or has no such entry."""


class TooFewUpdatesError(ResqueError, RuntimeError):
    """Raised if the history holds too few usable updates for a forecast."""

    exit_code = 4


class ResqueWarning(UserWarning):
    """Warning category for results that need care."""

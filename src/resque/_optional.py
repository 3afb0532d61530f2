"""Import libraries of optional extras."""

import importlib
from types import ModuleType

from resque.errors import ModelError

__all__ = ["import_optional"]


def import_optional(name: str, extra: str) -> ModuleType:
    """Import a library that an optional extra installs.

    Args:
        name: Module to import, e.g. ``"timm.models"``.
        extra: Name of the extra, for the error message.

    Raises:
        ModelError: If the library is not installed.

    Example:
        >>> import_optional("json", "models").dumps([])
        '[]'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ModelError(f"{package} is not installed: pip install 'resque[{extra}]'") from error

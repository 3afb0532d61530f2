"""Import libraries of optional extras when they are needed."""

import importlib
from types import ModuleType

from resque.errors import ModelError


def import_optional(name: str, extra: str) -> ModuleType:
    """A library of an extra, imported when it is needed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ModelError(f"{package} is not installed: pip install 'resque[{extra}]'") from error

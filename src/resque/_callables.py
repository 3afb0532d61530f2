"""Load a callable that a user names: ``FILE.py:CALLABLE`` or ``package.module:CALLABLE``."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from resque.errors import ModelError

FORMER_MODULES = {"resque.networks": "resque.models.networks"}
"""Former name of a module that specifications may name → today's; valid for good."""


def load_callable(spec: str) -> Callable[..., Any]:
    """The callable of ``FILE.py:CALLABLE`` or ``package.module:CALLABLE``."""
    place, _, name = spec.rpartition(":")
    place = FORMER_MODULES.get(place, place)
    if not place or not name:
        raise ModelError(
            f"cannot find {spec!r}: expected FILE.py:CALLABLE or package.module:CALLABLE; "
            "a model may also be timm:NAME, torchvision:NAME or hf:PATH_OR_ID"
        )
    if place.endswith(".py"):
        module = _module_from_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except Exception as error:
            raise ModelError(f"cannot import {place!r} ({error}); for a file write {place}.py:{name}") from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None or not callable(found):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"no callable {name!r} in {place}; it offers: {', '.join(sorted(offered)) or 'none'}")
    return found


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"no such file: {path}; expected a Python file with a callable that returns an nn.Module")
    name = f"resque_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module

"""Load a callable that the user names: ``FILE.py:CALLABLE`` or ``package.module:CALLABLE``."""

import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from resque._format import describe_error
from resque.errors import ModelError

__all__ = ["FORMER_MODULES", "USER_MODULE", "describe_failure", "load_callable"]

FORMER_MODULES = {"resque.networks": "resque.models.networks"}
"""Former name of a module → its name today; specifications in old ledgers stay valid for good."""

USER_MODULE = "resque_user_"
"""Beginning of the names of modules that were imported from a user's file."""


def load_callable(spec: str) -> Callable[..., Any]:
    """Import a file or module and return one of its callables.

    Args:
        spec: ``FILE.py:CALLABLE`` or ``package.module:CALLABLE``.

    Raises:
        ModelError: If the module cannot be imported, or has no such callable.

    Example:
        >>> load_callable("math:sqrt")(9.0)
        3.0
    """
    place, _, name = spec.rpartition(":")
    place = FORMER_MODULES.get(place, place)
    if not place or not name:
        raise ModelError(
            f"cannot find {spec!r}: expected FILE.py:CALLABLE or package.module:CALLABLE; "
            "a model may also be timm:NAME, torchvision:NAME or hf:PATH_OR_ID"
        )
    if place.endswith(".py"):
        module = _import_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a user's own code may raise anything
            raise ModelError(
                f"cannot import {place!r} ({describe_error(error)}); for a file write {place}.py:{name}"
            ) from error
    member: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(member):
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        offered = [key for key in callables if key in getattr(module, "__all__", callables)]
        raise ModelError(f"no callable {name!r} in {place}; it offers: {', '.join(sorted(offered)) or 'none'}")
    return member


def describe_failure(spec: str, function: Callable[..., Any], error: BaseException) -> str:
    """Return why a call without arguments failed, and what to do.

    Args:
        spec: Specification of the callable.
        function: The callable.
        error: What it raised.

    Example:
        >>> describe_failure("math:isqrt", load_callable("math:isqrt"), TypeError("takes exactly one argument"))
        'math:isqrt needs arguments (n): name a function that runs without any'
        >>> describe_failure("net.py:build", lambda: None, ValueError("no such width"))
        'net.py:build failed: ValueError: no such width'
    """
    if isinstance(error, TypeError) and (needed := _needed(function)):
        place = getattr(function, "__module__", "")
        own = [each for each in vars(sys.modules.get(place, sys)).values() if inspect.isfunction(each)]
        own = [each for each in own if each.__module__ == place]
        other = next((f", such as {each.__name__}" for each in own if not _needed(each)), "")
        return f"{spec} needs arguments ({', '.join(needed)}): name a function that runs without any{other}"
    own_lines = [
        f" (line {line} of {os.path.basename(frame.f_code.co_filename)})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == getattr(function, "__module__", None)
    ]
    return f"{spec} failed: {describe_error(error)}{own_lines[-1] if own_lines else ''}"


def _needed(function: Callable[..., Any]) -> list[str]:
    """Return the parameters without which a callable cannot be called."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function in C
        return []
    return [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def _import_file(path: Path) -> ModuleType:
    """Import a Python file under a module name of its own, which depends on its path."""
    if not os.path.isfile(path):  # pathlib raises on names that are too long
        raise ModelError(f"no such file: {path}; expected a Python file with a callable that returns an nn.Module")
    name = f"{USER_MODULE}{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ModelError(f"{path} cannot be imported: {describe_error(error)}") from error
    return module

"""The public Python surface: names, types in signatures, and the main job from objects."""

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
import typing

import pytest

import resque

CLASSES = [name for name in resque.__all__ if inspect.isclass(getattr(resque, name))]
FUNCTIONS = [name for name in resque.__all__ if inspect.isfunction(getattr(resque, name))]


def types_in(hint: typing.Any) -> set[type]:
    """The classes of resque in a type hint, however deep."""
    found = {hint} if inspect.isclass(hint) and hint.__module__.startswith("resque.") else set()
    return found.union(*(types_in(part) for part in typing.get_args(hint)))


def signature_types(function: typing.Any) -> set[type]:
    namespace = {**vars(importlib.import_module(function.__module__)), **vars(types), **vars(typing)}
    namespace |= {name: getattr(resque, name) for name in resque.__all__}
    hints = typing.get_type_hints(function, namespace)
    return set().union(*map(types_in, hints.values()))


def methods_of(cls: type) -> list[typing.Any]:
    members = [value for name, value in vars(cls).items() if not name.startswith("_") or name == "__init__"]
    unwrapped = (getattr(member, "fget", None) or getattr(member, "__func__", member) for member in members)
    return [member for member in unwrapped if inspect.isfunction(member)]


def public_types() -> set[type]:
    shown = {getattr(resque, name) for name in resque.__all__ if inspect.isclass(getattr(resque, name))}
    return shown | {value for value in vars(resque.errors).values() if inspect.isclass(value)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_type_in_a_public_function_is_public(name):
    assert not {found.__qualname__ for found in signature_types(getattr(resque, name)) - public_types()}


@pytest.mark.parametrize("name", CLASSES)
def test_every_type_in_a_public_class_is_public(name):
    cls = getattr(resque, name)
    used = set().union(*(signature_types(method) for method in methods_of(cls)))
    if dataclasses.is_dataclass(cls):
        used |= set().union(*map(types_in, typing.get_type_hints(cls).values()))
    assert not {found.__qualname__ for found in used - public_types()}


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "resque", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"resque {resque.__version__}\n"


def test_every_module_lists_its_public_names():
    missing = []
    for found in pkgutil.walk_packages(resque.__path__, "resque."):
        module = importlib.import_module(found.name)
        if not found.ispkg and not found.name.startswith(("resque.__main__", "resque.cli.")):
            names = getattr(module, "__all__", None)
            if names is None or not all(hasattr(module, name) for name in names):  # ruff keeps them sorted
                missing.append(found.name)
    assert missing == []

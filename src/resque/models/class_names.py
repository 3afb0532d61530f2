"""Names that a classifier gives to its classes."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from resque.errors import ModelError

__all__ = ["class_names_of"]


def class_names_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's classes, in the order of its outputs; none if it has no names.

    They are its attribute ``id2label``, or that of its ``config``, as in transformers: a mapping from numbers to names,
    or a list. Placeholders such as ``LABEL_0`` are no names.

    Raises:
        ModelError: The table does not name each output once, from 0 on.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> class_names_of(model)
        ()
        >>> model.id2label = {0: "cat", 1: "dog"}
        >>> class_names_of(model)
        ('cat', 'dog')
    """
    table: Any = getattr(getattr(model, "config", None), "id2label", None)
    table = getattr(model, "id2label", None) if table is None else table
    if not table:
        return ()
    names = _in_order(table)
    if names is None or not all(isinstance(name, str) for name in names):
        raise ModelError(f"the model's id2label is {str(table)[:80]}; expected {{0: 'NAME', …}} for each output")
    return () if all(name == f"LABEL_{place}" for place, name in enumerate(names)) else tuple(names)


def _in_order(table: Any) -> list[Any] | None:
    """Return the names in the order of their outputs; None if the table is not of that kind."""
    if isinstance(table, list | tuple):
        return list(table)
    try:
        by_number = {int(number): name for number, name in table.items()} if isinstance(table, Mapping) else {}
    except (TypeError, ValueError):
        return None
    complete = (
        isinstance(table, Mapping) and len(by_number) == len(table) and sorted(by_number) == list(range(len(table)))
    )
    return [by_number[number] for number in range(len(table))] if complete else None

"""Names of classes as labels: numbered in sorted order, or as a model numbers them."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from resque.data.dataset import LabeledDataset
from resque.errors import DataError, ResqueWarning

__all__ = ["number_as", "number_words", "warn_of_numbering"]

_SHOWN = 8


def number_words(source: str, labels: Any) -> tuple[Any, tuple[str, ...]]:
    """Return labels that are words as numbers in the sorted order of the words, which follow; others unchanged.

    Args:
        source: Name of the data in error messages.
        labels: Labels of any container.

    Raises:
        DataError: Labels are missing, or are of several types.

    Example:
        >>> number_words("mine", ["dog", "cat", "dog"])
        (array([1, 0, 1]), ('cat', 'dog'))
        >>> number_words("mine", [4, 0])
        ([4, 0], ())
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "OUT":
        return labels, ()
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise DataError(f"{source}: labels have shape {labels.shape}; expected one a sample, {labels.shape[:1]}")
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(values, list | tuple):
        return labels, ()
    if missing := sum(value is None for value in values):
        raise DataError(f"{source}: {missing} of {len(values)} labels are missing; expected one for each sample")
    types = {type(value) for value in values}
    if not any(issubclass(each, str) for each in types):
        return labels, ()
    if len(types) > 1:
        found = ", ".join(sorted(each.__name__ for each in types))
        raise DataError(f"{source}: labels are of several types: {found}; expected integers, or names of classes")
    names = tuple(sorted(set(values)))
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[value] for value in values]), names


def number_as(data: LabeledDataset, names: Sequence[str], extend: bool = False) -> LabeledDataset:
    """Return data with their classes numbered as a model numbers them, by name.

    Args:
        data: Data with names of classes.
        names: Names of the model's classes, in the order of its outputs.
        extend: Whether names that the model lacks are numbered after its own; if not, they are refused.

    Raises:
        DataError: A name that occurs is none of the model's, or several of them.

    Example:
        >>> from resque.data.loading import load_data
        >>> data = dataclasses.replace(load_data("digits@test"), class_names=tuple("abcdefghij"))
        >>> number_as(data, "jihgfedcba").labels[:3].tolist(), data.labels[:3].tolist()
        ([7, 2, 6], [2, 7, 3])
    """
    if data.classes[-1] >= len(data.class_names) or data.classes[0] < 0:
        raise DataError(f"{data.name}: labels run beyond its {len(data.class_names)} names of classes; name them all")
    counts = Counter(names)
    output = {name: number for number, name in enumerate(names) if counts[name] == 1}
    unknown = [name for name in (data.class_names[label] for label in data.classes) if name not in output]
    if unknown and not extend:
        raise DataError(
            f"{data.name}: the model has no class {_shown(unknown)}, or several; its id2label holds {_shown(names)}: "
            "rename the classes of the data, or label them with the model's numbers"
        )
    output |= {name: len(names) + place for place, name in enumerate(unknown)}
    numbers = torch.tensor([output.get(name, -1) for name in data.class_names])
    return dataclasses.replace(
        data, labels=numbers[data.labels], class_names=(*names, *unknown), numbered_by_name=False
    )


def warn_of_numbering(data: LabeledDataset) -> LabeledDataset:
    """Return the data, with a warning that tells how their classes were numbered if they were words.

    Warns:
        ResqueWarning: The classes were numbered in the sorted order of their names.
    """
    if data.numbered_by_name:
        shown = ", ".join(f"{name!r} = {number}" for number, name in enumerate(data.class_names[:_SHOWN]))
        more = ", …" if len(data.class_names) > _SHOWN else ""
        text = f"{data.name}: classes without numbers, numbered in sorted order: {shown}{more}"
        warnings.warn(f"{text}; a model with id2label would number them itself", ResqueWarning, stacklevel=3)
    return data


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")

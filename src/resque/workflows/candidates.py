"""The models that a comparison may start from, as they are named: on the command line, in a file, as objects."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from resque._toml import read_toml, shorten_value
from resque.data.spec import relative_to
from resque.errors import ModelError, ResqueError, SettingError

__all__ = ["Candidate", "all_failed", "as_candidates", "parse_candidate", "read_candidates", "with_license_prices"]

_WEIGHTS = ".safetensors", ".pt", ".pth"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that an update may start from.

    Attributes:
        model: Specification, or the model itself.
        weights: File of its weights; None takes those that it has.
        license: License; None takes that of its model card.
        limitations: Stated limitations; None takes those of its model card.
        license_price: Price of the license, paid once.

    Raises:
        ModelError: The model is neither.
        SettingError: The price is not a number from 0 on.

    Example:
        >>> Candidate("resque.networks:small_cnn", "digits.safetensors").name
        'resque.networks:small_cnn=digits.safetensors'
    """

    model: str | nn.Module
    weights: str | Path | None = None
    license: str | None = None
    limitations: str | None = None
    license_price: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | nn.Module):
            raise ModelError(
                f"the model is a {type(self.model).__name__}; expected an nn.Module, or a specification: 'net.py:build'"
            )
        if not 0.0 <= self.license_price < math.inf:
            raise SettingError(f"license price {self.license_price:g}: expected a number from 0 on")

    @property
    def spec(self) -> str | None:
        """Specification of the model; None for an object that :func:`resque.load_model` did not build."""
        return self.model if isinstance(self.model, str) else getattr(self.model, "resque_spec", None)

    @property
    def loaded_as(self) -> str:
        """Specification, or the class name of an object: its name in the ledger."""
        return self.spec or type(self.model).__name__

    @property
    def name(self) -> str:
        """Specification with the weights, or the class name of an object."""
        return self.loaded_as if self.weights is None else f"{self.loaded_as}={self.weights}"


def parse_candidate(text: str) -> Candidate:
    """Return the candidate that ``NAME`` or ``NAME=WEIGHTS`` names; weights end in .safetensors, .pt or .pth.

    Example:
        >>> parse_candidate("net.py:build=a.pt").weights, parse_candidate("runs=3/net.py:build").weights
        ('a.pt', None)
    """
    spec, separator, weights = text.rpartition("=")
    return Candidate(spec, weights) if separator and weights.endswith(_WEIGHTS) else Candidate(text)


def as_candidates(models: Any, weights: str | Path | None = None) -> list[Candidate]:
    """Return the candidates among which an update may start.

    Args:
        models: Model, specification or candidate, or a sequence of them.
        weights: Weights of a single model.

    Raises:
        SettingError: There is none, one is there twice, or several have weights in common.

    Example:
        >>> [each.name for each in as_candidates(["timm:resnet18", "net.py:build=a.pt"])]
        ['timm:resnet18', 'net.py:build=a.pt']
    """
    if isinstance(models, Sequence) and not isinstance(models, str):
        found = [_as_candidate(each) for each in models]
    else:  # its name may hold an equals sign where the weights are given
        is_plain = isinstance(models, str) and weights is not None
        found = [Candidate(models) if is_plain else _as_candidate(models)]
    if not found:
        raise SettingError("no models: expected one or more")
    if weights is not None and (len(found) > 1 or found[0].weights is not None):
        raise SettingError("weights of one of several models: write NAME=WEIGHTS for each, and leave --weights out")
    names = [each.name for each in found]
    twice = sorted({each.name for each in found if isinstance(each.model, str) and names.count(each.name) > 1})
    if twice:
        raise SettingError(f"{twice[0]} is named twice: name each model once")
    return [dataclasses.replace(each, weights=weights) for each in found] if weights is not None else found


def all_failed(failures: Mapping[str, ResqueError]) -> ResqueError:
    """Return the error of a comparison all of whose models failed: the one that they share, or each with its reason.

    Args:
        failures: Name of each model → its error.

    Example:
        >>> all_failed({"a.py:build": ModelError("no file a.py"), "b.py:build": ModelError("no file b.py")})
        ModelError('none of the models can be used: a.py:build: no file a.py; b.py:build: no file b.py')
    """
    reasons = {str(error) for error in failures.values()}
    if len(reasons) == 1:
        return next(iter(failures.values()))
    told = "; ".join(f"{name}: {error}" for name, error in failures.items())
    return ModelError(f"none of the models can be used: {told}")


def read_candidates(path: Path) -> list[Candidate]:
    """Read candidates from a TOML file: tables ``[[model]]``, with paths relative to the file.

    Raises:
        SettingError: It cannot be read, has another table or key, or a value of another type.
    """
    content = read_toml(path, "file of models")
    tables = content.get("model")
    if set(content) != {"model"} or not isinstance(tables, list) or not tables:
        raise SettingError(f"{path}: expected tables [[model]], each with spec, and weights or license if there are")
    return [_from_table(path, table) for table in tables]


def with_license_prices(candidates: Sequence[Candidate], prices: Sequence[str]) -> list[Candidate]:
    """Return candidates with prices of their licenses, each as ``NAME=PRICE``.

    Raises:
        SettingError: One is not of that form, or no candidate has that name.

    Example:
        >>> with_license_prices([Candidate("timm:resnet18")], ["timm:resnet18=20"])[0].license_price
        20.0
    """
    known = {name: float(price) for name, price in _split_prices(prices)}
    unknown = sorted(set(known) - {each.name for each in candidates} - {each.spec for each in candidates})
    if unknown:
        raise SettingError(f"a license price for {unknown[0]}, which is none of the models: write it as in --model")
    priced = [(each, known.get(each.name, known.get(each.spec or ""))) for each in candidates]
    return [each if price is None else dataclasses.replace(each, license_price=price) for each, price in priced]


def _split_prices(prices: Sequence[str]) -> Iterator[tuple[str, float]]:
    for text in prices:
        name, separator, price = text.rpartition("=")
        try:
            yield name, float(price)
        except ValueError:
            separator = ""
        if not separator:
            raise SettingError(f"license price {text!r:.60}: expected MODEL=PRICE, such as timm:resnet18=20")


def _as_candidate(model: Any) -> Candidate:
    if isinstance(model, Candidate):
        return model
    return parse_candidate(model) if isinstance(model, str) else Candidate(model)


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """A table of the file."""

    spec: str
    weights: str | None = None
    license: str | None = None
    limitations: str | None = None
    license_price: float = 0.0


def _from_table(path: Path, table: Any) -> Candidate:
    try:
        read = msgspec.convert(table, _Table)
    except msgspec.ValidationError as error:
        raise SettingError(f"{path}: [[model]] {shorten_value(table)}: {error}") from error
    folder = path.parent
    weights = None if read.weights is None else str(folder / read.weights)
    return Candidate(relative_to(read.spec, folder), weights, read.license, read.limitations, read.license_price)

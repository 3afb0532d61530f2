"""Read what a model's card says of its license and its limitations."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resque._optional import import_optional
from resque.errors import ResqueError
from resque.models.registry import has_random_weights, split_spec

__all__ = ["ModelCard", "read_model_card"]

_LIMITATIONS = re.compile(r"#+\s.*\b(limitation|bias|out-of-scope)", re.IGNORECASE)
_MOST_CHARACTERS = 300
_MOST_LINES = 2000


@dataclass(frozen=True)
class ModelCard:
    """License and limitations of a model, in the words of its card.

    Attributes:
        license: Name of the license; None if unknown.
        limitations: Begin of the paragraph about limitations; None if unknown.
    """

    license: str | None = None
    limitations: str | None = None


def read_model_card(spec: str) -> ModelCard:
    """Return what is known of a model's license and limitations, from what is here.

    For ``hf:FOLDER`` they are in its ``README.md``, the license else in the first line of ``LICENSE``. A timm name with
    a tag has a license in timm's configuration. Of weights in a file of their own nothing is known.

    Args:
        spec: Specification of the model.

    Example:
        >>> read_model_card("timm:resnet18.a1_in1k").license, read_model_card("timm:resnet18").license
        ('apache-2.0', None)
    """
    library, name = split_spec(spec)
    if library == "hf" and os.path.isdir(name):
        return _read_folder(Path(name))
    if library == "timm" and not has_random_weights(spec):
        return ModelCard(_timm_license(name))
    return ModelCard()


def _timm_license(name: str) -> str | None:
    try:
        config = import_optional("timm", "models").get_pretrained_cfg(name)
    except (ResqueError, RuntimeError):  # an unknown name is an error when it is loaded
        return None
    return getattr(config, "license", None) or None


def _read_folder(folder: Path) -> ModelCard:
    lines = _lines(folder / "README.md")
    stated = next((line.partition(":")[2].strip(" '\"") for line in _front_matter(lines) if _is_license(line)), "")
    text = [line.strip() for name in ("LICENSE", "LICENSE.txt") for line in _lines(folder / name) if line.strip()]
    return ModelCard((stated or "".join(text[:1])[:_MOST_CHARACTERS]) or None, _limitations(lines))


def _is_license(line: str) -> bool:
    return line.startswith("license:")


def _front_matter(lines: list[str]) -> Iterator[str]:
    """Yield the lines between the first two rules of a model card."""
    if lines and lines[0].strip() == "---":
        for line in lines[1:]:
            if line.strip() == "---":
                return
            yield line


def _limitations(lines: list[str]) -> str | None:
    """Return the begin of the first paragraph below a heading about limitations."""
    place = next((place for place, line in enumerate(lines) if _LIMITATIONS.match(line)), None)
    words: list[str] = []
    for line in [] if place is None else lines[place + 1 :]:
        if line.startswith("#") or (words and not line.strip()):
            break
        words += line.split()
    return " ".join(words)[:_MOST_CHARACTERS] or None


def _lines(file: Path) -> list[str]:
    """Return the first lines of a text; none where it cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return [line.rstrip("\n") for line, _ in zip(stream, range(_MOST_LINES), strict=False)]
    except OSError:
        return []

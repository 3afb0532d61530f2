"""What a data specification is made of, as text: nothing is read, so that a list of updates needs no PyTorch."""

import re
from pathlib import Path

_MIXED = re.compile(r" *~ *(?=digits\b|[a-z]+:|[^~]+\.py:)")


def mixture_parts(spec: str) -> list[str]:
    """The specifications of which a mixture is made; of anything else itself alone.

    Example:
        >>> mixture_parts("npz:new.npz@700~npz:old.npz@300"), mixture_parts("npz:~/old~.npz")
        (['npz:new.npz@700', 'npz:old.npz@300'], ['npz:~/old~.npz'])
    """
    return _MIXED.split(spec)


def shorten_data(spec: str) -> str:
    """Return a data specification without the folders of its files.

    Example:
        >>> shorten_data("idx:/data/mnist/t10k-images.gz,/data/mnist/t10k-labels.gz@test+blur:3")
        'idx:t10k-images.gz,t10k-labels.gz@test+blur:3'
        >>> shorten_data("npz:/data/new.npz@700~npz:/data/old.npz")
        'npz:new.npz@700~npz:old.npz'
    """
    if len(parts := mixture_parts(spec)) > 1:
        return "~".join(map(shorten_data, parts))
    kind, colon, rest = spec.partition(":")
    if kind not in ("npz", "idx"):
        return spec
    return kind + colon + ",".join(part.rsplit("/", 1)[-1] for part in rest.split(","))


def relative_to(spec: str, folder: Path) -> str:
    """Return a model or data specification whose files are relative to a folder.

    Args:
        spec: Specification as it stands in a file of that folder.
        folder: Folder that its relative paths start from.

    Example:
        >>> relative_to("npz:new.npz@700~idx:a.gz,b.gz", Path("sub")), relative_to("net.py:build", Path("sub"))
        ('npz:sub/new.npz@700~idx:sub/a.gz,sub/b.gz', 'sub/net.py:build')
        >>> relative_to("timm:resnet18", Path("sub")), relative_to("npz:/data/new.npz", Path("sub"))
        ('timm:resnet18', 'npz:/data/new.npz')
    """
    return "~".join(_placed(part, folder) for part in mixture_parts(spec))


def _placed(spec: str, folder: Path) -> str:
    source, colon, rest = spec.partition(":")
    if source in ("npz", "folder", "parquet", "idx") and colon:
        return source + colon + ",".join(str(folder / file) for file in rest.split(","))
    if source == "hf" and (folder / rest).is_dir():
        return f"hf:{folder / rest}"
    return f"{folder / source}:{rest}" if source.endswith(".py") else spec

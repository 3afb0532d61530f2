"""What a data specification is made of, as text: nothing is read, so that a list of updates needs no PyTorch."""

import re

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

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

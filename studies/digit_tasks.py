"""Four small tasks made of scikit-learn's digits, for the studies' smallest runs."""

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits
from torch.utils.data import Dataset


class Digits(Dataset):  # type: ignore[type-arg]
    """Digits that are kept, under other labels."""

    def __init__(self, kept: Callable[[np.ndarray], np.ndarray], labels: Callable[[np.ndarray], np.ndarray]) -> None:
        found = load_digits()
        rows = kept(found.target)
        self._images = (found.images[rows] * 15.9).astype(np.uint8)
        self._labels = labels(found.target[rows]).astype(int)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self._images[row], int(self._labels[row])


def low() -> Digits:
    """0 to 4."""
    return Digits(lambda digits: digits < 5, lambda digits: digits)


def high() -> Digits:
    """5 to 9, as classes 0 to 4."""
    return Digits(lambda digits: digits >= 5, lambda digits: digits - 5)


def parity() -> Digits:
    """Even or odd."""
    return Digits(lambda digits: digits >= 0, lambda digits: digits % 2)


def thirds() -> Digits:
    """The rest of the division by three."""
    return Digits(lambda digits: digits >= 0, lambda digits: digits % 3)

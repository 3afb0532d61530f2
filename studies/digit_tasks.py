"""Four small tasks made of scikit-learn's digits, for the studies' smallest runs."""

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits
from torch.utils.data import Dataset


class Digits(Dataset):  # type: ignore[type-arg]
    """A selection of the digits, with other labels."""

    def __init__(self, select: Callable[[np.ndarray], np.ndarray], labels: Callable[[np.ndarray], np.ndarray]) -> None:
        digits = load_digits()
        rows = select(digits.target)
        self._images = (digits.images[rows] * 15.9).astype(np.uint8)
        self._labels = labels(digits.target[rows]).astype(int)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self._images[row], int(self._labels[row])


def low() -> Digits:
    """Return the digits 0 to 4."""
    return Digits(lambda digits: digits < 5, lambda digits: digits)


def high() -> Digits:
    """Return the digits 5 to 9 as classes 0 to 4."""
    return Digits(lambda digits: digits >= 5, lambda digits: digits - 5)


def parity() -> Digits:
    """Return all digits as even or odd."""
    return Digits(lambda digits: digits >= 0, lambda digits: digits % 2)


def thirds() -> Digits:
    """Return all digits by their remainder modulo three."""
    return Digits(lambda digits: digits >= 0, lambda digits: digits % 3)

"""Linear algebra on one thread, where more would wait for each other."""

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which linear algebra uses one thread: faster on matrices of a few hundred rows.

    Example:
        >>> import numpy as np
        >>> with one_blas_thread():
        ...     inverse = np.linalg.inv(2.0 * np.eye(3))
        >>> float(inverse[0, 0])
        0.5
    """
    limit: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Return the BLAS libraries of this process, found once: a search takes as long as a fit."""
    return ThreadpoolController()

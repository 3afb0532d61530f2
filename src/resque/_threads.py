"""Numbers of threads: more than there are cores wait for each other."""

import functools
import os
import sys
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

__all__ = ["limit_threads", "one_blas_thread", "threads_per_task"]


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


def threads_per_task() -> int:
    """Return the number of threads of a task beside which others run: ``OMP_NUM_THREADS``, or 1.

    Example:
        >>> threads_per_task() >= 1
        True
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(given)) if given.isdecimal() else 1


def limit_threads(threads: int) -> None:
    """Limit the threads of this process, whether PyTorch is loaded already or will be."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Return the BLAS libraries of this process, found once: a search takes as long as a fit."""
    return ThreadpoolController()

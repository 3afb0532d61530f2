"""The command line; ``resque.cli:main`` is its entry point."""

import time

BEGAN_S: float = time.perf_counter()  # before the imports of the commands, for which the user waits, too

from resque.cli.app import main  # noqa: E402

__all__ = ["BEGAN_S", "main"]

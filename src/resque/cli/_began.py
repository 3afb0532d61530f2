"""The moment before the commands are imported: the user waits for that, too."""

import time

__all__ = ["BEGAN_S"]

BEGAN_S: float = time.perf_counter()

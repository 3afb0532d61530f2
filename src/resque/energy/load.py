"""Load of the machine by other processes, which slows a training down."""

import importlib.util
import os
import time
from dataclasses import dataclass

__all__ = ["ProcessorTimes", "others_busy_share", "processor_times"]


@dataclass(frozen=True)
class ProcessorTimes:
    """Processor times at one moment, in seconds since some start.

    Attributes:
        wall_s: Wall time.
        busy_s: Busy time of all processors.
        own_s: Processor time of this process and its finished children.
        processors: Number of processors.
    """

    wall_s: float
    busy_s: float
    own_s: float
    processors: int


def processor_times() -> ProcessorTimes | None:
    """Read the processor times of this machine; None without psutil, which comes with the extra ``energy``.

    Example:
        >>> times = processor_times()
        >>> times is None or times.processors >= 1
        True
    """
    if importlib.util.find_spec("psutil") is None:
        return None
    import psutil

    used = psutil.cpu_times()
    idle_s = used.idle + getattr(used, "iowait", 0.0)
    counted_twice_s = getattr(used, "guest", 0.0) + getattr(used, "guest_nice", 0.0)  # in user time, too
    return ProcessorTimes(
        time.perf_counter(), sum(used) - idle_s - counted_twice_s, sum(os.times()[:4]), psutil.cpu_count() or 1
    )


def others_busy_share(before: ProcessorTimes | None, after: ProcessorTimes | None) -> float | None:
    """Return the share of the machine's processor time that other processes used between two moments, in [0, 1].

    The kernel counts in hundredths of a second, so a window of a second is known to about one percent.

    Example:
        >>> others_busy_share(ProcessorTimes(0.0, 0.0, 0.0, 4), ProcessorTimes(10.0, 30.0, 20.0, 4))
        0.25
    """
    if before is None or after is None or after.wall_s <= before.wall_s:
        return None
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return min(max(others_s / ((after.wall_s - before.wall_s) * after.processors), 0.0), 1.0)

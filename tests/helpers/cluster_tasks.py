"""Tasks that a worker of a cluster does, in a module that it can import: at once, since nothing here needs PyTorch."""

import os
import signal
import threading
import time
from pathlib import Path

DEADLINE_S = 60.0


def log_process(folder: str, name: str) -> None:
    """Add this process to the file of a task."""
    with open(Path(folder) / name, "a") as file:
        file.write(f"{os.getpid()}\n")


def meet(folder: str, name: str, others: list[str]) -> dict:
    """End once all others have begun: they run at the same time."""
    log_process(folder, name)
    end = time.monotonic() + DEADLINE_S
    while not all((Path(folder) / other).exists() for other in others):
        if time.monotonic() > end:
            raise TimeoutError(f"{name} was alone")
    return {"threads": os.environ["OMP_NUM_THREADS"]}


def work_alone(folder: str, name: str) -> dict:
    """Hold a file that only one process can hold; fail if another one holds it."""
    log_process(folder, name)
    held = Path(folder) / "held"
    held.touch(exist_ok=False)
    sum(range(300_000))
    held.unlink()
    return {"square": len(name) ** 2}


def die(folder: str, name: str, times: int) -> dict:
    """Kill this process in the middle of the task, at the first so many tries."""
    log_process(folder, name)
    if len((Path(folder) / name).read_text().split()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"tries": times + 1}


def fail(text: str) -> dict:
    raise KeyError(text)


def endless(folder: str, name: str) -> dict:
    """Never end; the file or pipe ``begun`` tells when it has begun."""
    log_process(folder, name)
    with open(Path(folder) / "begun", "w") as file:
        file.write("begun")
    threading.Event().wait()
    return {}

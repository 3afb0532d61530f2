"""Commands of resque as real processes that start at once: forks of one process that has loaded the libraries."""

import importlib
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = ("torch", "torch._dynamo", "torch.utils.flop_counter", "pandas", "requests", "scipy.stats")
LIBRARIES += ("matplotlib.figure", "sklearn.datasets", "sklearn.cluster", "jinja2", "safetensors.torch")
LIBRARIES += ("resque.cli", "resque.workflows.update", "resque.workflows.calibrate", "resque.reporting.html")
LIBRARIES += ("resque.ledger.importers.importer", "resque.forecasting.prediction")
LIBRARIES += ("resque.workflows.inputs", "resque.workflows.project", "PIL.PngImagePlugin", "codecarbon")
LONGEST_S = 300
"""Seconds after which a command ends by itself, as a hung one."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        line: Command line, without the name of the program.
        code: Exit code; a negative number is the signal that ended it.
        out: What it printed to stdout.
        err: What it printed to stderr.
        wall_s: Seconds from its start to its end.
        cpu_s: Seconds of processor time, of the process alone.
        peak_mb: Largest resident memory in megabytes.
    """

    line: str
    code: int
    out: str
    err: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Process:
    """A command that runs."""

    line: str
    pid: int
    output: tempfile.TemporaryDirectory[str]
    started: float

    def wait(self, kill_after_s: float | None = None) -> Ended:
        """Wait for the end; kill the process with signal 9 after so many seconds, if it still runs."""
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(self.pid, signal.SIGKILL)  # a process that has ended is still there until it is waited for
        _, status, used = os.wait4(self.pid, 0)
        wall_s = time.monotonic() - self.started
        with self.output as folder:
            files = [Path(folder, name) for name in ("out", "err")]  # killed at once, it has not opened them
            texts = [file.read_text(errors="replace") if file.is_file() else "" for file in files]
        usage = used.ru_utime + used.ru_stime, used.ru_maxrss / 1000.0
        return Ended(self.line, os.waitstatus_to_exitcode(status), *texts, wall_s, *usage)


def load_libraries() -> None:
    """Import what commands need, so that a fork of this process starts at once."""
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)


def start(line: str, folder: Path, prepare: Callable[[], None] = lambda: None) -> Process:
    """Start a command line of resque in a folder.

    Args:
        line: Command line, without the name of the program.
        folder: Folder that it runs in.
        prepare: What the new process does first, such as limiting itself.
    """

    def command() -> None:
        prepare()
        sys.argv = ["resque", *shlex.split(line)]
        importlib.import_module("resque.cli").main()

    return fork(line, folder, command)


def fork(name: str, folder: Path, work: Callable[[], None]) -> Process:
    """Start a function as a process of its own in a folder; its exit code is that of ``sys.exit``, else 0."""
    output: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="resque-torture-")
    started = time.monotonic()
    pid = os.fork()
    if pid:
        return Process(name, pid, output, started)
    code = 70
    try:
        signal.alarm(LONGEST_S)
        for stream, place in enumerate((os.devnull, f"{output.name}/out", f"{output.name}/err")):
            opened = os.open(place, os.O_RDWR | os.O_CREAT)
            os.dup2(opened, stream)
            os.close(opened)
        os.chdir(folder)
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(line: str, folder: Path, prepare: Callable[[], None] = lambda: None) -> Ended:
    """Run a command line of resque to its end."""
    return start(line, folder, prepare).wait()

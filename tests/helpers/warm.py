"""The command ``resque`` for the shells of tests: one process imports the libraries, each call is a fork of it.

Nothing of resque is imported before the fork, so each command imports its modules by itself, as in a terminal; only the
seconds that PyTorch takes to load are spent once. ``python warm.py serve SOCKET`` waits for calls until its standard
input ends; ``python -IS warm.py call SOCKET ARGUMENTS`` is the command.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("torch", "torch._dynamo", "torch.utils.flop_counter", "pandas", "requests", "scipy.stats")
LIBRARIES += ("matplotlib.figure", "sklearn.datasets", "sklearn.cluster", "jinja2", "PIL.Image", "safetensors.torch")
STREAMS = (0, 1, 2)
LONGEST = 100  # characters of a socket's path


def address(folder: Path) -> str:
    return str(folder / "warm")


def possible(folder: Path) -> bool:
    """Forks of a process with libraries in it are safe on Linux alone."""
    return sys.platform == "linux" and len(address(folder)) <= LONGEST


@contextlib.contextmanager
def served(folder: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """The beginning of a command line that stands for ``resque`` while the block lasts."""
    at = address(folder)
    command = [sys.executable, __file__, "serve", at]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
        yield [sys.executable, "-IS", __file__, "call", at]


def serve(at: str) -> None:
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as calls:
        calls.bind(at)
        calls.listen()
        gc.freeze()  # a fork shares what nobody touches
        print("ready", flush=True)  # noqa: T201
        while sys.stdin not in (waiting := select.select([calls, sys.stdin], [], [])[0]):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            if calls in waiting:
                call, _ = calls.accept()
                with call:
                    if os.fork() == 0:
                        watch(call)
    leave(0)


def watch(call: socket.socket) -> None:
    """Fork the command, and tell the caller how it ended."""
    said, streams, *_ = socket.recv_fds(call, 1_000_000, len(STREAMS))
    arguments, folder, environment = json.loads(said)
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        call.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    call.close()
    for stream, given in zip(STREAMS, streams, strict=True):
        os.dup2(given, stream)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0] = ["resque", *arguments], str(Path(sys.executable).parent)
    code = 1
    try:
        importlib.import_module("resque.cli").main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def leave(code: int) -> None:
    """End this process without the seconds in which Python would take the libraries apart again."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ask(at: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as call:
        call.connect(at)
        said = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(call, [said], STREAMS)
        return int(call.recv(100) or 1)


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    sys.exit(serve(place) if what == "serve" else ask(place, rest))

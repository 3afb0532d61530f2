"""Connect to a Ray cluster, or start Ray here, for a while; say in one line what ended it."""

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from resque._format import describe_error
from resque.errors import ResqueError, SettingError

__all__ = ["METER_RESOURCE", "check_address", "connected", "lost_ray", "ray_errors"]

METER_RESOURCE = "resque_meter"
"""Resource of Ray that a measured run holds; a node has one unit for each device that is metered by itself."""
_PATIENCE_S = 5.0
_FRAME_BYTES, _SETTINGS = 9, b"\x04"  # of HTTP/2: length of a frame's head, and its type in the fourth byte
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
_LOST = "Ray ended, or lost the node of this command: the ledger keeps what ended; run the same command again"


@contextmanager
def connected(ray: ModuleType, address: str | None, gpus: int) -> Iterator[None]:
    """Connect to a cluster for the block, or start Ray here and shut it down at the end.

    Args:
        ray: The module.
        address: Address of a cluster; None starts Ray here.
        gpus: Number of GPUs of a task.

    Raises:
        SettingError: There is no cluster at the address, or Ray does not start.
    """
    if address is not None:
        check_address(address)
    with _ended_by_signal() as began:
        try:
            _connect(ray, address, gpus)
            began()
            yield
        finally:
            ray.shutdown()


def check_address(address: str) -> None:
    """Raise SettingError if no Ray answers at an address; Ray itself would wait for minutes.

    Ray's servers speak HTTP/2, which begins with settings from either side. With Ray's own TLS only a connection is
    made.

    Args:
        address: ``HOST:PORT`` of the head of a cluster, or ``"auto"`` for the one that runs on this machine.

    Example:
        >>> check_address("auto")  # no address yet
    """
    if address == "auto":
        return
    found = re.fullmatch(r"\[?([^/\[\]]+)\]?:([0-9]+)", address)
    if found is None:
        raise SettingError(f"--address {address}: expected HOST:PORT, as `ray start --head` names it, or auto")
    advice = "check --address and `ray status` there, or leave --address out for a Ray on this machine"
    try:
        with socket.create_connection((found[1], int(found[2])), timeout=_PATIENCE_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            connection.sendall(_GREETING)
            with connection.makefile("rb") as answer:
                frame = answer.read(_FRAME_BYTES)
    except TimeoutError as error:
        raise SettingError(f"no Ray answers at {address} within {_PATIENCE_S:g} s: {advice}") from error
    except (OSError, ValueError, OverflowError) as error:
        raise SettingError(f"nothing answers at {address} ({describe_error(error)}): {advice}") from error
    if frame[3:4] != _SETTINGS:
        raise SettingError(f"what answers at {address} is not Ray: {advice}")


def lost_ray() -> ResqueError:
    """Return the error of a command whose Ray has ended."""
    return ResqueError(_LOST)


@contextmanager
def ray_errors(ray: ModuleType) -> Iterator[None]:
    """Raise errors of Ray itself, such as a lost node, as one line that says what to do."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise lost_ray() from error


def _connect(ray: ModuleType, address: str | None, gpus: int) -> None:
    """Connect, or start a Ray where one run at a time is metered, or one on each GPU."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    units = 1
    if gpus:
        import torch  # a worker that needs no PyTorch must not wait for it

        units = max(1, torch.cuda.device_count())
    own = {METER_RESOURCE: float(units)}
    where = {"address": address} if address else {"address": "local", "include_dashboard": False, "resources": own}
    try:
        ray.init(**where, log_to_driver=False, configure_logging=False)
    except SystemExit as stop:  # Ray's answer to SIGTERM
        raise KeyboardInterrupt from stop
    except Exception as error:  # Ray raises many types
        what = f"no Ray cluster at {address}" if address else "Ray did not start here"
        raise SettingError(f"{what} ({describe_error(error)}): check the address and `ray status`") from error


@contextmanager
def _ended_by_signal() -> Iterator[Any]:
    """Let SIGTERM end the block as Ctrl-C does, once its function is called; Ray replaces the handler."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield lambda: signal.signal(signal.SIGTERM, signal.default_int_handler)
    finally:
        signal.signal(signal.SIGTERM, before)

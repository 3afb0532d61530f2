"""The way to a Ray and out of it: a wrong address, a signal, a Ray that is lost. Ray itself runs in test_ray_engine."""

import os
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from resque.errors import ResqueError, SettingError
from resque.workflows.engine import ExperimentTask
from resque.workflows.ray_connection import check_address, connected
from resque.workflows.ray_engine import RayEngine

CALIBRATE = "calibrate --model none.py:build --data npz:none.npz --engine ray"


class RayError(Exception):
    """Base class of all errors of Ray."""


def stand_in(**members):
    """A module that looks like Ray's and starts nothing."""
    nothing = {name: lambda *_, **__: None for name in ("init", "shutdown", "cancel")}
    return SimpleNamespace(**nothing | {"exceptions": SimpleNamespace(RayError=RayError)} | members)


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]  # bound, and nobody listens


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "[::ffff:127.0.0.1]:{}"])
def test_address_where_nothing_answers_is_refused_in_one_line(cli, closed_port, form):
    pytest.importorskip("ray")
    address = form.format(closed_port)
    code, out, err = cli(f"{CALIBRATE} --address {address}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"resque: nothing answers at {address} (")
    assert "leave --address out for a Ray on this machine" in err


@contextmanager
def answering(answer):
    """The address of a server that answers the first connection so; None never answers."""

    def serve(server):
        connection, _ = server.accept()
        with connection:
            connection.recv(1)
            if answer is not None:
                connection.sendall(answer)
                return
            connection.recv(1000)  # the greeting
            connection.recv(1)  # until the other side gives up

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


SETTINGS_OF_HTTP_2 = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes([0, 3, 0, 0, 0, 100])


def test_address_where_a_server_of_ray_s_protocol_answers_is_tried():
    with answering(SETTINGS_OF_HTTP_2) as address:
        check_address(address)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\0\0"])
def test_address_where_something_else_answers_is_refused(answer):
    with answering(answer) as address, pytest.raises(SettingError, match=rf"(?s){address} .*check --address"):
        check_address(address)


def test_address_where_nothing_is_ever_said_is_refused(monkeypatch):
    monkeypatch.setattr("resque.workflows.ray_connection._PATIENCE_S", 0.2)
    with answering(None) as address, pytest.raises(SettingError, match=f"no Ray answers at {address} within 0.2 s"):
        check_address(address)


@pytest.mark.parametrize(
    "address", [":6379", "localhost", "localhost:", "host:port", "ray://localhost:10001", "http://localhost:6379"]
)
def test_what_is_no_address_is_refused_in_one_line(cli, address):
    pytest.importorskip("ray")
    code, out, err = cli(f"{CALIBRATE} --address {address}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"resque: --address {address}: expected HOST:PORT")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--max-kwh 1", "resque: a limit in kWh is held by the local engine alone"),
        ("--engine local --address auto", "resque: the local engine has no address"),
    ],
)
def test_what_ray_cannot_do_is_refused_before_it_starts_or_a_model_is_loaded(cli, monkeypatch, options, said):
    monkeypatch.setattr("resque.workflows.ray_engine.connected", lambda *_: pytest.fail("Ray was started"))
    code, out, err = cli(f"{CALIBRATE} {options}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(said)


def test_sigterm_while_ray_starts_is_an_interruption():
    with pytest.raises(KeyboardInterrupt), connected(stand_in(init=lambda **_: sys.exit(15)), None, 0):
        pass


def test_sigterm_afterwards_is_an_interruption_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    replace = lambda **_: signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # noqa: E731
    with pytest.raises(KeyboardInterrupt), connected(stand_in(init=replace), None, 0):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def fail(*_, **__):
    raise RayError("the node died")


@pytest.mark.parametrize(
    "members", [{"cluster_resources": dict}, {"cluster_resources": fail}], ids=["no node is left", "no answer"]
)
def test_ray_that_is_lost_is_one_line_that_tells_to_run_again(monkeypatch, members):
    monkeypatch.setattr("resque.workflows.ray_engine._ray", lambda: stand_in(**members))
    with pytest.raises(ResqueError, match="Ray ended, or lost the node .*: the ledger keeps .* run the same") as stop:
        list(RayEngine().run([ExperimentTask("a", dict)]))
    assert not isinstance(stop.value, SettingError)

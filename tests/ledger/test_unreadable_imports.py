"""What an import cannot read: pipes, devices, folders, and files far larger than what they hold."""

import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from resque._files import read_lines
from resque.errors import DataError
from resque.ledger.importers.conversion import ImportOptions
from resque.ledger.importers.importer import FORMATS, import_updates
from resque.ledger.importers.mlflow import read_runs
from resque.ledger.store import Ledger

DATA = Path(__file__).parents[1] / "data"
MOST_BYTES = 150 * 2**20
HEADS = {"history.jsonl": "", "emissions.csv": "", "head.jsonl": "\n\n", "head.csv": "timestamp,energy_consumed\n"}


@pytest.fixture
def runs(folder):
    shutil.copytree(DATA / "mlruns", folder / "mlruns")
    shutil.copy(DATA / "emissions.csv", folder / "good.csv")
    return folder


def open_files():
    """Names of the files of this test that are open, but those of the ledger."""
    names = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if exists(number)]
    return [name for name in names if name.startswith(str(Path.cwd())) and "resque.db" not in name]


def exists(number):
    return os.path.lexists(f"/proc/self/fd/{number}")


def refused(call, *words):
    """A call is refused in one line, without waiting and with little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            call()
        peak = tracemalloc.get_traced_memory()[1]
        assert not open_files()  # though the error, and so every frame, is held
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def place(folder, kind):
    """Make what is no readable file; return its path."""
    if kind.startswith("/dev"):
        return Path(kind)
    path = folder / f"{kind}.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        os.mkfifo(folder / "target")
        path.symlink_to(folder / "target")
    elif kind == "folder":
        path.mkdir()
    return path


KINDS = ["pipe", "link", "folder", "missing", "/dev/zero", "/dev/random", "/dev/null"]


@pytest.mark.parametrize("form", ["auto", *FORMATS])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_refused(runs, kind, form):
    path = place(runs, kind)
    refused(lambda: import_updates(Ledger(runs / "resque.db"), path, form), str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_energy_that_is_no_regular_file_is_refused(runs, kind):
    path, options = place(runs, kind), {"run": "blur-0"}
    import_updates(Ledger(runs / "resque.db"), runs / "mlruns", "mlflow", ImportOptions(**options))
    options["energy"] = path
    refused(
        lambda: import_updates(Ledger(runs / "other.db"), runs / "mlruns", "mlflow", ImportOptions(**options)),
        str(path),
        "no such file",
    )


def sparse(path, size, head=""):
    with path.open("w") as file:
        file.write(head)
        file.truncate(size)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [10**8, 3 * 10**9, 2 * 10**11])
@pytest.mark.parametrize("form", ["auto", "jsonl", "codecarbon"])
def test_a_sparse_file_is_refused_before_it_takes_memory(folder, name, size, form):
    sparse(folder / name, size, HEADS[name])
    refused(lambda: import_updates(Ledger(folder / "resque.db"), folder / name, form), name)


def files_of_runs():
    """Each kind of file in MLflow's folders, by its path from the folder."""
    (run,) = [meta.parent for meta in (DATA / "mlruns").rglob("meta.yaml") if "name: blur-0" in meta.read_text()][:1]
    inside = run.relative_to(DATA / "mlruns")
    first = {kind: next(f for f in sorted((run / kind).rglob("*")) if f.is_file()) for kind in ("params", "metrics")}
    return [inside / "meta.yaml", inside.parent / "meta.yaml", inside / "tags" / "mlflow.runName",
            *(file.relative_to(DATA / "mlruns") for file in first.values())]  # fmt: skip


@pytest.mark.parametrize("file", files_of_runs(), ids=str)
@pytest.mark.parametrize("head", ["", "\n" * 10])
def test_a_sparse_file_of_mlflow_is_refused(runs, file, head):
    sparse(runs / "mlruns" / file, 3 * 10**9, head)
    refused(lambda: [run.read_metric(name) for run in read_runs(runs / "mlruns") for name in run.metrics], file.name)


@pytest.mark.parametrize("file", [file for file in files_of_runs() if file.name == "meta.yaml"], ids=str)
@pytest.mark.parametrize("form", ["auto", "mlflow"])
def test_a_pipe_among_the_files_of_mlflow_is_refused(runs, file, form):
    (runs / "mlruns" / file).unlink()
    os.mkfifo(runs / "mlruns" / file)
    refused(lambda: import_updates(Ledger(runs / "resque.db"), runs / "mlruns", form), "meta.yaml", "pipe")


def test_lines_are_read_as_open_reads_them(folder):
    text = "é\r\na\n\nlast"
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_lines(folder / "a.txt")) == ["é\n", "a\n", "\n", "last"]
    assert "".join(read_lines(folder / "a.txt", newline="")) == text
    (folder / "a.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        list(read_lines(folder / "a.txt"))

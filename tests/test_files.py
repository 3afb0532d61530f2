import errno
import os
import subprocess
import sys
import threading

import pytest

from resque import _files
from resque._files import hold_lock, write_atomically
from resque.errors import DataError


def test_failed_write_keeps_the_old_file_and_no_temporary_file(folder):
    (folder / "a").write_text("old")
    with pytest.raises(UnicodeEncodeError), write_atomically("a") as temporary:
        temporary.write_bytes(b"half") and temporary.write_text("é", encoding="ascii")
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_symbolic_link_is_followed(folder):
    (folder / "real").write_text("old")
    os.symlink("real", folder / "link")
    with write_atomically("link") as temporary:
        temporary.write_text("new")
    assert (folder / "link").is_symlink()
    assert (folder / "real").read_text() == "new"


@pytest.mark.parametrize("place", ["", ".", "folder", "pipe", "file/inside"])
def test_anything_but_a_regular_file_is_refused(folder, place):
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "file").touch()
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match="cannot write"), write_atomically(place) as temporary:
        temporary.write_text("x")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("target", ["a", "a.part", "é" * 100, "𝔸" * 60, "n" * 255])
def test_every_file_beside_the_destination_survives(folder, target):
    """A user's own ``.part`` file, and a link that somebody planted under the name of a temporary file."""
    names = [f"{target[:50]}.part", ".part", "a.part.part", f"{target[:50]}.tmp"]
    (folder / "secret").write_text("secret")
    for name in names:
        if name != target:
            (folder / name).symlink_to("secret") if name.endswith("tmp") else (folder / name).write_text(name)
    before = {path.name: path.read_text() for path in folder.iterdir() if path.name != target}
    with write_atomically(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == folder
        assert not temporary.is_symlink()
    after = {path.name: path.read_text() for path in folder.iterdir()}
    assert after == before | {target: "new"}


def test_writers_at_once_never_mix(folder):
    barrier, texts = threading.Barrier(8), [str(i) * 100_000 for i in range(8)]

    def write(text):
        with write_atomically("a") as temporary, temporary.open("w") as file:
            barrier.wait()
            file.write(text[:50_000])
            file.flush()
            barrier.wait()
            file.write(text[50_000:])

    threads = [threading.Thread(target=write, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / "a").read_text() in texts
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("place", ["n" * 300, "n" * 300 + "/a", "a\0b", "\ud800"])
def test_impossible_name_is_one_line(folder, place):
    with pytest.raises(DataError, match="cannot write") as error, write_atomically(place) as temporary:
        temporary.write_text("x")
    assert "\n" not in str(error.value)


LOCK = """
import sys
from pathlib import Path
from resque._files import hold_lock
with hold_lock(Path("a.lock"), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_lock_of_another_process_holds_until_its_end(folder, end):
    lock = folder / "a.lock"
    with subprocess.Popen([sys.executable, "-c", LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="busy"), hold_lock(lock, "busy"):
            pass
        process.kill() if end == "kill" else process.stdin.close()
    with hold_lock(lock, "busy"):
        assert lock.exists()
    assert not lock.exists()


@pytest.mark.parametrize("portable", [False, True])
def test_one_of_many_threads_holds_a_lock(folder, monkeypatch, portable):
    if portable:
        monkeypatch.setattr(_files, "_HAS_FLOCK", False)
    lock, inside, most, refusals = folder / "a.lock", [], [], set()

    def work():
        for _ in range(200):
            try:
                with hold_lock(lock, "busy"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except DataError as error:
                refusals.add(str(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert refusals <= {"busy"}
    assert not lock.exists()


def test_planted_lock_is_not_followed(folder):
    (folder / "secret").write_text("secret")
    (folder / "a.lock").symlink_to("secret")
    with pytest.raises(DataError, match="cannot write"), hold_lock(folder / "a.lock", "busy"):
        pass
    assert (folder / "secret").read_text() == "secret"


def killed_writer(target, folder):
    """Leave the temporary file of a process that is killed while it writes."""
    script = (
        "import os, signal, sys\nfrom resque._files import write_atomically\n"
        "with write_atomically(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    before = set(folder.iterdir())
    subprocess.run([sys.executable, "-c", script, target], cwd=folder, check=False)
    (left,) = set(folder.iterdir()) - before
    return left


@pytest.mark.parametrize("target", ["a", "a.part", "é" * 100, "n" * 255, "[a]*?"])
def test_what_a_killed_writer_left_is_removed_by_the_next_write(folder, target):
    """Only that: neither a file of the user, nor a link or folder of that name, nor that of a writer that lives."""
    left = [killed_writer(target, folder) for _ in range(2)]
    middle, stem = left[0].name[len(target[:50]) : -len(".part")], target[:50]
    users = [f"{stem}.part", f"{stem}.backup01.part", f"{stem}{middle}x.part", f"{stem}{middle}.part.txt", "b.part"]
    users += [f"b{middle}.part", f"{stem}{middle[:-1]}.part", f"{stem}.resque.part", f"x{stem[1:]}{middle}.part"]
    users = [name for name in users if name != target]
    for name in users:
        (folder / name).write_text(name)
    taken = {path.name for path in folder.iterdir()}  # which end in what chance made of them
    free = (f"{stem}{middle[:-1]}{last}.part" for last in "wxyz")
    link, inside = [name for name in free if name not in taken][:2]
    (folder / link).symlink_to("b.part")
    (folder / inside).mkdir()
    other = killed_writer("b", folder)
    with write_atomically(target) as living:
        living.write_text("lives")
        with pytest.raises(KeyError), write_atomically(target):
            raise KeyError
        assert all(path.exists() for path in left)  # the write was not successful
        with write_atomically(target) as temporary:
            temporary.write_text("new")
        assert not any(path.exists() for path in left)
        assert living.read_text() == "lives"
    assert (folder / target).read_text() == "lives"
    kept = {path.name for path in folder.iterdir()}
    assert kept == {*users, target, other.name, link, inside}
    assert all((folder / name).read_text() == name for name in users)


def test_temporary_file_that_is_taken_for_a_stale_one_is_made_again(folder, monkeypatch):
    """Between its making and its lock another writer may have removed it."""
    real, made = _files.fcntl.flock, []

    def flock(descriptor, operation):
        (new,) = set(folder.iterdir()) - {folder / "a"}
        made.append(new)
        if len(made) == 1:
            new.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(_files.fcntl, "flock", flock)
    with write_atomically("a") as temporary:
        assert temporary == made[1] != made[0]
        temporary.write_text("new")
    assert (folder / "a").read_text() == "new"


def test_file_system_without_locks_is_written_to(folder, monkeypatch):
    left = killed_writer("a", folder)

    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(_files.fcntl, "flock", flock)
    with write_atomically("a") as temporary:
        temporary.write_text("new")
    assert {path.name for path in folder.iterdir()} == {"a", left.name}  # whether it is stale cannot be known

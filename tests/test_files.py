import os

import pytest

from resque._files import write_atomically
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

"""Hostile files and settings: each is refused in one line, with little processor time and memory beyond start-up."""

import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

from place import Row, faults_of
from process import Ended, run

MIB = 2**20
BOMB = 512 * MIB
LARGEST_S, LARGEST_MB = 1.0, 500.0
_DIST = "dist --model resque.networks:small_cnn --original digits --shifted"
_RETRAIN = "retrain --model resque.networks:small_cnn --train digits@60 --test digits@60 --target-accuracy .9"
LINES = {
    "gzip bomb": f"{_DIST} idx:bomb.gz",
    "gzip bomb of level 1": f"{_DIST} idx:bomb-1.gz",
    "zip bomb": f"{_DIST} npz:bomb.npz",
    "zip bomb of level 1": f"{_DIST} npz:bomb-1.npz",
    "zip bomb of weights": f"{_DIST} digits@60 --weights bomb.pt",
    "pixel bomb": f"{_DIST} folder:pictures",
    "idx header that overflows": f"{_DIST} idx:overflow",
    "classes=2**70": f"{_DIST} digits@60 --classes {2**70}",
    "FIFO": f"{_DIST} npz:fifo",
    "FIFO of weights": f"{_DIST} digits@60 --weights fifo",
    "device": f"{_DIST} npz:/dev/zero",
    "device as a ledger": "ledger list --ledger /dev/zero",
    "device to import": "ledger import /dev/zero",
    "import of 300 characters": f"ledger import {'x' * 300}",
    "path of 300 characters": f"{_DIST} npz:{'x' * 300}",
    "ledger of 300 characters": f"ledger list --ledger {'x' * 300}",
    "nested TOML": f"{_RETRAIN} --project nested.toml",
    "nested TOML of a recipe": f"{_RETRAIN} --recipe nested.toml",
    "batch_size=inf": f"{_RETRAIN} --recipe retrain-adam,batch_size=inf",
}
"""Input → command that gets it."""


def hostile_files(place: Path, times: int, seed: int) -> Row:
    """Give a command hostile files, and measure the processor time and the memory beyond those of ``--version``."""
    holds = f"refused in one line, exit code 1; at most {LARGEST_S:g} s of processor time, {LARGEST_MB:g} MB beyond it"
    row, measured = Row("hostile files and settings", 0, holds), []
    with tempfile.TemporaryDirectory(prefix="resque-torture-") as name:
        folder = Path(name)
        _make(folder)
        usual = run("--version", folder)
        for what, line in LINES.items():
            ended = [run(line, folder) for _ in range(times)]
            row.times += times
            seconds = max(each.cpu_s for each in ended) - usual.cpu_s
            megabytes = max(each.peak_mb for each in ended) - usual.peak_mb
            measured.append(f"{what} {max(seconds, 0.0):.2f} s {max(megabytes, 0.0):.0f} MB")
            row.violations += [f"{what}: {each}" for each in _faults(ended[0])]
            if seconds > LARGEST_S or megabytes > LARGEST_MB:
                row.violations.append(f"{measured[-1]} beyond start-up")
    row.note = ", ".join(measured)
    return row


def _faults(ended: Ended) -> list[str]:
    return faults_of(ended) + ([] if ended.code == 1 else [f"exit code {ended.code}: {ended.err.strip()[-200:]}"])


def _make(folder: Path) -> None:
    """Write the files; what they unpack to never lies in memory."""
    for name, level in (("bomb.gz", 9), ("bomb-1.gz", 1)):
        squeeze = zlib.compressobj(level, zlib.DEFLATED, 31)
        with (folder / name).open("wb") as file:
            file.write(squeeze.compress(_idx_header(BOMB // MIB, 1024, 1024)))
            for _ in range(BOMB // MIB):
                file.write(squeeze.compress(bytes(MIB)))
            file.write(squeeze.flush())
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({BOMB // MIB}, 1024, 1024)}}".ljust(117) + "\n"
    for name, level in (("bomb.npz", 9), ("bomb-1.npz", 1), ("bomb.pt", 9)):
        archive = zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=level)
        with archive, archive.open("a/x.npy" if name.endswith("pt") else "x.npy", "w") as stream:
            stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
            for _ in range(BOMB // MIB):
                stream.write(bytes(MIB))
    (folder / "overflow").write_bytes(_idx_header(2**16, 2**16, 2**16, 2**16))
    for label in ("a", "b"):
        (folder / "pictures" / label).mkdir(parents=True)
        (folder / "pictures" / label / "bomb.png").write_bytes(_picture(30_000, 30_000))
    os.mkfifo(folder / "fifo")
    (folder / "nested.toml").write_text("a = " + "[" * 100_000 + "]" * 100_000)


def _idx_header(*shape: int) -> bytes:
    return struct.pack(">HBB", 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)


def _picture(width: int, height: int) -> bytes:
    """Return a PNG file of a black picture that claims so many pixels."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(MIB), 9),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

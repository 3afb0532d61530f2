"""How commands in several processes ended."""

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Ended:
    """How one process ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        """Error lines of resque."""
        return [line for line in self.err.splitlines() if line.startswith("resque:")]


def run_processes(shell: Callable, folder: Path, *lines: str, nodes: int = 1) -> list[Ended]:
    """Run a command in several processes, with the environment that torchrun gives: how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = len(lines)
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    script = []
    for rank, line in enumerate(lines):
        each = {**shared, "RANK": rank, "LOCAL_RANK": rank % (count // nodes)}
        given = " ".join(f"{name}={value}" for name, value in each.items())
        script.append(
            f"(code=0; {given} resque {line} > out-{rank} 2> err-{rank} || code=$?; echo $code > code-{rank}) &"
        )
    shell("\n".join([*script, "wait"]), folder)
    read = [[(folder / f"{what}-{rank}").read_text() for what in ("code", "out", "err")] for rank in range(count)]
    return [Ended(int(code), out, err) for code, out, err in read]


def assert_silent(others: list[Ended]) -> None:
    assert [(each.out, each.err) for each in others] == [("", "")] * len(others)

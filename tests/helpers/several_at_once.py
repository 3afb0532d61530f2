"""An engine of this process whose tasks run several at once, and end in any order."""

import pickle
import random
from collections.abc import Iterable, Iterator

from resque.workflows.engine import ExperimentTask, Row


class Disorderly:
    """Begins as many tasks as there is room for, and lets a random one of them end; some are lost for good.

    Tasks and rows are pickled on their way, as between processes.
    """

    def __init__(self, room: int, seed: int = 0, loses: str = "nothing") -> None:
        self.room, self.random, self.loses = room, random.Random(seed), loses
        self.begun: list[str] = []
        self.most = 0

    def run(self, tasks: Iterable[ExperimentTask]) -> Iterator[tuple[str, Row]]:
        queue, running = iter(tasks), list[tuple[str, bytes]]()
        while True:
            while len(running) < self.room and (task := next(queue, None)) is not None:
                running.append((task.key, pickle.dumps((task.work, dict(task.arguments)))))
                self.begun.append(task.key)
            if not running:
                return
            self.most = max(self.most, len(running))
            key, sent = running.pop(self.random.randrange(len(running)))
            if self.loses in key:
                yield key, {"error": "lost 4 times: WorkerCrashedError"}
                continue
            work, arguments = pickle.loads(sent)  # noqa: S301
            yield key, pickle.loads(pickle.dumps(work(**arguments)))  # noqa: S301

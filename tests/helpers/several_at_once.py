"""An engine of this process whose tasks run several at once, and end in any order."""

import pickle
import random
import re
from collections.abc import Iterable, Iterator

from resque.workflows.engine import ExperimentTask, Row


class Disorderly:
    """Begins as many tasks as there is room for, and lets a random one of them end; some are lost for good.

    It may be interrupted after a number of tasks.

    Tasks and rows are pickled on their way, as between processes.
    """

    def __init__(self, room: int, seed: int = 0, loses: str = "nothing", ends_after: int = 99) -> None:
        self.room, self.random, self.loses, self.left = room, random.Random(seed), loses, ends_after
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
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.most = max(self.most, len(running))
            key, sent = running.pop(self.random.randrange(len(running)))
            if re.fullmatch(self.loses, key):
                yield key, {"error": "lost 4 times: WorkerCrashedError"}
                continue
            work, arguments = pickle.loads(sent)
            yield key, pickle.loads(pickle.dumps(work(**arguments)))

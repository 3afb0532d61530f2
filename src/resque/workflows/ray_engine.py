"""Engine that runs tasks on a Ray cluster, or on a Ray that is started on this machine and shut down afterwards.

A metered task holds one unit of the resource ``resque_meter``. A node offers as many units as it has devices with a
counter of their own, or one if only the node is metered, so that no two measured runs disturb each other. A task whose
process or node is lost is run again. Workers return rows, and the driver alone writes them.
"""

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from resque._callables import USER_MODULE
from resque._format import describe_error
from resque._optional import import_optional
from resque._threads import limit_threads, threads_per_task
from resque.errors import SettingError
from resque.workflows.engine import Engine, ExperimentTask, LocalEngine, Row
from resque.workflows.ray_connection import METER_RESOURCE, connected, lost_ray, ray_errors

__all__ = ["ENGINES", "METER_RESOURCE", "RayEngine", "open_engine"]

ENGINES = "local", "ray"
_RETRIES = 3


@dataclass(frozen=True)
class RayEngine:
    """Runs tasks on the Ray that this process is connected to.

    Attributes:
        gpus: Number of GPUs that a task gets.
        threads: Number of threads and processors that a task gets.
        retries: Number of times that a task is run again whose process or node is lost.

    Example:
        >>> RayEngine(gpus=1, threads=2).demand(ExperimentTask("a", dict, is_metered=True))
        {'CPU': 2.0, 'GPU': 1.0, 'resque_meter': 1.0}
    """

    gpus: int = 0
    threads: int = 1
    retries: int = _RETRIES
    _sent: dict[int, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def demand(self, task: ExperimentTask) -> dict[str, float]:
        """Return what a task holds while it runs: resource → amount."""
        asked = {"CPU": self.threads, "GPU": self.gpus, METER_RESOURCE: int(task.is_metered)}
        return {name: float(amount) for name, amount in asked.items() if amount}

    def run(self, tasks: Iterable[ExperimentTask]) -> Iterator[tuple[str, Row]]:
        """Yield ``(key, row)`` of tasks as they end; one that was lost too often has a row with ``error`` alone.

        Raises:
            SettingError: The cluster has not what a task needs.
            ResqueError: Ray ended.
        """
        ray, queue, running, most = _ray(), iter(tasks), dict[Any, str](), 1
        try:
            while True:
                while len(running) < most and (task := next(queue, None)) is not None:
                    with ray_errors(ray):
                        most = self._capacity(task)
                        running[self._submit(task)] = task.key
                if not running:
                    return
                with ray_errors(ray):
                    done = ray.wait([*running])[0]
                for ended in done:
                    yield running.pop(ended), self._row(ended)
        finally:
            with contextlib.suppress(ray.exceptions.RayError):
                for left in running:
                    ray.cancel(left, force=True)

    def _capacity(self, task: ExperimentTask) -> int:
        """Return how many such tasks the cluster can run at once."""
        offered, demand = _ray().cluster_resources(), self.demand(task)
        if not offered:  # no node is left, not even that of this process
            raise lost_ray()
        most = {name: int(offered.get(name, 0.0) / amount) for name, amount in demand.items()}
        for name in (name for name, count in most.items() if not count):
            advice = "set OMP_NUM_THREADS, threads per task, lower" if name == "CPU" else "use nodes with GPUs"
            if name == METER_RESOURCE:
                advice = f"start each node with --resources='{{\"{METER_RESOURCE}\": 1}}', or one per metered device"
            raise SettingError(
                f"a task needs {demand[name]:g} {name}, and the cluster has {offered.get(name, 0):g}: {advice}"
            )
        return min(most.values())

    def _submit(self, task: ExperimentTask) -> Any:
        """Start a task."""
        ray, amounts = _ray(), self.demand(task)
        options = {"num_cpus": amounts.pop("CPU"), "num_gpus": amounts.pop("GPU", 0.0), "resources": amounts}
        for module in [each for name, each in sys.modules.items() if name.startswith(USER_MODULE)]:
            ray.cloudpickle.register_pickle_by_value(module)  # of the user's files, which only the driver can import
        function = ray.remote(_work).options(**options, max_retries=self.retries, name=task.key)
        arguments = {name: self._send(value) for name, value in task.arguments.items()}
        return function.remote(task.work, self.threads, **arguments)

    def _send(self, value: Any) -> Any:
        """Return the place of a value at Ray; an object is sent once for all tasks, and given up with its last user."""
        key = id(value)
        if key in self._sent:
            return self._sent[key][1]
        place = _ray().put(value)
        with contextlib.suppress(TypeError):  # plain values, which nobody shares
            self._sent[key] = weakref.ref(value, lambda _: self._sent.pop(key, None)), place
        return place

    def _row(self, ended: Any) -> Row:
        """Return the row of a task that has ended, or raise its error."""
        ray = _ray()
        try:
            row: Row = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            with ray_errors(ray):
                if not ray.cluster_resources():
                    raise lost_ray() from error
            return {"error": f"lost {self.retries + 1} times: {describe_error(error)}"}
        return row


@contextmanager
def open_engine(name: str = "local", address: str | None = None, workers: int = 1, gpus: int = 0) -> Iterator[Engine]:
    """Provide an engine for the block; a Ray that was started for it is shut down at its end.

    A process that is connected to Ray already keeps its connection.

    Args:
        name: ``"local"`` or ``"ray"``.
        address: Address of a Ray cluster; None starts Ray on this machine.
        workers: Number of processes of the local engine.
        gpus: Number of GPUs that a task on Ray gets.

    Raises:
        ModelError: Ray is not installed.
        SettingError: There is no such engine, or no cluster at the address.

    Example:
        >>> with open_engine() as engine:
        ...     engine
        LocalEngine(workers=1)
    """
    if name not in ENGINES:
        raise SettingError(f"engine {name!r}: expected {' or '.join(ENGINES)}")
    if name == "local":
        if address is not None:
            raise SettingError(f"the local engine has no address, and {address!r} was given: add --engine ray")
        yield LocalEngine(workers)
        return
    ray, engine = _ray(), RayEngine(gpus, threads_per_task())
    with nullcontext() if ray.is_initialized() else connected(ray, address, gpus):
        yield engine


def _ray() -> ModuleType:
    return import_optional("ray", "ray")


def _work(_work: Callable[..., Row], _threads: int, /, **arguments: Any) -> Row:
    """Do a task on a worker."""
    limit_threads(_threads)
    return _work(**arguments)
